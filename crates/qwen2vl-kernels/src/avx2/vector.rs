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
