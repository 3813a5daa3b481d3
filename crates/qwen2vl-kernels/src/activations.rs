//! Activations, quantized to 8 bits as they come: each group of a row by its own largest value.
//!
//! The order of values in a block is that in which a kernel meets the weights: for 4 bits first those in the lower halves of
//! 64 bytes, then those in the upper ones; for 8 bits as they are. So a lane of 32 bits always belongs to one group: with 4
//! bits four groups of 32 values, with 8 bits two of 64 (the 32 of either half of the block that meet the same lanes).

use crate::BLOCK;
use crate::weights::Kind;

/// 32-bit lanes of a vector.
pub(crate) const LANES: usize = 16;

/// Quantized rows, `[m, k]`.
#[derive(Debug, Default)]
pub(crate) struct Activations {
    pub k: usize,
    /// `[m, k]`, in the kernels' order.
    pub values: Vec<i8>,
    /// Of each lane of each block, `[m, k / 128, 16]`.
    pub scales: Vec<f32>,
    /// What the values of a lane add up to, `[m, k / 128, 16]`.
    pub lane_sums: Vec<f32>,
    /// What the values of a block add up to, `[m, padded(k / 128)]`, with zeros at the end.
    pub block_sums: Vec<f32>,
}

/// Blocks of a row in `block_sums`: a multiple of the lanes.
pub(crate) fn padded(blocks: usize) -> usize {
    blocks.next_multiple_of(LANES)
}

/// Where value `i` of a block lies.
fn place(kind: Kind, i: usize) -> usize {
    match kind {
        Kind::U4 => i % 2 * 64 + i / 2,
        Kind::U8 | Kind::I8 => i,
    }
}

/// The lane of a place, of which each 64 bytes have all.
fn lane(place: usize) -> usize {
    place % 64 / 4
}

/// Lanes that share a scale.
fn lanes_of_group(kind: Kind) -> usize {
    match kind {
        Kind::U4 => 4,
        Kind::U8 | Kind::I8 => 8,
    }
}

/// One row's parts.
pub(crate) struct RowMut<'a> {
    pub values: &'a mut [i8],
    pub scales: &'a mut [f32],
    pub lane_sums: &'a mut [f32],
    pub block_sums: &'a mut [f32],
}

impl Activations {
    /// Makes room for `m` rows of `k` values.
    pub(crate) fn resize(&mut self, m: usize, k: usize) {
        let blocks = k / BLOCK;
        self.k = k;
        self.values.resize(m * k, 0);
        self.scales.resize(m * blocks * LANES, 0.0);
        self.lane_sums.resize(m * blocks * LANES, 0.0);
        self.block_sums.clear();
        self.block_sums.resize(m * padded(blocks), 0.0);
    }

    /// Its rows.
    pub(crate) fn rows_mut(&mut self) -> impl Iterator<Item = RowMut<'_>> {
        let blocks = self.k / BLOCK;
        let scales = self.scales.chunks_exact_mut(blocks * LANES);
        let lane_sums = self.lane_sums.chunks_exact_mut(blocks * LANES);
        let block_sums = self.block_sums.chunks_exact_mut(padded(blocks));
        let values = self.values.chunks_exact_mut(self.k);
        values.zip(scales).zip(lane_sums.zip(block_sums)).map(
            |((values, scales), (lane_sums, block_sums))| RowMut { values, scales, lane_sums, block_sums },
        )
    }
}

/// Quantizes a row. A value that is not finite makes all products of its row NaN.
#[cfg_attr(target_arch = "x86_64", allow(dead_code, reason = "what the fast version is compared with"))]
pub(crate) fn quantize(kind: Kind, x: &[f32], out: &mut RowMut<'_>) {
    let width = lanes_of_group(kind);
    for (block, x) in x.chunks_exact(BLOCK).enumerate() {
        let mut largest = [0.0f32; LANES];
        // Zero, or NaN where a value is not finite.
        let mut damage = 0.0;
        for (i, value) in x.iter().enumerate() {
            let group = lane(place(kind, i)) / width;
            largest[group] = largest[group].max(value.abs());
            damage += value * 0.0;
        }
        let mut sums = [0i32; LANES];
        for (i, value) in x.iter().enumerate() {
            let place = place(kind, i);
            let group = lane(place) / width;
            let quantized = (value * inverse(largest[group])).round_ties_even() as i8;
            out.values[block * BLOCK + place] = quantized;
            sums[lane(place)] += i32::from(quantized);
        }
        for (lane, sum) in sums.iter().enumerate() {
            let scale = largest[lane / width] / 127.0 + damage;
            out.scales[block * LANES + lane] = scale;
            out.lane_sums[block * LANES + lane] = *sum as f32 * scale;
        }
        // In the order of a vector's halves, as the fast version adds them.
        let sums = &out.lane_sums[block * LANES..][..LANES];
        out.block_sums[block] = sum_of_lanes(sums);
    }
}

/// What a value is multiplied with to become one of -127..=127.
pub(crate) fn inverse(largest: f32) -> f32 {
    if largest > 0.0 && largest.is_finite() { 127.0 / largest } else { 0.0 }
}

/// The sum of 16 lanes: halves added to each other until one is left.
pub(crate) fn sum_of_lanes(lanes: &[f32]) -> f32 {
    let mut lanes: [f32; LANES] = std::array::from_fn(|i| lanes[i]);
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
    }
    lanes[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back_within_half_a_step_in_any_order() {
        for kind in [Kind::U4, Kind::U8] {
            let x: Vec<f32> =
                (0..256).map(|i| ((i * 37 % 101) as f32 - 50.0) * (1.0 + (i / 32) as f32)).collect();
            let mut rows = Activations::default();
            rows.resize(1, 256);
            quantize(kind, &x, &mut rows.rows_mut().next().unwrap());
            for (i, value) in x.iter().enumerate() {
                let (block, place) = (i / BLOCK, place(kind, i % BLOCK));
                let scale = rows.scales[block * LANES + lane(place)];
                let back = f32::from(rows.values[block * BLOCK + place]) * scale;
                assert!((back - value).abs() <= scale * 0.501, "{kind:?} {i}: {back} for {value}");
            }
            let sum: f32 = rows.block_sums.iter().sum();
            assert!((sum - x.iter().sum::<f32>()).abs() < 200.0);
        }
    }

    #[test]
    fn zeros_stay_zeros_and_damage_shows() {
        let mut rows = Activations::default();
        rows.resize(1, 128);
        quantize(Kind::U4, &[0.0; 128], &mut rows.rows_mut().next().unwrap());
        assert!(rows.values.iter().all(|v| *v == 0) && rows.scales.iter().all(|s| *s == 0.0));
        let mut x = [1.0; 128];
        x[3] = f32::NAN;
        quantize(Kind::U4, &x, &mut rows.rows_mut().next().unwrap());
        assert!(rows.scales[0].is_nan());
    }
}
