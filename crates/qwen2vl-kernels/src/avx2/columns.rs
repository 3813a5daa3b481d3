//! Scales and zero points of a panel, turned.

use std::arch::x86_64::*;

use crate::panel::PANEL;

/// The columns of 16 rows of 8 values of 2 bytes, `stride` bytes from one to the next.
///
/// # Safety
///
/// The rows can be read.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) unsafe fn columns_of_halves(rows: *const u8, stride: usize) -> [[u16; PANEL]; 8] {
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
    let mut columns = [[0; PANEL]; 8];
    for (i, (a, b)) in fours(0).into_iter().zip(fours(4)).enumerate() {
        // SAFETY: 16 values of 2 bytes are written.
        unsafe {
            _mm256_storeu_si256(columns[2 * i].as_mut_ptr().cast(), _mm256_unpacklo_epi64(a, b));
            _mm256_storeu_si256(columns[2 * i + 1].as_mut_ptr().cast(), _mm256_unpackhi_epi64(a, b));
        }
    }
    columns
}

/// The columns of 16 rows of 8 values of 4 bits, of which the first one is value `first`, `stride` values from one to the next.
///
/// # Safety
///
/// From each row on 8 bytes can be read.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) unsafe fn columns_of_4_bits(values: *const u8, first: usize, stride: usize) -> [[u8; PANEL]; 8] {
    let order = _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    let row = |i: usize| {
        let at = first + i * stride;
        // SAFETY: the caller vouches for it.
        let eight = unsafe { values.add(at / 2).cast::<u64>().read_unaligned() };
        (eight >> (at % 2 * 4)) as i32
    };
    let four = |i: usize| {
        let [a, b, c, d] = [0, 1, 2, 3].map(|at| row(i + at));
        _mm_shuffle_epi8(_mm_setr_epi32(a, b, c, d), order)
    };
    let (a, b, c, d) = (four(0), four(4), four(8), four(12));
    let (ab, cd) = (_mm_unpacklo_epi32(a, b), _mm_unpacklo_epi32(c, d));
    let (ab_high, cd_high) = (_mm_unpackhi_epi32(a, b), _mm_unpackhi_epi32(c, d));
    let pairs = [
        _mm_unpacklo_epi64(ab, cd),
        _mm_unpackhi_epi64(ab, cd),
        _mm_unpacklo_epi64(ab_high, cd_high),
        _mm_unpackhi_epi64(ab_high, cd_high),
    ];
    let low = _mm_set1_epi8(15);
    let mut columns = [[0; PANEL]; 8];
    for (i, pair) in pairs.into_iter().enumerate() {
        // SAFETY: 16 bytes are written.
        unsafe {
            _mm_storeu_si128(columns[2 * i].as_mut_ptr().cast(), _mm_and_si128(pair, low));
            let high = _mm_and_si128(_mm_srli_epi16::<4>(pair), low);
            _mm_storeu_si128(columns[2 * i + 1].as_mut_ptr().cast(), high);
        }
    }
    columns
}
