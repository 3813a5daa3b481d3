//! Queries, keys and values of heads, quantized in blocks of rows: a query or key by its own largest value, values by the largest of
//! their column.

use std::ops::Range;
use std::sync::Mutex;

use super::WIDEST;
use super::rows::{Part, Rows};
use crate::activations::inverse;
use crate::avx2;
use crate::pool::Pool;

/// Keys of a block, whose weighted values are added up as integers.
pub(crate) const KEYS: usize = 64;

/// The largest value of a quantized row.
pub(crate) const LARGEST: f32 = 4095.0;

/// Blocks of rows, and in each some heads one after the other.
#[derive(Debug, Default)]
pub(crate) struct Quantized {
    n: usize,
    heads: usize,
    width: usize,
    /// `[blocks, heads, KEYS, width]`.
    queries: Vec<i16>,
    keys: Vec<i16>,
    /// `[blocks, heads, KEYS]`.
    query_scales: Vec<f32>,
    key_scales: Vec<f32>,
    /// Pairs of keys side by side, `[blocks, heads, KEYS / 2, width]`.
    values: Vec<[i16; 2]>,
    /// `[blocks, heads, width]`.
    value_scales: Vec<f32>,
    /// Zero, or NaN where a key or value is not finite, `[blocks, heads]`.
    damage: Vec<f32>,
}

/// A block of rows, of all heads.
struct BlockMut<'a> {
    queries: &'a mut [i16],
    query_scales: &'a mut [f32],
    keys: &'a mut [i16],
    key_scales: &'a mut [f32],
    values: &'a mut [[i16; 2]],
    value_scales: &'a mut [f32],
    damage: &'a mut [f32],
}

/// Keys of a head that are met together, and their values.
pub(crate) struct Block<'a> {
    /// How many there are.
    pub n: usize,
    pub width: usize,
    /// `[KEYS, width]`.
    pub keys: &'a [i16],
    /// `[KEYS]`.
    pub key_scales: &'a [f32],
    /// `[KEYS / 2, width]`.
    pub values: &'a [[i16; 2]],
    /// `[width]`.
    pub value_scales: &'a [f32],
    /// Zero, or NaN where a key or value is not finite.
    pub damage: f32,
}

impl Quantized {
    /// What a head of `n` rows takes.
    pub(super) fn bytes(n: usize, width: usize) -> usize {
        n.next_multiple_of(KEYS) * width * 3 * size_of::<i16>()
    }

    /// Values of a head.
    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// Takes some heads of all rows.
    pub(super) fn fill(&mut self, rows: &Rows<'_>, heads: Range<usize>, pool: &Pool) {
        let (n, width, blocks) = (rows.n, rows.width, rows.n.div_ceil(KEYS));
        (self.n, self.heads, self.width) = (n, heads.len(), width);
        let scales = heads.len() * KEYS;
        let values = scales * width;
        self.queries.resize(blocks * values, 0);
        self.keys.resize(blocks * values, 0);
        self.query_scales.resize(blocks * scales, 0.0);
        self.key_scales.resize(blocks * scales, 0.0);
        self.values.resize(blocks * values / 2, [0; 2]);
        self.value_scales.resize(blocks * heads.len() * width, 0.0);
        self.damage.resize(blocks * heads.len(), 0.0);
        let queries = self.queries.chunks_exact_mut(values).zip(self.query_scales.chunks_exact_mut(scales));
        let keys = self.keys.chunks_exact_mut(values).zip(self.key_scales.chunks_exact_mut(scales));
        let value_scales = self.value_scales.chunks_exact_mut(heads.len() * width);
        let values = self.values.chunks_exact_mut(values / 2).zip(value_scales);
        let damage = self.damage.chunks_exact_mut(heads.len());
        let of = |((((queries, query_scales), (keys, key_scales)), (values, value_scales)), damage)| {
            Mutex::new(BlockMut { queries, query_scales, keys, key_scales, values, value_scales, damage })
        };
        let parts: Vec<_> = queries.zip(keys).zip(values).zip(damage).map(of).collect();
        pool.run(blocks, &|i| {
            let Ok(mut part) = parts[i].lock() else { return };
            // SAFETY: `attend` has asked whether the processor is supported.
            unsafe { part.fill(rows, heads.clone(), i * KEYS..((i + 1) * KEYS).min(n)) };
        });
    }

    /// A row of one of the heads, and its scale.
    pub(super) fn query(&self, head: usize, row: usize) -> (&[i16], f32) {
        let at = (row / KEYS * self.heads + head) * KEYS + row % KEYS;
        (&self.queries[at * self.width..][..self.width], self.query_scales[at])
    }

    /// The keys and values of one of the heads.
    pub(super) fn blocks(&self, head: usize) -> impl Iterator<Item = Block<'_>> {
        let &Self { n, width, heads, .. } = self;
        (0..n.div_ceil(KEYS)).map(move |block| {
            let i = block * heads + head;
            Block {
                n: KEYS.min(n - block * KEYS),
                width,
                keys: &self.keys[i * KEYS * width..][..KEYS * width],
                key_scales: &self.key_scales[i * KEYS..][..KEYS],
                values: &self.values[i * KEYS / 2 * width..][..KEYS / 2 * width],
                value_scales: &self.value_scales[i * width..][..width],
                damage: self.damage[i],
            }
        })
    }
}

impl BlockMut<'_> {
    /// In the order of rows, which is that of memory.
    #[target_feature(enable = "avx2,fma,f16c")]
    fn fill(&mut self, rows: &Rows<'_>, heads: Range<usize>, of: Range<usize>) {
        let width = rows.width;
        for (i, row) in of.clone().enumerate() {
            for (j, head) in heads.clone().enumerate() {
                let at = j * KEYS + i;
                let values = at * width..(at + 1) * width;
                let query = rows.head(row, Part::Query, head);
                self.query_scales[at] =
                    avx2::attention::quantize(&query[..width], &mut self.queries[values.clone()]);
                let key = rows.head(row, Part::Key, head);
                self.key_scales[at] = avx2::attention::quantize(&key[..width], &mut self.keys[values]);
            }
        }
        let pairs =
            self.values.chunks_exact_mut(KEYS / 2 * width).zip(self.value_scales.chunks_exact_mut(width));
        let keys = self.key_scales.chunks_exact(KEYS).zip(&mut *self.damage);
        for ((head, (pairs, scales)), (key_scales, damage)) in heads.zip(pairs).zip(keys) {
            fill_values(rows, head, of.clone(), pairs, scales);
            *damage = key_scales[..of.len()].iter().chain(&*scales).map(|scale| scale * 0.0).sum();
        }
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn fill_values(rows: &Rows<'_>, head: usize, of: Range<usize>, pairs: &mut [[i16; 2]], scales: &mut [f32]) {
    let width = rows.width;
    let (mut largest, mut damage) = ([0.0f32; WIDEST], [0.0f32; WIDEST]);
    for row in of.clone() {
        let values = rows.head(row, Part::Value, head);
        for ((largest, damage), value) in largest.iter_mut().zip(&mut damage).zip(values) {
            let size = value.abs();
            *largest = if size > *largest { size } else { *largest };
            *damage += value * 0.0;
        }
    }
    let by = largest.map(|largest| inverse(largest, LARGEST));
    for ((scale, largest), damage) in scales.iter_mut().zip(largest).zip(damage) {
        *scale = largest / LARGEST + damage;
    }
    for (pair, first) in pairs.chunks_exact_mut(width).zip(of.clone().step_by(2)) {
        let value = |row: usize| if row < of.end { rows.head(row, Part::Value, head) } else { [0.0; WIDEST] };
        avx2::attention::quantize_pairs([&value(first), &value(first + 1)], &by, pair);
    }
}
