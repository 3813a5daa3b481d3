//! Attention with VNNI: as with AVX2, to the bit.

use std::arch::x86_64::*;

use super::keep;
use crate::attention::{Block, Queries, VECTORS, WEIGHT, powers};

/// Numbers of a vector.
const LANES: usize = 16;

/// Lanes of all vectors.
const ALL: usize = VECTORS * LANES;

/// Keys, or columns of values, that meet the vectors together.
const TILE: usize = 8;

/// Lets queries meet a block of keys.
///
/// # Safety
///
/// The processor is supported; queries and block have all that they say.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
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
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn score(block: &Block<'_>, first: usize, queries: &mut Queries) {
    let (pairs, scores) = (queries.pairs.as_mut_ptr::<i32>(), queries.scores.as_mut_ptr::<f32>());
    let keys = block.keys[first * block.width..].as_ptr();
    let mut dots = [[_mm512_setzero_si512(); VECTORS]; TILE];
    // SAFETY: a block has room for whole tiles; the caller vouches for the rest.
    unsafe {
        for i in 0..block.width / 2 {
            let q = [0, LANES].map(|lane| _mm512_load_si512(pairs.add(i * ALL + lane).cast()));
            for (t, dots) in dots.iter_mut().enumerate() {
                let key = keys.add(t * block.width + i * 2).cast::<i32>().read_unaligned();
                for (dot, q) in dots.iter_mut().zip(q) {
                    *dot = _mm512_dpwssd_epi32(*dot, q, _mm512_set1_epi32(key));
                    keep(dot);
                }
            }
        }
        for (t, dots) in dots.into_iter().enumerate() {
            let scale = _mm512_set1_ps(block.key_scales[first + t]);
            for (v, dot) in dots.into_iter().enumerate() {
                let score = _mm512_mul_ps(_mm512_cvtepi32_ps(dot), scale);
                _mm512_store_ps(scores.add((first + t) * ALL + v * LANES), score);
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
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn weigh(n: usize, queries: &mut Queries) -> [[__m512; 2]; VECTORS] {
    let (scores, weights) = (queries.scores.as_mut_ptr::<f32>(), queries.weights.as_mut_ptr::<i32>());
    let mut scaled = [[_mm512_setzero_ps(); 2]; VECTORS];
    for (v, scaled) in scaled.iter_mut().enumerate() {
        // SAFETY: the caller vouches for it.
        unsafe {
            let at = |key: usize| _mm512_load_ps(scores.add(key * ALL + v * LANES));
            let each = |values: *const f32| _mm512_load_ps(values.add(v * LANES));
            let largest = (1..n).fold(at(0), |largest, key| _mm512_max_ps(at(key), largest));
            let unit = each(queries.units.0.as_ptr());
            let weight = |key: usize| {
                let power = power_of_two(_mm512_mul_ps(_mm512_sub_ps(at(key), largest), unit));
                _mm512_cvtps_epi32(_mm512_mul_ps(power, _mm512_set1_ps(WEIGHT)))
            };
            let mut total = _mm512_setzero_si512();
            for key in (0..n).step_by(2) {
                let first = weight(key);
                let second = if key + 1 < n { weight(key + 1) } else { _mm512_setzero_si512() };
                total = _mm512_add_epi32(total, _mm512_add_epi32(first, second));
                let pair = _mm512_or_si512(first, _mm512_slli_epi32::<16>(second));
                _mm512_store_si512(weights.add(key / 2 * ALL + v * LANES).cast(), pair);
            }
            let before = each(queries.largest.0.as_ptr());
            let all = _mm512_max_ps(largest, before);
            *scaled = [before, largest].map(|of| power_of_two(_mm512_mul_ps(_mm512_sub_ps(of, all), unit)));
            let totals = queries.totals.0.as_mut_ptr().add(v * LANES);
            let total = _mm512_mul_ps(_mm512_cvtepi32_ps(total), scaled[1]);
            _mm512_store_ps(totals, _mm512_fmadd_ps(_mm512_load_ps(totals), scaled[0], total));
            _mm512_store_ps(queries.largest.0.as_mut_ptr().add(v * LANES), all);
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
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn add(block: &Block<'_>, first: usize, queries: &mut Queries, scaled: [[__m512; 2]; VECTORS]) {
    let (weights, sums) = (queries.weights.as_mut_ptr::<i32>(), queries.sums.as_mut_ptr::<f32>());
    let values = block.values[first..].as_ptr().cast::<i32>();
    let mut dots = [[_mm512_setzero_si512(); VECTORS]; TILE];
    // SAFETY: the caller vouches for it; widths are whole tiles.
    unsafe {
        for i in 0..block.n.div_ceil(2) {
            let w = [0, LANES].map(|lane| _mm512_load_si512(weights.add(i * ALL + lane).cast()));
            for (t, dots) in dots.iter_mut().enumerate() {
                let value = values.add(i * block.width + t).read_unaligned();
                for (dot, w) in dots.iter_mut().zip(w) {
                    *dot = _mm512_dpwssd_epi32(*dot, w, _mm512_set1_epi32(value));
                    keep(dot);
                }
            }
        }
        for (t, dots) in dots.into_iter().enumerate() {
            let scale = _mm512_set1_ps(block.value_scales[first + t]);
            for (v, (dot, [before, of_block])) in dots.into_iter().zip(scaled).enumerate() {
                let to = sums.add((first + t) * ALL + v * LANES);
                let more = _mm512_mul_ps(_mm512_cvtepi32_ps(dot), _mm512_mul_ps(scale, of_block));
                _mm512_store_ps(to, _mm512_fmadd_ps(_mm512_load_ps(to), before, more));
            }
        }
    }
}

/// Two to the power of each, at most 0.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn power_of_two(x: __m512) -> __m512 {
    let x = _mm512_max_ps(x, _mm512_set1_ps(powers::LEAST));
    let n = _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(x);
    let rest = _mm512_sub_ps(x, n);
    let [p, others @ ..] = powers::POLYNOMIAL;
    let mut p = _mm512_set1_ps(p);
    for c in others {
        p = _mm512_fmadd_ps(p, rest, _mm512_set1_ps(c));
    }
    _mm512_scalef_ps(p, n)
}
