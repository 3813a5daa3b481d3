//! Queries that meet the same keys, in the lanes of vectors, and what they have met so far.

use std::ops::Range;

use super::quantized::{KEYS, Quantized};
use crate::panel::Line;

/// The largest weight of a block: as many products of it and a value as there are keys fit 32 bits.
pub(crate) const WEIGHT: f32 = 8191.0;

/// Powers of two, as exact as weights are.
pub(crate) mod powers {
    /// Those of smaller exponents are no normal numbers, and round to 0 as these do.
    pub(crate) const LEAST: f32 = -120.0;

    /// `2^x` for `x` from -0.5 to 0.5, through Chebyshev's nodes, within 4e-6; the highest power first.
    pub(crate) const POLYNOMIAL: [f32; 5] = [0.009_666_369, 0.055_921_976, 0.240_223_5, 0.693_121, 1.0];
}

/// Vectors of queries.
pub(crate) const VECTORS: usize = 2;

/// The most lanes of all vectors.
const MOST: usize = VECTORS * 16;

/// Numbers of 4 bytes for each lane, `[rows, lanes]`.
#[derive(Default)]
pub(crate) struct Lanes(Vec<Line>);

/// One for each lane.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Each(pub [f32; MOST]);

/// Queries and what they have met.
pub(crate) struct Queries {
    lanes: usize,
    /// Zero, or NaN where a key or value is not finite.
    pub damage: f32,
    /// Pairs of values, `[width / 2, lanes]`.
    pub pairs: Lanes,
    /// Room for scores of a block, `[KEYS, lanes]`.
    pub scores: Lanes,
    /// Room for its weights, pairs of keys, `[KEYS / 2, lanes]`.
    pub weights: Lanes,
    /// Sums of weighted values, `[width, lanes]`.
    pub sums: Lanes,
    /// What a score is multiplied with to become the exponent of a power of two.
    pub units: Each,
    /// The largest score, and the sum of weights.
    pub largest: Each,
    pub totals: Each,
}

impl Default for Queries {
    fn default() -> Self {
        let zeros = Each([0.0; MOST]);
        let none = Lanes::default;
        Self {
            lanes: 0,
            damage: 0.0,
            pairs: none(),
            scores: none(),
            weights: none(),
            sums: none(),
            units: zeros,
            largest: zeros,
            totals: zeros,
        }
    }
}

impl Lanes {
    fn resize(&mut self, rows: usize, lanes: usize) {
        self.0.resize(rows * lanes / 16, Line::ZEROS);
    }

    pub(crate) fn as_mut_ptr<T>(&mut self) -> *mut T {
        const { assert!(size_of::<T>() == 4) };
        self.0.as_mut_ptr().cast()
    }
}

impl Queries {
    /// Takes a head of some rows, at most `lanes`.
    pub(super) fn begin(
        &mut self,
        lanes: usize,
        quantized: &Quantized,
        head: usize,
        rows: Range<usize>,
        scale: f32,
    ) {
        let width = quantized.width();
        (self.lanes, self.damage) = (lanes, 0.0);
        self.pairs.resize(width / 2, lanes);
        self.scores.resize(KEYS, lanes);
        self.weights.resize(KEYS / 2, lanes);
        self.sums.resize(width, lanes);
        self.sums.0.fill(Line::ZEROS);
        self.pairs.0.fill(Line::ZEROS);
        self.units.0.fill(0.0);
        self.totals.0.fill(0.0);
        // Less than any score, and still a number when one is taken off.
        self.largest.0.fill(-1e30);
        for (lane, row) in rows.enumerate() {
            let (query, unit) = quantized.query(head, row);
            self.units.0[lane] = unit * scale * std::f32::consts::LOG2_E;
            for (i, pair) in query.as_chunks::<2>().0.iter().enumerate() {
                let [even, odd] = pair.map(|value| u32::from(value.cast_unsigned()));
                let at = i * lanes + lane;
                self.pairs.0[at / 16].0[at % 16] = even | odd << 16;
            }
        }
    }

    /// Writes a lane's results.
    pub(super) fn finish(&self, lane: usize, out: &mut [f32]) {
        let by = 1.0 / self.totals.0[lane] + self.units.0[lane] * 0.0 + self.damage;
        for (i, out) in out.iter_mut().enumerate() {
            let at = i * self.lanes + lane;
            *out = f32::from_bits(self.sums.0[at / 16].0[at % 16]) * by;
        }
    }
}
