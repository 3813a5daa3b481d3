//! Activations, quantized to 8 bits as they come: each group of a row by its own largest value.

use crate::weights::Kind;
use crate::{BLOCK, GROUP};

/// The largest quantized value.
pub(crate) const MOST: f32 = 127.0;

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

/// Bytes of a row that lie together.
const WORD: usize = 4;

/// What rows are quantized for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    pub k: usize,
    pub form: Form,
    /// Rows that lie side by side, so that a kernel for several reads them in one run.
    pub abreast: usize,
}

/// Quantized rows: `abreast` of them, then the next ones.
#[derive(Debug)]
pub(crate) struct Activations {
    pub layout: Layout,
    /// In the kernel's form: words of 4 bytes, `[m / abreast, k * bytes / 4, abreast]`.
    pub values: Vec<u8>,
    /// `[m / abreast, k / 32, abreast]`.
    pub scales: Vec<f32>,
    /// What the values of a group add up to, as the scales lie.
    pub sums: Vec<f32>,
    /// What the values of a block add up to, `[m / abreast, k / 128, abreast]`.
    pub block_sums: Vec<f32>,
}

/// Where a row's parts lie, and side by side with it those of the next ones.
#[derive(Clone, Copy)]
pub(crate) struct At {
    pub values: *const u8,
    /// Of its groups.
    pub scales: *const f32,
    /// Of its spans.
    pub sums: *const f32,
}

/// Rows that lie side by side.
pub(crate) struct AbreastMut<'a> {
    layout: Layout,
    values: &'a mut [u8],
    scales: &'a mut [f32],
    sums: &'a mut [f32],
    block_sums: &'a mut [f32],
}

/// One of them.
pub(crate) struct RowMut<'a, 'b> {
    of: &'b mut AbreastMut<'a>,
    row: usize,
}

impl Default for Activations {
    fn default() -> Self {
        let layout = Layout { k: 0, form: Form::Bytes, abreast: 1 };
        Self { layout, values: Vec::new(), scales: Vec::new(), sums: Vec::new(), block_sums: Vec::new() }
    }
}

impl Activations {
    /// Makes room for `m` rows, and for what is missing beside the last ones.
    pub(crate) fn resize(&mut self, m: usize, layout: Layout) {
        let Layout { k, form, abreast } = layout;
        let values = m.next_multiple_of(abreast) * k;
        self.layout = layout;
        self.values.resize(values * form.bytes(), 0);
        self.scales.resize(values / GROUP, 0.0);
        self.sums.resize(values / GROUP, 0.0);
        self.block_sums.resize(values / BLOCK, 0.0);
    }

    /// Its rows, those together that lie side by side.
    pub(crate) fn abreast_mut(&mut self) -> impl Iterator<Item = AbreastMut<'_>> {
        let layout @ Layout { k, form, abreast } = self.layout;
        let values = self.values.chunks_exact_mut(abreast * k * form.bytes());
        let scales = self.scales.chunks_exact_mut(abreast * k / GROUP);
        let sums = self.sums.chunks_exact_mut(abreast * k / GROUP);
        let block_sums = self.block_sums.chunks_exact_mut(abreast * k / BLOCK);
        values.zip(scales).zip(sums.zip(block_sums)).map(move |((values, scales), (sums, block_sums))| {
            AbreastMut { layout, values, scales, sums, block_sums }
        })
    }

    /// Where a row lies from value `at` on, which begins a span.
    #[inline(always)]
    pub(crate) fn at(&self, row: usize, at: usize, span: usize) -> At {
        let Layout { k, form, abreast } = self.layout;
        let sums = if span == BLOCK { &self.block_sums } else { &self.sums };
        let (first, beside) = ((row / abreast * k + at) * abreast, row % abreast);
        At {
            values: self.values[first * form.bytes() + beside * WORD..].as_ptr(),
            scales: self.scales[first / GROUP + beside..].as_ptr(),
            sums: sums[first / span + beside..].as_ptr(),
        }
    }
}

impl<'a> AbreastMut<'a> {
    pub(crate) fn row<'b>(&'b mut self, row: usize) -> RowMut<'a, 'b> {
        RowMut { of: self, row }
    }
}

impl RowMut<'_, '_> {
    /// Puts in a group's values, which are in the kernel's form, and what they add up to.
    #[inline]
    pub(crate) fn set(&mut self, group: usize, values: &[u8], scale: f32, sum: f32) {
        let abreast = self.of.layout.abreast;
        let to = &mut self.of.values[group * values.len() * abreast..][..values.len() * abreast];
        match abreast {
            1 => to.copy_from_slice(values),
            _ => {
                for (to, value) in to.chunks_exact_mut(WORD * abreast).zip(values.chunks_exact(WORD)) {
                    to[self.row * WORD..][..WORD].copy_from_slice(value);
                }
            }
        }
        self.of.scales[group * abreast + self.row] = scale;
        self.of.sums[group * abreast + self.row] = sum;
    }

    /// Adds up sums of blocks from those of groups.
    pub(crate) fn add_up(&mut self) {
        let abreast = self.of.layout.abreast;
        for (block, sums) in self.of.sums.chunks_exact(BLOCK / GROUP * abreast).enumerate() {
            let sum = sums.iter().skip(self.row).step_by(abreast).fold(0.0, |sum, of| sum + of);
            self.of.block_sums[block * abreast + self.row] = sum;
        }
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
pub(crate) fn quantize(form: Form, x: &[f32], out: &mut RowMut<'_, '_>) {
    let bytes = GROUP * form.bytes();
    for (group, x) in x.chunks_exact(GROUP).enumerate() {
        let largest = x.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
        // Zero, or NaN where a value is not finite.
        let damage: f32 = x.iter().map(|value| value * 0.0).sum();
        let scale = largest / MOST + damage;
        let mut sum = 0;
        let mut values = [0; 2 * GROUP];
        for (i, value) in x.iter().enumerate() {
            let quantized = (value * inverse(largest, MOST)).round_ties_even() as i8;
            sum += i32::from(quantized);
            let at = form.place(i) * form.bytes();
            let value = i16::from(quantized).to_le_bytes();
            values[at..][..form.bytes()].copy_from_slice(&value[..form.bytes()]);
        }
        out.set(group, &values[..bytes], scale, sum as f32 * scale);
    }
    out.add_up();
}

/// What a value is multiplied with to become one of `-most..=most`.
pub(crate) fn inverse(largest: f32, most: f32) -> f32 {
    if largest > 0.0 && largest.is_finite() { most / largest } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMS: [Form; 3] = [Form::Halves, Form::Bytes, Form::Words];

    fn quantized(form: Form, x: &[f32]) -> Activations {
        let mut rows = Activations::default();
        rows.resize(1, Layout { k: x.len(), form, abreast: 1 });
        quantize(form, x, &mut rows.abreast_mut().next().unwrap().row(0));
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
