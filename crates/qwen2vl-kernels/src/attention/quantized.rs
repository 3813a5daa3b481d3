//! Keys and values of heads, quantized in blocks: a key by its own largest value, values by the largest of their column.

use std::ops::Range;
use std::sync::Mutex;

use super::WIDEST;
use super::rows::{Part, Rows};
use crate::avx2;
use crate::pool::Pool;

/// Keys of a block, whose weighted values are added up as integers.
pub(crate) const KEYS: usize = 64;

/// The largest value of a quantized row.
pub(crate) const LARGEST: f32 = 4095.0;

/// Blocks of some heads, one head after the other.
#[derive(Debug, Default)]
pub(crate) struct Quantized {
    n: usize,
    width: usize,
    /// `[heads, blocks, KEYS, width]`.
    keys: Vec<i16>,
    /// `[heads, blocks, KEYS]`.
    key_scales: Vec<f32>,
    /// Pairs of keys side by side, `[heads, blocks, KEYS / 2, width]`.
    values: Vec<[i16; 2]>,
    /// `[heads, blocks, width]`.
    value_scales: Vec<f32>,
    /// Zero, or NaN where a value is not finite, `[heads, blocks]`.
    damage: Vec<f32>,
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
    pub damage: f32,
}

impl Quantized {
    /// What a head of `n` rows takes.
    pub(crate) fn bytes(n: usize, width: usize) -> usize {
        n.next_multiple_of(KEYS) * width * 2 * size_of::<i16>()
    }

    /// Takes keys and values of some heads.
    pub(super) fn fill(&mut self, rows: &Rows<'_>, heads: Range<usize>, pool: &Pool) {
        let (n, width, blocks) = (rows.n, rows.width, rows.n.div_ceil(KEYS));
        (self.n, self.width) = (n, width);
        let all = heads.len() * blocks;
        self.keys.resize(all * KEYS * width, 0);
        self.key_scales.resize(all * KEYS, 0.0);
        self.values.resize(all * KEYS / 2 * width, [0; 2]);
        self.value_scales.resize(all * width, 0.0);
        self.damage.resize(all, 0.0);
        let keys = self.keys.chunks_exact_mut(KEYS * width).zip(self.key_scales.chunks_exact_mut(KEYS));
        let values =
            self.values.chunks_exact_mut(KEYS / 2 * width).zip(self.value_scales.chunks_exact_mut(width));
        let parts: Vec<_> = keys.zip(values).zip(&mut self.damage).map(Mutex::new).collect();
        pool.run(all, &|i| {
            let Ok(mut part) = parts[i].lock() else { return };
            let (((keys, key_scales), (values, value_scales)), damage) = &mut *part;
            let (head, first) = (heads.start + i / blocks, i % blocks * KEYS);
            let of = first..(first + KEYS).min(n);
            // SAFETY: `attend` has asked whether the processor is supported.
            unsafe {
                fill_keys(rows, head, of.clone(), keys, key_scales);
                fill_values(rows, head, of.clone(), values, value_scales);
            }
            **damage = key_scales[..of.len()].iter().chain(&**value_scales).map(|scale| scale * 0.0).sum();
        });
    }

    /// The blocks of one of the heads.
    pub(super) fn blocks(&self, head: usize) -> impl Iterator<Item = Block<'_>> {
        let &Self { n, width, .. } = self;
        let blocks = n.div_ceil(KEYS);
        (0..blocks).map(move |block| {
            let i = head * blocks + block;
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

/// What a value is multiplied with to become one of `-LARGEST..=LARGEST`.
pub(crate) fn inverse(largest: f32) -> f32 {
    if largest > 0.0 && largest.is_finite() { LARGEST / largest } else { 0.0 }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn fill_keys(rows: &Rows<'_>, head: usize, of: Range<usize>, keys: &mut [i16], scales: &mut [f32]) {
    for ((row, key), scale) in of.zip(keys.chunks_exact_mut(rows.width)).zip(scales) {
        *scale = avx2::attention::quantize(&rows.head(row, Part::Key, head)[..rows.width], key);
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
    let inverse = largest.map(inverse);
    for ((scale, largest), damage) in scales.iter_mut().zip(largest).zip(damage) {
        *scale = largest / LARGEST + damage;
    }
    for (pair, first) in pairs.chunks_exact_mut(width).zip(of.clone().step_by(2)) {
        let value = |row: usize| if row < of.end { rows.head(row, Part::Value, head) } else { [0.0; WIDEST] };
        avx2::attention::quantize_pairs([&value(first), &value(first + 1)], &inverse, pair);
    }
}
