//! What is done to activations before the products, and to results behind.

use std::arch::x86_64::*;

use super::vector::*;
use crate::activations::{Form, MOST, RowMut, inverse};
use crate::product::Norm;
use crate::{BLOCK, GROUP};

crate::finish::define_finish!("avx2,fma,f16c");

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
        mean = _mm256_set1_ps(sum_of_all(sums) / x.len() as f32);
    }
    let mut squares = [_mm256_setzero_ps(); 8];
    for block in (0..x.len()).step_by(8 * LANES) {
        for (i, sum) in squares.iter_mut().enumerate() {
            let x = _mm256_sub_ps(at(x, block + i * LANES), mean);
            *sum = _mm256_fmadd_ps(x, x, *sum);
        }
    }
    let inverse = _mm256_set1_ps(1.0 / (sum_of_all(squares) / x.len() as f32 + epsilon).sqrt());
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
fn sum_of_all(all: [__m256; 8]) -> f32 {
    all.into_iter().reduce(|a, b| _mm256_add_ps(a, b)).map_or(0.0, |all| sum_of_eights(all))
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
        let largest = largest_lane(largest);
        let scale = largest / MOST + sum_of_eights(damage);
        let inverse = _mm256_set1_ps(inverse(largest, MOST));
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
