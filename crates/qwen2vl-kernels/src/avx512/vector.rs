//! Vectors of AVX-512 under the names of [`crate::avx2::vector`].

use std::arch::x86_64::*;
#[rustfmt::skip]
pub(crate) use std::arch::x86_64::{__m512 as Floats, __m512i as Integers, _mm512_add_ps as add, _mm512_add_epi32 as add_integers, _mm512_div_ps as div, _mm512_fmadd_ps as fmadd, _mm512_fnmadd_ps as fnmadd, _mm512_loadu_ps as load, _mm512_load_si512 as load_integers, _mm512_max_ps as max, _mm512_min_ps as min, _mm512_mul_ps as mul, _mm512_or_si512 as or, _mm512_slli_epi32 as shift_left, _mm512_set1_ps as splat, _mm512_set1_epi32 as splat_integer, _mm512_storeu_ps as store, _mm512_store_si512 as store_integers, _mm512_sub_ps as sub, _mm512_cvtepi32_ps as to_floats, _mm512_cvtps_epi32 as to_integers, _mm512_setzero_ps as zeros, _mm512_setzero_si512 as zero_integers};

/// Numbers of a vector.
pub(crate) const LANES: usize = 16;

/// Adds products of pairs of 16 bits.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(crate) fn add_dots(sum: Integers, a: Integers, b: Integers) -> Integers {
    _mm512_dpwssd_epi32(sum, a, b)
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(crate) fn rounded(x: Floats) -> Floats {
    _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(x)
}

/// `x * 2^n` of whole `n`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(crate) fn scaled(x: Floats, n: Floats) -> Floats {
    _mm512_scalef_ps(x, n)
}
