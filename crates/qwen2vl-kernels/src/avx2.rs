//! The kernels for AVX2. Outputs lie in the lanes of vectors; 4 or 2 inputs of each are a lane's 32 bits.

pub(crate) mod attention;
mod columns;
mod few;
pub(crate) mod paged;
mod values;
pub(crate) mod vector;

use std::arch::asm;
use std::arch::x86_64::*;

pub(crate) use columns::{columns_of_4_halves, columns_of_8_halves, columns_of_16_nibbles};
pub(crate) use few::few;
pub(crate) use values::{finish, normalize, quantize};

use crate::activations::At;
use crate::isa::TILE;
use crate::panel::{PANEL, RowsOf, Scales};
use crate::weights::Kind;
use crate::{BLOCK, GROUP};
use vector::{LANES, from_halves};

/// Steps of a tile that are written out.
const UNROLLED: usize = 8;

/// Whether this processor has all that is used here.
pub(crate) fn is_supported() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")
}

/// Unpacks blocks of a panel's weights as activations lie: those of 4 bits into bytes, `[values / 4, 16, 4]`, those of 8 into
/// words, `[values / 2, 16, 2]`.
///
/// # Safety
///
/// The processor is supported; rows have as many blocks, and `out` room for what they become.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) unsafe fn unpack<const KIND: u8>(rows: &RowsOf, blocks: usize, mut out: *mut u8) {
    let bytes = if KIND == Kind::U4 as u8 { BLOCK / 2 } else { BLOCK };
    let (mask, shift) = match KIND == Kind::U4 as u8 {
        true => (_mm256_set1_epi8(15), 4),
        false => (_mm256_set1_epi16(255), 8),
    };
    let shift = _mm_cvtsi32_si128(shift);
    let sign = _mm256_set1_epi8(-128);
    for block in 0..blocks {
        for part in (block * bytes..(block + 1) * bytes).step_by(16) {
            for half in 0..2 {
                // SAFETY: 16 bytes of each row, and 8 times 32 of the output.
                unsafe {
                    let at = |r: usize| _mm_loadu_si128(rows.at(half * LANES + r).add(part).cast());
                    let both = |r| _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(at(r)), at(r + 4));
                    let columns = transposed([both(0), both(1), both(2), both(3)]);
                    for (i, column) in columns.into_iter().enumerate() {
                        let column =
                            if KIND == Kind::I8 as u8 { _mm256_xor_si256(column, sign) } else { column };
                        let low = _mm256_and_si256(column, mask);
                        let high = _mm256_and_si256(_mm256_srl_epi16(column, shift), mask);
                        let to = out.add(i * 2 * 64 + half * 32);
                        _mm256_store_si256(to.cast(), low);
                        _mm256_store_si256(to.add(64).cast(), high);
                    }
                }
            }
            // SAFETY: as above.
            out = unsafe { out.add(8 * 64) };
        }
    }
}

/// Fetches what lies there into the caches.
#[inline(always)]
pub(crate) fn fetch_line(at: *const u8) {
    // SAFETY: nothing is read.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
}

/// Of each half a matrix of 4 by 4, transposed.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn transposed([a, b, c, d]: [__m256i; 4]) -> [__m256i; 4] {
    let (ab, cd) = (_mm256_unpacklo_epi32(a, b), _mm256_unpacklo_epi32(c, d));
    let (ab_high, cd_high) = (_mm256_unpackhi_epi32(a, b), _mm256_unpackhi_epi32(c, d));
    [
        _mm256_unpacklo_epi64(ab, cd),
        _mm256_unpackhi_epi64(ab, cd),
        _mm256_unpacklo_epi64(ab_high, cd_high),
        _mm256_unpackhi_epi64(ab_high, cd_high),
    ]
}

/// Adds to the results of a panel, `[T, 16]`, what spans of its unpacked weights give with `T` rows of activations.
///
/// # Safety
///
/// The processor is supported; all pointers are valid for the spans.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) unsafe fn tile<const T: usize, const KIND: u8, const SPAN: usize>(
    rows: At,
    weights: *const u8,
    scales: &Scales,
    spans: std::ops::Range<usize>,
    acc: *mut f32,
) {
    let bytes = if KIND == Kind::U4 as u8 { 1 } else { 2 };
    let ones = _mm256_set1_epi16(1);
    let groups = SPAN / GROUP;
    for (i, span) in spans.enumerate() {
        let mut part = [[_mm256_setzero_ps(); 2]; T];
        for group in i * groups..(i + 1) * groups {
            let mut sums = [[_mm256_setzero_si256(); 2]; T];
            // Eight products of 4 bits by 8, twice, fit 16 bits; those of 8 bits are added up in 32.
            for first in (0..GROUP * bytes / 4).step_by(UNROLLED) {
                for step in first..first + UNROLLED {
                    // SAFETY: the caller vouches for the pointers.
                    unsafe {
                        let at = weights.add(group * GROUP * PANEL * bytes + step * 64);
                        let w = [_mm256_load_si256(at.cast()), _mm256_load_si256(at.add(32).cast())];
                        let x: *const i32 = rows.values.cast();
                        for (t, sums) in sums.iter_mut().enumerate() {
                            let x = x.add((group * GROUP * bytes / 4 + step) * TILE + t);
                            let x = _mm256_set1_epi32(x.read_unaligned());
                            for (sum, w) in sums.iter_mut().zip(w) {
                                *sum = match (KIND == Kind::U4 as u8, step) {
                                    (true, 0) => _mm256_maddubs_epi16(w, x),
                                    (true, _) => _mm256_add_epi16(*sum, _mm256_maddubs_epi16(w, x)),
                                    (false, 0) => _mm256_madd_epi16(w, x),
                                    (false, _) => _mm256_add_epi32(*sum, _mm256_madd_epi16(w, x)),
                                };
                                keep(sum);
                            }
                        }
                    }
                }
            }
            for (t, (part, sums)) in part.iter_mut().zip(sums).enumerate() {
                // SAFETY: as above.
                let scale = _mm256_set1_ps(unsafe { *rows.scales.add(group * TILE + t) });
                for (part, sum) in part.iter_mut().zip(sums) {
                    let sum = if KIND == Kind::U4 as u8 { _mm256_madd_epi16(sum, ones) } else { sum };
                    *part = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), scale, *part);
                }
            }
        }
        // SAFETY: as above.
        unsafe {
            let (scales, zeros) = scales.at(span);
            let lanes = [0, LANES];
            let scales = lanes.map(|lane| from_halves(scales.as_ptr().add(lane)));
            let zeros = lanes.map(|lane| from_bytes(zeros.as_ptr().add(lane)));
            for (t, part) in part.iter().enumerate() {
                let sum = _mm256_set1_ps(*rows.sums.add(i * TILE + t));
                for (half, part) in part.iter().enumerate() {
                    let acc = acc.add(t * PANEL + half * LANES);
                    let part = _mm256_fnmadd_ps(zeros[half], sum, *part);
                    _mm256_storeu_ps(acc, _mm256_fmadd_ps(part, scales[half], _mm256_loadu_ps(acc)));
                }
            }
        }
    }
}

/// Keeps a sum in its register: else compilers take the steps apart and put weights aside on the stack.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn keep(sum: &mut __m256i) {
    // SAFETY: does nothing.
    unsafe { asm!("/* {0} */", inout(ymm_reg) * sum, options(nomem, nostack, preserves_flags)) };
}

/// Eight bytes as numbers.
///
/// # Safety
///
/// There are as many.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn from_bytes(values: *const u8) -> __m256 {
    // SAFETY: the caller vouches for it.
    _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(unsafe { _mm_loadl_epi64(values.cast()) }))
}
