//! One or two rows of activations: bound by memory, so weights are multiplied as they are packed.

use std::arch::x86_64::*;

use super::{LANES, from_bytes, from_halves};
use crate::activations::{Activations, At};
use crate::panel::{PANEL, Packed, RowsOf};
use crate::weights::Kind;
use crate::{BLOCK, GROUP};

/// Results of a panel with few rows of activations, `[T, 16]`, straight from packed weights: inputs lie in the lanes, which
/// are added up for eight rows of weights at once.
///
/// # Safety
///
/// The processor is supported; weights, scales and activations have so many blocks.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) unsafe fn few<const T: usize, const KIND: u8, const SPAN: usize>(
    of: &Activations,
    panel: &Packed<'_>,
    acc: *mut f32,
) {
    let &Packed { rows: ref weights, scales, blocks, ahead } = panel;
    let rows: &[At; T] = &std::array::from_fn(|row| of.at(row, 0, SPAN));
    const GROUPS: usize = BLOCK / GROUP;
    let four = KIND == Kind::U4 as u8;
    let bytes = if four { BLOCK / 2 } else { BLOCK };
    for half in [0, LANES] {
        let mut all = [_mm256_setzero_ps(); T];
        let mut part = [_mm256_setzero_ps(); T];
        for block in 0..blocks {
            weights.fetch(half..half + LANES, block * bytes + ahead, bytes);
            let mut sums = [[_mm256_setzero_si256(); GROUPS]; T];
            for i in 0..bytes / 32 {
                let at = block * bytes + i * 32;
                for (sums, row) in sums.iter_mut().zip(rows) {
                    // SAFETY: the caller vouches for the pointers.
                    unsafe {
                        // 64 values of a byte, or 32 of two.
                        let x = even_and_odd(row.values.add(at / 32 * 64));
                        match four {
                            true => sums[2 * i..][..2].copy_from_slice(&dots_of_4_bits(weights, half, at, x)),
                            false => sums[i] = dots_of_8_bits::<KIND>(weights, half, at, x),
                        }
                    }
                }
            }
            for group in 0..GROUPS {
                let at = block * GROUPS + group;
                // SAFETY: as above.
                unsafe {
                    for ((part, sums), row) in part.iter_mut().zip(&sums).zip(rows) {
                        let scale = _mm256_set1_ps(*row.scales.add(at));
                        *part = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums[group]), scale, *part);
                    }
                    let span = (at + 1) * GROUP / SPAN;
                    if (at + 1) * GROUP == span * SPAN {
                        let (scales, zeros) = scales.at(span - 1);
                        let scale = from_halves(scales.as_ptr().add(half));
                        let zero = from_bytes(zeros.as_ptr().add(half));
                        for ((all, part), row) in all.iter_mut().zip(&mut part).zip(rows) {
                            let sum = _mm256_set1_ps(*row.sums.add(span - 1));
                            *all = _mm256_fmadd_ps(_mm256_fnmadd_ps(zero, sum, *part), scale, *all);
                            *part = _mm256_setzero_ps();
                        }
                    }
                }
            }
        }
        for (t, all) in all.into_iter().enumerate() {
            // SAFETY: as above.
            unsafe { _mm256_storeu_ps(acc.add(t * PANEL + half), all) };
        }
    }
}

/// The even and the odd ones of 16 lanes.
///
/// # Safety
///
/// There are 64 bytes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn even_and_odd(values: *const u8) -> (__m256i, __m256i) {
    // SAFETY: the caller vouches for it.
    let (a, b) = unsafe { (_mm256_loadu_ps(values.cast()), _mm256_loadu_ps(values.add(32).cast())) };
    let joined = |lanes| _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_castps_si256(lanes));
    (joined(_mm256_shuffle_ps::<0b10_00_10_00>(a, b)), joined(_mm256_shuffle_ps::<0b11_01_11_01>(a, b)))
}

/// Sums of two groups of 4 bits, of eight rows from `first` on.
///
/// # Safety
///
/// The rows have 32 bytes there.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn dots_of_4_bits(
    rows: &RowsOf,
    first: usize,
    at: usize,
    (even, odd): (__m256i, __m256i),
) -> [__m256i; 2] {
    let (low, ones) = (_mm256_set1_epi8(15), _mm256_set1_epi16(1));
    let dot = |r: usize| {
        // SAFETY: the caller vouches for it.
        let both = unsafe { _mm256_loadu_si256(rows.at(first + r).add(at).cast()) };
        let lower = _mm256_maddubs_epi16(_mm256_and_si256(both, low), even);
        let upper = _mm256_maddubs_epi16(_mm256_and_si256(_mm256_srli_epi16::<4>(both), low), odd);
        _mm256_madd_epi16(_mm256_add_epi16(lower, upper), ones)
    };
    // Sums of up to eight products fit 16 bits, in which two rows come together.
    let two = |r| _mm256_madd_epi16(_mm256_packs_epi32(dot(r), dot(r + 1)), ones);
    let four = |r| _mm256_madd_epi16(_mm256_packs_epi32(two(r), two(r + 2)), ones);
    let (a, b) = (four(0), four(4));
    [_mm256_permute2x128_si256::<0x20>(a, b), _mm256_permute2x128_si256::<0x31>(a, b)]
}

/// Sums of a group of 8 bits, of eight rows from `first` on.
///
/// # Safety
///
/// The rows have 32 bytes there.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn dots_of_8_bits<const KIND: u8>(
    rows: &RowsOf,
    first: usize,
    at: usize,
    (even, odd): (__m256i, __m256i),
) -> __m256i {
    let (low, sign) = (_mm256_set1_epi16(255), _mm256_set1_epi8(-128));
    let dot = |r: usize| {
        // SAFETY: the caller vouches for it.
        let mut all = unsafe { _mm256_loadu_si256(rows.at(first + r).add(at).cast()) };
        if KIND == Kind::I8 as u8 {
            all = _mm256_xor_si256(all, sign);
        }
        let lower = _mm256_madd_epi16(_mm256_and_si256(all, low), even);
        _mm256_add_epi32(lower, _mm256_madd_epi16(_mm256_srli_epi16::<8>(all), odd))
    };
    let two = |r| _mm256_hadd_epi32(dot(r), dot(r + 1));
    let four = |r| _mm256_hadd_epi32(two(r), two(r + 2));
    let (a, b) = (four(0), four(4));
    _mm256_add_epi32(_mm256_permute2x128_si256::<0x20>(a, b), _mm256_permute2x128_si256::<0x31>(a, b))
}
