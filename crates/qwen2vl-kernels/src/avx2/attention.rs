//! Attention with AVX2: products of 16 bits, two at a time.

use std::arch::x86_64::*;

use super::keep;
use super::vector::*;
use crate::activations::inverse;
use crate::attention::LARGEST;

/// Keys, or columns of values, that meet the vectors together.
const TILE: usize = 4;

crate::attention::define_meet!("avx2,fma,f16c");

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
    let largest = largest_lane(largest);
    let by = _mm256_set1_ps(inverse(largest, LARGEST));
    for i in (0..x.len()).step_by(2 * LANES) {
        let [a, b] = [at(i), at(i + LANES)].map(|x| _mm256_cvtps_epi32(_mm256_mul_ps(x, by)));
        let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(a, b));
        // SAFETY: there is room.
        unsafe { _mm256_storeu_si256(to.as_mut_ptr().add(i).cast(), words) };
    }
    largest / LARGEST + sum_of_eights(damage)
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
