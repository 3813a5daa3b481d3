//! What is done to activations before the products, and to results behind.

use std::arch::x86_64::*;

use super::LANES;
use crate::activations::{Form, RowMut, inverse};
use crate::panel::PANEL;
use crate::product::{Behind, Norm};
use crate::{BLOCK, GROUP};

/// Writes rows of a panel's results, `n` values apart: each value plus its bias, then `y * sigmoid(beta * y)`, then times its factor,
/// then plus another; what is `None` is left out.
///
/// # Safety
///
/// There are as many rows of factors, of what is added, and to write to.
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) unsafe fn finish(
    behind: &Behind,
    acc: &[[f32; PANEL]],
    factors: Option<&[[f32; PANEL]]>,
    plus: Option<*const f32>,
    out: *mut f32,
    n: usize,
) {
    for (row, y) in acc.iter().enumerate() {
        for i in (0..PANEL).step_by(LANES) {
            // SAFETY: a panel has two vectors; the caller vouches for the rest.
            unsafe {
                let at = |values: &[f32; PANEL]| _mm256_loadu_ps(values.as_ptr().add(i));
                let mut v = at(y);
                if let Some(bias) = &behind.bias {
                    v = _mm256_add_ps(v, at(bias));
                }
                if let Some(beta) = behind.beta {
                    let e = exp(_mm256_mul_ps(v, _mm256_set1_ps(-beta)));
                    v = _mm256_div_ps(v, _mm256_add_ps(e, _mm256_set1_ps(1.0)));
                }
                if let Some(factors) = factors {
                    v = _mm256_mul_ps(v, at(&factors[row]));
                }
                if let Some(plus) = plus {
                    v = _mm256_add_ps(v, _mm256_loadu_ps(plus.add(row * n + i)));
                }
                _mm256_storeu_ps(out.add(row * n + i), v);
            }
        }
    }
}

/// The sum of a vector's lanes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn sum(v: __m256) -> f32 {
    let v = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
    let v = _mm_add_ps(v, _mm_movehl_ps(v, v));
    _mm_cvtss_f32(_mm_add_ss(v, _mm_shuffle_ps::<1>(v, v)))
}

/// As [`Norm`] says.
///
/// # Panics
///
/// If lengths differ, or are no multiple of a block.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn normalize(x: &[f32], norm: Norm<'_>, out: &mut [f32]) {
    let Norm { centered, epsilon, weight, bias } = norm;
    assert!(out.len() == x.len() && norm.fits(x.len()) && x.len().is_multiple_of(BLOCK), "lengths differ");
    // SAFETY: there are as many whole vectors in each.
    let at = |values: &[f32], i: usize| unsafe { _mm256_loadu_ps(values.as_ptr().add(i)) };
    let mut mean = _mm256_setzero_ps();
    if centered {
        let mut sums = [_mm256_setzero_ps(); 8];
        for block in (0..x.len()).step_by(8 * LANES) {
            for (i, sum) in sums.iter_mut().enumerate() {
                *sum = _mm256_add_ps(at(x, block + i * LANES), *sum);
            }
        }
        mean = _mm256_set1_ps(sum_of(sums) / x.len() as f32);
    }
    let mut squares = [_mm256_setzero_ps(); 8];
    for block in (0..x.len()).step_by(8 * LANES) {
        for (i, sum) in squares.iter_mut().enumerate() {
            let x = _mm256_sub_ps(at(x, block + i * LANES), mean);
            *sum = _mm256_fmadd_ps(x, x, *sum);
        }
    }
    let inverse = _mm256_set1_ps(1.0 / (sum_of(squares) / x.len() as f32 + epsilon).sqrt());
    for i in (0..x.len()).step_by(LANES) {
        let y = _mm256_mul_ps(_mm256_sub_ps(at(x, i), mean), inverse);
        let y = weight.map_or(y, |weight| _mm256_mul_ps(y, at(weight, i)));
        let y = bias.map_or(y, |bias| _mm256_add_ps(y, at(bias, i)));
        // SAFETY: as above.
        unsafe { _mm256_storeu_ps(out.as_mut_ptr().add(i), y) };
    }
}

/// The sum of several vectors' lanes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn sum_of(all: [__m256; 8]) -> f32 {
    all.into_iter().reduce(|a, b| _mm256_add_ps(a, b)).map_or(0.0, |all| sum(all))
}

/// `exp(x)` in the way of Cephes' expf: the reduction, and its polynomial but for the last terms, the highest power first.
pub(crate) mod exponential {
    /// What lies beyond would not give a normal number; as an addend of 1 it is 0 or infinite enough.
    pub(crate) const RANGE: [f32; 2] = [-87.0, 88.0];
    /// The natural logarithm of 2, in two parts.
    pub(crate) const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
    pub(crate) const POLYNOMIAL: [f32; 6] =
        [1.987_569_1e-4, 1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5];
}

/// e to the power of each, within 2 units of the last place.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn exp(x: __m256) -> __m256 {
    let [least, most] = exponential::RANGE.map(|x| _mm256_set1_ps(x));
    let x = _mm256_min_ps(most, _mm256_max_ps(least, x));
    let n = _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(_mm256_mul_ps(
        x,
        _mm256_set1_ps(std::f32::consts::LOG2_E),
    ));
    let [coarse, fine] = exponential::LN_2.map(|x| _mm256_set1_ps(x));
    let x = _mm256_fnmadd_ps(n, fine, _mm256_fnmadd_ps(n, coarse, x));
    let [p, others @ ..] = exponential::POLYNOMIAL;
    let mut p = _mm256_set1_ps(p);
    for c in others {
        p = _mm256_fmadd_ps(p, x, _mm256_set1_ps(c));
    }
    let p = _mm256_fmadd_ps(_mm256_mul_ps(p, x), x, _mm256_add_ps(x, _mm256_set1_ps(1.0)));
    let power = _mm256_slli_epi32::<23>(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)));
    _mm256_mul_ps(p, _mm256_castsi256_ps(power))
}

/// As [`crate::activations::quantize`], to the bit.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn quantize(form: Form, x: &[f32], out: &mut RowMut<'_, '_>) {
    #[rustfmt::skip]
    let order = match form {
        Form::Halves => _mm256_setr_epi8(
            0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15,
            0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15,
        ),
        Form::Bytes | Form::Words => _mm256_setr_epi8(
            0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15,
            0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15,
        ),
    };
    let absolute = _mm256_castsi256_ps(_mm256_set1_epi32(i32::MAX));
    for (group, x) in x.chunks_exact(GROUP).enumerate() {
        // SAFETY: a group is four vectors.
        let v: [__m256; 4] = std::array::from_fn(|i| unsafe { _mm256_loadu_ps(x.as_ptr().add(i * LANES)) });
        let (mut largest, mut damage) = (_mm256_setzero_ps(), _mm256_setzero_ps());
        for v in v {
            largest = _mm256_max_ps(_mm256_and_ps(v, absolute), largest);
            damage = _mm256_fmadd_ps(v, _mm256_setzero_ps(), damage);
        }
        let four = _mm_max_ps(_mm256_castps256_ps128(largest), _mm256_extractf128_ps::<1>(largest));
        let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
        let largest = _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps::<1>(two, two)));
        let scale = largest / 127.0 + sum(damage);
        let inverse = _mm256_set1_ps(inverse(largest));
        let [a, b, c, d] = v.map(|v| _mm256_cvtps_epi32(_mm256_mul_ps(v, inverse)));
        // Packed within halves, whose parts are then brought into their order.
        let packed = _mm256_packs_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
        let packed = _mm256_permutevar8x32_epi32(packed, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
        let values = _mm256_shuffle_epi8(packed, order);
        let pairs =
            _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_set1_epi8(1), packed), _mm256_set1_epi16(1));
        let pairs = _mm_add_epi32(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256::<1>(pairs));
        let pairs = _mm_add_epi32(pairs, _mm_unpackhi_epi64(pairs, pairs));
        let sum = _mm_cvtsi128_si32(_mm_add_epi32(pairs, _mm_shuffle_epi32::<1>(pairs)));
        let mut all = [0; 2 * GROUP];
        let to = all.as_mut_ptr();
        // SAFETY: 32 or 64 bytes are written to as many.
        unsafe {
            match form {
                Form::Halves | Form::Bytes => _mm256_storeu_si256(to.cast(), values),
                Form::Words => {
                    let order = _mm256_setr_epi8(
                        0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15, 0, 1, 4, 5, 2, 3, 6, 7, 8, 9,
                        12, 13, 10, 11, 14, 15,
                    );
                    let halves = [_mm256_castsi256_si128(values), _mm256_extracti128_si256::<1>(values)];
                    for (i, half) in halves.into_iter().enumerate() {
                        let words = _mm256_shuffle_epi8(_mm256_cvtepi8_epi16(half), order);
                        _mm256_storeu_si256(to.add(i * 32).cast(), words);
                    }
                }
            }
        }
        out.set(group, &all[..GROUP * form.bytes()], scale, sum as f32 * scale);
    }
    out.add_up();
}
