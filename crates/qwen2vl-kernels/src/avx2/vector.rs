//! Vectors of AVX2 under names that other instruction sets have for theirs.

use std::arch::x86_64::*;
#[rustfmt::skip]
pub(crate) use std::arch::x86_64::{__m256 as Floats, __m256i as Integers, _mm256_add_ps as add, _mm256_add_epi32 as add_integers, _mm256_div_ps as div, _mm256_fmadd_ps as fmadd, _mm256_fnmadd_ps as fnmadd, _mm256_loadu_ps as load, _mm256_load_si256 as load_integers, _mm256_max_ps as max, _mm256_min_ps as min, _mm256_mul_ps as mul, _mm256_or_si256 as or, _mm256_slli_epi32 as shift_left, _mm256_set1_ps as splat, _mm256_set1_epi32 as splat_integer, _mm256_storeu_ps as store, _mm256_store_si256 as store_integers, _mm256_sub_ps as sub, _mm256_cvtepi32_ps as to_floats, _mm256_cvtps_epi32 as to_integers, _mm256_setzero_ps as zeros, _mm256_setzero_si256 as zero_integers};

/// Numbers of a vector.
pub(crate) const LANES: usize = 8;

/// Adds products of pairs of 16 bits.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn add_dots(sum: Integers, a: Integers, b: Integers) -> Integers {
    _mm256_add_epi32(sum, _mm256_madd_epi16(a, b))
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn rounded(x: Floats) -> Floats {
    _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(x)
}

/// `x * 2^n` of whole `n` that give normal numbers.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn scaled(x: Floats, n: Floats) -> Floats {
    let power = _mm256_slli_epi32::<23>(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)));
    _mm256_mul_ps(x, _mm256_castsi256_ps(power))
}

/// Numbers of half precision.
///
/// # Safety
///
/// There are as many.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) unsafe fn from_halves(values: *const u16) -> Floats {
    // SAFETY: the caller vouches for it.
    _mm256_cvtph_ps(unsafe { _mm_loadu_si128(values.cast()) })
}

/// Signed bytes as numbers.
///
/// # Safety
///
/// There are as many.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) unsafe fn from_signed_bytes(values: *const u8) -> Floats {
    // SAFETY: the caller vouches for it.
    _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(unsafe { _mm_loadl_epi64(values.cast()) }))
}

/// Numbers of 4 bits from the `i`-th on, a multiple of 8: of each 16 the first eight are lower halves of bytes.
///
/// # Safety
///
/// There are as many.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) unsafe fn from_nibbles(values: *const u8, i: usize) -> Floats {
    // SAFETY: the caller vouches for it.
    let bytes = unsafe { _mm_loadl_epi64(values.add(i / 16 * 8).cast()) };
    let bytes = _mm_srl_epi16(bytes, _mm_cvtsi32_si128((i % 16 / 2) as i32));
    _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_and_si128(bytes, _mm_set1_epi8(15))))
}

/// The largest of a vector's lanes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn largest_lane(v: Floats) -> f32 {
    let v = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
    let v = _mm_max_ps(v, _mm_movehl_ps(v, v));
    _mm_cvtss_f32(_mm_max_ss(v, _mm_shuffle_ps::<1>(v, v)))
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn first_lane(v: Floats) -> f32 {
    _mm256_cvtss_f32(v)
}

/// Adds numbers to eight sums in an order that does not depend on the length of vectors.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn add_eights(sums: __m256, v: Floats) -> __m256 {
    _mm256_add_ps(sums, v)
}

/// The sum of eight numbers.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn sum_of_eights(v: __m256) -> f32 {
    let v = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
    let v = _mm_add_ps(v, _mm_movehl_ps(v, v));
    _mm_cvtss_f32(_mm_add_ss(v, _mm_shuffle_ps::<1>(v, v)))
}
