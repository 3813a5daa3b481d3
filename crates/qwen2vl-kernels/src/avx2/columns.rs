//! Scales and zero points of a panel, turned.

use std::arch::x86_64::*;

use crate::panel::PANEL;

/// The columns of 16 rows of 8 values of 2 bytes, `stride` bytes from one to the next.
///
/// # Safety
///
/// The rows can be read, and 8 columns written.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) unsafe fn columns_of_8_halves(rows: *const u8, stride: usize, out: *mut [u16; PANEL]) {
    // SAFETY: the caller vouches for it.
    let one = |i: usize| unsafe { _mm_loadu_si128(rows.add(i * stride).cast()) };
    let two = |i: usize| _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(one(i)), one(i + 8));
    let pairs = |i: usize| {
        let (a, b) = (two(i), two(i + 1));
        (_mm256_unpacklo_epi16(a, b), _mm256_unpackhi_epi16(a, b))
    };
    let fours = |i: usize| {
        let ((a, a_high), (b, b_high)) = (pairs(i), pairs(i + 2));
        [
            _mm256_unpacklo_epi32(a, b),
            _mm256_unpackhi_epi32(a, b),
            _mm256_unpacklo_epi32(a_high, b_high),
            _mm256_unpackhi_epi32(a_high, b_high),
        ]
    };
    // SAFETY: as above.
    unsafe { write_columns(fours(0), fours(4), out) };
}

/// The same of 4 values.
///
/// # Safety
///
/// The rows can be read, and 4 columns written.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) unsafe fn columns_of_4_halves(rows: *const u8, stride: usize, out: *mut [u16; PANEL]) {
    // SAFETY: the caller vouches for it.
    let one = |i: usize| unsafe { _mm_loadl_epi64(rows.add(i * stride).cast()) };
    let two = |i: usize| _mm_unpacklo_epi16(one(i), one(i + 1));
    let pairs = |i: usize| _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(two(i)), two(i + 8));
    let fours = |i: usize| {
        let (a, b) = (pairs(i), pairs(i + 2));
        [_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b)]
    };
    // SAFETY: as above.
    unsafe { write_columns(fours(0), fours(4), out) };
}

/// Writes columns, two of each pair: of `a` come four rows in each half, of `b` the next four.
///
/// # Safety
///
/// `2 * N` columns can be written.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn write_columns<const N: usize>(a: [__m256i; N], b: [__m256i; N], out: *mut [u16; PANEL]) {
    for (i, (a, b)) in a.into_iter().zip(b).enumerate() {
        // SAFETY: the caller vouches for it.
        unsafe {
            _mm256_storeu_si256(out.add(2 * i).cast(), _mm256_unpacklo_epi64(a, b));
            _mm256_storeu_si256(out.add(2 * i + 1).cast(), _mm256_unpackhi_epi64(a, b));
        }
    }
}

/// The columns of 16 rows of 16 values of 4 bits, `stride` bytes from one to the next.
///
/// # Safety
///
/// The rows can be read, and 16 columns written.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) unsafe fn columns_of_16_nibbles(rows: *const u8, stride: usize, out: *mut [u8; PANEL]) {
    // SAFETY: the caller vouches for it.
    let one = |i: usize| unsafe { _mm_loadl_epi64(rows.add(i * stride).cast()) };
    let two = |i: usize| _mm_unpacklo_epi8(one(i), one(i + 1));
    // Of four rows the first and the last four bytes, with four rows more in the other half.
    let fours = |i: usize| {
        let half = |i: usize| {
            let (a, b) = (two(i), two(i + 2));
            (_mm_unpacklo_epi16(a, b), _mm_unpackhi_epi16(a, b))
        };
        let ((a, a_high), (b, b_high)) = (half(i), half(i + 8));
        let join = |a, b| _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(a), b);
        [join(a, b), join(a_high, b_high)]
    };
    let low = _mm256_set1_epi8(15);
    for (i, (a, b)) in fours(0).into_iter().zip(fours(4)).enumerate() {
        for (j, eights) in [_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b)].into_iter().enumerate()
        {
            // Two bytes of eight rows in each half become two columns of bytes, and these two of values each.
            let bytes = _mm256_permute4x64_epi64::<0b11_01_10_00>(eights);
            let (first, second) =
                (_mm256_and_si256(bytes, low), _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), low));
            // SAFETY: as above.
            unsafe {
                let out: *mut __m128i = out.add(8 * i + 4 * j).cast();
                _mm_storeu_si128(out, _mm256_castsi256_si128(first));
                _mm_storeu_si128(out.add(1), _mm256_castsi256_si128(second));
                _mm_storeu_si128(out.add(2), _mm256_extracti128_si256::<1>(first));
                _mm_storeu_si128(out.add(3), _mm256_extracti128_si256::<1>(second));
            }
        }
    }
}
