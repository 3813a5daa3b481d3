//! Queries of a head of keys that meet tokens together, and what they have met.

use super::{BLOCK_TOKENS, WIDEST};
use crate::GROUP;

/// The most queries of a tile: with two vectors of sums each they fit the registers of AVX2.
pub(crate) const QUERIES: usize = 6;

/// Tokens that are met by themselves before what was met is put together: their scores stay in the first-level cache.
pub(crate) const SPAN: usize = 256;

/// Blocks of a span.
pub(crate) const SPAN_BLOCKS: usize = SPAN / BLOCK_TOKENS;

/// Room for scores of a span, then its weights.
#[derive(Clone)]
#[repr(C, align(64))]
pub(crate) struct Scores(pub [[f32; SPAN]; QUERIES]);

/// Queries that meet tokens.
#[derive(Clone)]
#[repr(C, align(64))]
pub(crate) struct Tile {
    /// Multiplied so that scores are exponents of two.
    pub queries: [[f32; WIDEST]; QUERIES],
    /// What the values of a group of a query add up to.
    pub sums: [[f32; WIDEST / GROUP]; QUERIES],
    /// Tokens that each sees, from the sequence's first on.
    pub seen: [usize; QUERIES],
    /// How many there are.
    pub n: usize,
}

/// What the queries of a tile have met.
#[derive(Clone)]
#[repr(C, align(64))]
pub(crate) struct Met {
    /// Sums of weighted values.
    pub out: [[f32; WIDEST]; QUERIES],
    /// The largest score, and the sum of weights.
    pub largest: [f32; QUERIES],
    pub totals: [f32; QUERIES],
}

impl Scores {
    pub(crate) const EMPTY: Self = Self([[0.0; SPAN]; QUERIES]);
}

impl Tile {
    pub(super) const EMPTY: Self = Self {
        queries: [[0.0; WIDEST]; QUERIES],
        sums: [[0.0; WIDEST / GROUP]; QUERIES],
        seen: [0; QUERIES],
        n: 0,
    };

    pub(super) fn clear(&mut self) {
        self.n = 0;
    }

    pub(super) fn push(&mut self, query: &[f32], by: f32, seen: usize) {
        let i = self.n;
        self.n += 1;
        for (to, from) in self.queries[i].iter_mut().zip(query) {
            *to = from * by;
        }
        for (sum, group) in self.sums[i].iter_mut().zip(self.queries[i][..query.len()].chunks_exact(GROUP)) {
            *sum = group.iter().sum();
        }
        self.seen[i] = seen;
    }

    /// The most tokens that one of them sees.
    pub(crate) fn most_seen(&self) -> usize {
        self.seen[..self.n].iter().copied().max().unwrap_or(0)
    }
}

impl Met {
    /// Scores are above this one, which still is a number when one is taken off.
    pub(crate) const LEAST: f32 = -1e30;

    pub(crate) const NOTHING: Self =
        Self { out: [[0.0; WIDEST]; QUERIES], largest: [Self::LEAST; QUERIES], totals: [0.0; QUERIES] };

    /// Writes a query's result.
    pub(super) fn finish(&self, query: usize, out: &mut [f32]) {
        let by = 1.0 / self.totals[query];
        for (out, sum) in out.iter_mut().zip(&self.out[query]) {
            *out = sum * by;
        }
    }
}
