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

/// Numbers of half precision.
///
/// # Safety
///
/// There are as many.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(crate) unsafe fn from_halves(values: *const u16) -> Floats {
    // SAFETY: the caller vouches for it.
    _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(values.cast()) })
}

/// Signed bytes as numbers.
///
/// # Safety
///
/// There are as many.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(crate) unsafe fn from_signed_bytes(values: *const u8) -> Floats {
    // SAFETY: the caller vouches for it.
    _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(unsafe { _mm_loadu_si128(values.cast()) }))
}

/// Numbers of 4 bits from the `i`-th on, a multiple of 16: of each 16 the first eight are lower halves of bytes.
///
/// # Safety
///
/// There are as many.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(crate) unsafe fn from_nibbles(values: *const u8, i: usize) -> Floats {
    // SAFETY: the caller vouches for it.
    let bytes = unsafe { _mm_loadl_epi64(values.add(i / 2).cast()) };
    let bytes = _mm_unpacklo_epi64(bytes, _mm_srli_epi16::<4>(bytes));
    _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_and_si128(bytes, _mm_set1_epi8(15))))
}

/// The largest of a vector's lanes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(crate) fn largest_lane(v: Floats) -> f32 {
    _mm512_reduce_max_ps(v)
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(crate) fn first_lane(v: Floats) -> f32 {
    _mm512_cvtss_f32(v)
}

/// Adds numbers to eight sums in an order that does not depend on the length of vectors.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(crate) fn add_eights(sums: __m256, v: Floats) -> __m256 {
    let upper =
        _mm512_castpd_ps(_mm512_shuffle_f64x2::<0b11_10_11_10>(_mm512_castps_pd(v), _mm512_castps_pd(v)));
    _mm256_add_ps(_mm256_add_ps(sums, _mm512_castps512_ps256(v)), _mm512_castps512_ps256(upper))
}
