//! Activations, quantized to 8 bits as they come: each group of a row by its own largest value.

use crate::weights::Kind;
use crate::{BLOCK, GROUP};

/// How quantized values lie: as a kernel's unpacked weights do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Bytes; of each eight those of even places come first, since weights of 4 bits are taken apart into lower and upper
    /// halves of bytes.
    Halves,
    /// Bytes in their order.
    Bytes,
    /// Two bytes each; of each four those of even places come first.
    Words,
}

impl Form {
    pub(crate) fn bytes(self) -> usize {
        match self {
            Self::Halves | Self::Bytes => 1,
            Self::Words => 2,
        }
    }

    /// Where value `i` lies.
    fn place(self, i: usize) -> usize {
        match self {
            Self::Halves => i / 8 * 8 + i % 2 * 4 + i % 8 / 2,
            Self::Bytes => i,
            Self::Words => i / 4 * 4 + i % 2 * 2 + i % 4 / 2,
        }
    }
}

/// What rows are quantized for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    pub k: usize,
    pub form: Form,
}

/// Quantized rows, `[m, k]`.
#[derive(Debug)]
pub(crate) struct Activations {
    pub layout: Layout,
    /// `[m, k]`, in the kernel's form.
    pub values: Vec<u8>,
    /// `[m, k / 32]`.
    pub scales: Vec<f32>,
    /// What the values of a group add up to, `[m, k / 32]`.
    pub sums: Vec<f32>,
    /// What the values of a block add up to, `[m, k / 128]`.
    pub block_sums: Vec<f32>,
}

/// One row's parts.
pub(crate) struct RowMut<'a> {
    pub values: &'a mut [u8],
    pub scales: &'a mut [f32],
    pub sums: &'a mut [f32],
    pub block_sums: &'a mut [f32],
}

impl Default for Activations {
    fn default() -> Self {
        let layout = Layout { k: 0, form: Form::Bytes };
        Self { layout, values: Vec::new(), scales: Vec::new(), sums: Vec::new(), block_sums: Vec::new() }
    }
}

impl Activations {
    /// Makes room for `m` rows.
    pub(crate) fn resize(&mut self, m: usize, layout: Layout) {
        let Layout { k, form } = layout;
        self.layout = layout;
        self.values.resize(m * k * form.bytes(), 0);
        self.scales.resize(m * k / GROUP, 0.0);
        self.sums.resize(m * k / GROUP, 0.0);
        self.block_sums.resize(m * k / BLOCK, 0.0);
    }

    /// Its rows.
    pub(crate) fn rows_mut(&mut self) -> impl Iterator<Item = RowMut<'_>> {
        let Layout { k, form } = self.layout;
        let values = self.values.chunks_exact_mut(k * form.bytes());
        let scales = self.scales.chunks_exact_mut(k / GROUP);
        let sums = self.sums.chunks_exact_mut(k / GROUP);
        let block_sums = self.block_sums.chunks_exact_mut(k / BLOCK);
        values.zip(scales).zip(sums.zip(block_sums)).map(|((values, scales), (sums, block_sums))| RowMut {
            values,
            scales,
            sums,
            block_sums,
        })
    }
}

impl Kind {
    /// Whether rows that are quantized for one kind fit the other.
    pub(crate) fn is_like(self, other: Self) -> bool {
        (self == Self::U4) == (other == Self::U4)
    }
}

/// Quantizes a row. A value that is not finite makes all products of its row NaN.
#[cfg_attr(target_arch = "x86_64", allow(dead_code, reason = "what the fast version is compared with"))]
pub(crate) fn quantize(form: Form, x: &[f32], out: &mut RowMut<'_>) {
    for (group, x) in x.chunks_exact(GROUP).enumerate() {
        let largest = x.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
        // Zero, or NaN where a value is not finite.
        let damage: f32 = x.iter().map(|value| value * 0.0).sum();
        let scale = largest / 127.0 + damage;
        let mut sum = 0;
        for (i, value) in x.iter().enumerate() {
            let quantized = (value * inverse(largest)).round_ties_even() as i8;
            sum += i32::from(quantized);
            let at = (group * GROUP + form.place(i)) * form.bytes();
            let value = i16::from(quantized).to_le_bytes();
            out.values[at..][..form.bytes()].copy_from_slice(&value[..form.bytes()]);
        }
        out.scales[group] = scale;
        out.sums[group] = sum as f32 * scale;
    }
    add_up(out);
}

/// Sums of blocks from those of groups.
pub(crate) fn add_up(out: &mut RowMut<'_>) {
    for (sum, of) in out.block_sums.iter_mut().zip(out.sums.chunks_exact(BLOCK / GROUP)) {
        *sum = of.iter().fold(0.0, |sum, of| sum + of);
    }
}

/// What a value is multiplied with to become one of -127..=127.
pub(crate) fn inverse(largest: f32) -> f32 {
    if largest > 0.0 && largest.is_finite() { 127.0 / largest } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMS: [Form; 3] = [Form::Halves, Form::Bytes, Form::Words];

    fn quantized(form: Form, x: &[f32]) -> Activations {
        let mut rows = Activations::default();
        rows.resize(1, Layout { k: x.len(), form });
        quantize(form, x, &mut rows.rows_mut().next().unwrap());
        rows
    }

    #[test]
    fn values_come_back_within_half_a_step_in_any_form() {
        for form in FORMS {
            let x: Vec<f32> =
                (0..256).map(|i| ((i * 37 % 101) as f32 - 50.0) * (1.0 + (i / 32) as f32)).collect();
            let rows = quantized(form, &x);
            for (i, value) in x.iter().enumerate() {
                let at = form.place(i) * form.bytes();
                let scale = rows.scales[i / GROUP];
                let back = f32::from(rows.values[at].cast_signed()) * scale;
                assert!((back - value).abs() <= scale * 0.501, "{form:?} {i}: {back} for {value}");
            }
            let sum: f32 = rows.block_sums.iter().sum();
            assert!((sum - x.iter().sum::<f32>()).abs() < 200.0);
        }
    }

    #[test]
    fn zeros_stay_zeros_and_damage_shows() {
        let rows = quantized(Form::Halves, &[0.0; 128]);
        assert!(rows.values.iter().all(|v| *v == 0) && rows.scales.iter().all(|s| *s == 0.0));
        let mut x = [1.0; 128];
        x[3] = f32::NAN;
        let rows = quantized(Form::Halves, &x);
        assert!(rows.scales[0].is_nan() && rows.block_sums[0].is_nan());
    }
}
