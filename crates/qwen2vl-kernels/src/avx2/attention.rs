//! Attention with AVX2: products of 16 bits, two at a time.

use std::arch::x86_64::*;

use super::{LANES, keep, sum};
use crate::attention::{Block, LARGEST, Queries, VECTORS, WEIGHT, inverse, powers};

/// Lanes of all vectors.
const ALL: usize = VECTORS * LANES;

/// Keys, or columns of values, that meet the vectors together.
const TILE: usize = 4;

/// Quantizes a row by its largest value; gives the scale, which is NaN where a value is not finite.
///
/// # Panics
///
/// If it is no multiple of 16 values, or there is less room.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn quantize(x: &[f32], to: &mut [i16]) -> f32 {
    assert!(x.len().is_multiple_of(2 * LANES) && to.len() >= x.len(), "lengths differ");
    let absolute = _mm256_castsi256_ps(_mm256_set1_epi32(i32::MAX));
    let (mut largest, mut damage) = (_mm256_setzero_ps(), _mm256_setzero_ps());
    // SAFETY: there are as many whole vectors.
    let at = |i: usize| unsafe { _mm256_loadu_ps(x.as_ptr().add(i)) };
    for i in (0..x.len()).step_by(LANES) {
        largest = _mm256_max_ps(_mm256_and_ps(at(i), absolute), largest);
        damage = _mm256_fmadd_ps(at(i), _mm256_setzero_ps(), damage);
    }
    let four = _mm_max_ps(_mm256_castps256_ps128(largest), _mm256_extractf128_ps::<1>(largest));
    let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    let largest = _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps::<1>(two, two)));
    let by = _mm256_set1_ps(inverse(largest));
    for i in (0..x.len()).step_by(2 * LANES) {
        let [a, b] = [at(i), at(i + LANES)].map(|x| _mm256_cvtps_epi32(_mm256_mul_ps(x, by)));
        let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(a, b));
        // SAFETY: there is room.
        unsafe { _mm256_storeu_si256(to.as_mut_ptr().add(i).cast(), words) };
    }
    largest / LARGEST + sum(damage)
}

/// Quantizes two rows, which lie in pairs behind it, each column by its own factor.
///
/// # Panics
///
/// If it is no multiple of 8 values, or rows or factors have fewer.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn quantize_pairs(rows: [&[f32]; 2], by: &[f32], to: &mut [[i16; 2]]) {
    let enough = by.len() >= to.len() && rows.iter().all(|row| row.len() >= to.len());
    assert!(to.len().is_multiple_of(LANES) && enough, "lengths differ");
    for i in (0..to.len()).step_by(LANES) {
        // SAFETY: there are as many whole vectors in each.
        unsafe {
            let by = _mm256_loadu_ps(by.as_ptr().add(i));
            let [a, b] =
                rows.map(|row| _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(row.as_ptr().add(i)), by)));
            let pairs = _mm256_blend_epi16::<0b1010_1010>(a, _mm256_slli_epi32::<16>(b));
            _mm256_storeu_si256(to.as_mut_ptr().add(i).cast(), pairs);
        }
    }
}

/// Lets queries meet a block of keys.
///
/// # Safety
///
/// The processor is supported; queries and block have all that they say.
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) unsafe fn meet(block: &Block<'_>, queries: &mut Queries) {
    // SAFETY: the caller vouches for it.
    unsafe {
        for first in (0..block.n).step_by(TILE) {
            score(block, first, queries);
        }
        let scaled = weigh(block.n, queries);
        for first in (0..block.width).step_by(TILE) {
            add(block, first, queries, scaled);
        }
    }
}

/// Scores of some keys.
///
/// # Safety
///
/// As above.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn score(block: &Block<'_>, first: usize, queries: &mut Queries) {
    let (pairs, scores) = (queries.pairs.as_mut_ptr::<i32>(), queries.scores.as_mut_ptr::<f32>());
    let keys = block.keys[first * block.width..].as_ptr();
    let mut dots = [[_mm256_setzero_si256(); VECTORS]; TILE];
    // SAFETY: a block has room for whole tiles; the caller vouches for the rest.
    unsafe {
        for i in 0..block.width / 2 {
            let q = [0, LANES].map(|lane| _mm256_load_si256(pairs.add(i * ALL + lane).cast()));
            for (t, dots) in dots.iter_mut().enumerate() {
                let key = keys.add(t * block.width + i * 2).cast::<i32>().read_unaligned();
                for (dot, q) in dots.iter_mut().zip(q) {
                    *dot = _mm256_add_epi32(*dot, _mm256_madd_epi16(q, _mm256_set1_epi32(key)));
                    keep(dot);
                }
            }
        }
        for (t, dots) in dots.into_iter().enumerate() {
            let scale = _mm256_set1_ps(block.key_scales[first + t]);
            for (v, dot) in dots.into_iter().enumerate() {
                let score = _mm256_mul_ps(_mm256_cvtepi32_ps(dot), scale);
                _mm256_store_ps(scores.add((first + t) * ALL + v * LANES), score);
            }
        }
    }
}

/// Turns scores of `n` keys into weights; gives what sums so far are multiplied with, and what those of the block are.
///
/// # Safety
///
/// As above.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn weigh(n: usize, queries: &mut Queries) -> [[__m256; 2]; VECTORS] {
    let (scores, weights) = (queries.scores.as_mut_ptr::<f32>(), queries.weights.as_mut_ptr::<i32>());
    let mut scaled = [[_mm256_setzero_ps(); 2]; VECTORS];
    for (v, scaled) in scaled.iter_mut().enumerate() {
        // SAFETY: the caller vouches for it.
        unsafe {
            let at = |key: usize| _mm256_load_ps(scores.add(key * ALL + v * LANES));
            let each = |values: *const f32| _mm256_load_ps(values.add(v * LANES));
            let largest = (1..n).fold(at(0), |largest, key| _mm256_max_ps(at(key), largest));
            let unit = each(queries.units.0.as_ptr());
            let weight = |key: usize| {
                let power = power_of_two(_mm256_mul_ps(_mm256_sub_ps(at(key), largest), unit));
                _mm256_cvtps_epi32(_mm256_mul_ps(power, _mm256_set1_ps(WEIGHT)))
            };
            let mut total = _mm256_setzero_si256();
            for key in (0..n).step_by(2) {
                let first = weight(key);
                let second = if key + 1 < n { weight(key + 1) } else { _mm256_setzero_si256() };
                total = _mm256_add_epi32(total, _mm256_add_epi32(first, second));
                let pair = _mm256_or_si256(first, _mm256_slli_epi32::<16>(second));
                _mm256_store_si256(weights.add(key / 2 * ALL + v * LANES).cast(), pair);
            }
            let before = each(queries.largest.0.as_ptr());
            let all = _mm256_max_ps(largest, before);
            *scaled = [before, largest].map(|of| power_of_two(_mm256_mul_ps(_mm256_sub_ps(of, all), unit)));
            let totals = queries.totals.0.as_mut_ptr().add(v * LANES);
            let total = _mm256_mul_ps(_mm256_cvtepi32_ps(total), scaled[1]);
            _mm256_store_ps(totals, _mm256_fmadd_ps(_mm256_load_ps(totals), scaled[0], total));
            _mm256_store_ps(queries.largest.0.as_mut_ptr().add(v * LANES), all);
        }
    }
    scaled
}

/// Adds weighted values of some columns.
///
/// # Safety
///
/// As above.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn add(block: &Block<'_>, first: usize, queries: &mut Queries, scaled: [[__m256; 2]; VECTORS]) {
    let (weights, sums) = (queries.weights.as_mut_ptr::<i32>(), queries.sums.as_mut_ptr::<f32>());
    let values = block.values[first..].as_ptr().cast::<i32>();
    let mut dots = [[_mm256_setzero_si256(); VECTORS]; TILE];
    // SAFETY: the caller vouches for it; widths are whole tiles.
    unsafe {
        for i in 0..block.n.div_ceil(2) {
            let w = [0, LANES].map(|lane| _mm256_load_si256(weights.add(i * ALL + lane).cast()));
            for (t, dots) in dots.iter_mut().enumerate() {
                let value = values.add(i * block.width + t).read_unaligned();
                for (dot, w) in dots.iter_mut().zip(w) {
                    *dot = _mm256_add_epi32(*dot, _mm256_madd_epi16(w, _mm256_set1_epi32(value)));
                    keep(dot);
                }
            }
        }
        for (t, dots) in dots.into_iter().enumerate() {
            let scale = _mm256_set1_ps(block.value_scales[first + t]);
            for (v, (dot, [before, of_block])) in dots.into_iter().zip(scaled).enumerate() {
                let to = sums.add((first + t) * ALL + v * LANES);
                let more = _mm256_mul_ps(_mm256_cvtepi32_ps(dot), _mm256_mul_ps(scale, of_block));
                _mm256_store_ps(to, _mm256_fmadd_ps(_mm256_load_ps(to), before, more));
            }
        }
    }
}

/// Two to the power of each, at most 0.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn power_of_two(x: __m256) -> __m256 {
    let x = _mm256_max_ps(x, _mm256_set1_ps(powers::LEAST));
    let n = _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(x);
    let rest = _mm256_sub_ps(x, n);
    let [p, others @ ..] = powers::POLYNOMIAL;
    let mut p = _mm256_set1_ps(p);
    for c in others {
        p = _mm256_fmadd_ps(p, rest, _mm256_set1_ps(c));
    }
    let power = _mm256_slli_epi32::<23>(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)));
    _mm256_mul_ps(p, _mm256_castsi256_ps(power))
}
