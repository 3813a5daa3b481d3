//! The kernel for many rows of activations with AVX-512 and VNNI; all else is done as with AVX2.

use std::arch::asm;
use std::arch::x86_64::*;

use crate::GROUP;
use crate::activations::At;
use crate::isa::TILE;
use crate::panel::{PANEL, Scales};

/// Whether this processor has all that is used here.
pub(crate) fn is_supported() -> bool {
    crate::avx2::is_supported()
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512vnni")
}

/// As [`crate::avx2::tile`], to the bit, for weights of 4 and of 8 bits that are unpacked into bytes.
///
/// # Safety
///
/// The processor is supported; all pointers are valid for the spans.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(crate) unsafe fn tile<const T: usize, const SPAN: usize>(
    rows: At,
    weights: *const u8,
    scales: &Scales,
    spans: std::ops::Range<usize>,
    acc: *mut f32,
) {
    let groups = SPAN / GROUP;
    for (i, span) in spans.enumerate() {
        let mut part = [_mm512_setzero_ps(); T];
        for group in i * groups..(i + 1) * groups {
            let mut sums = [_mm512_setzero_si512(); T];
            for step in 0..GROUP / 4 {
                // SAFETY: the caller vouches for the pointers.
                unsafe {
                    let w = _mm512_load_si512(weights.add(group * GROUP * PANEL + step * 64).cast());
                    let x: *const i32 = rows.values.cast();
                    for (t, sum) in sums.iter_mut().enumerate() {
                        let x = x.add((group * GROUP / 4 + step) * TILE + t).read_unaligned();
                        *sum = _mm512_dpbusd_epi32(*sum, w, _mm512_set1_epi32(x));
                        keep(sum);
                    }
                }
            }
            for (t, (part, sum)) in part.iter_mut().zip(sums).enumerate() {
                // SAFETY: as above.
                let scale = _mm512_set1_ps(unsafe { *rows.scales.add(group * TILE + t) });
                *part = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), scale, *part);
            }
        }
        // SAFETY: as above.
        unsafe {
            let (scales, zeros) = scales.at(span);
            let scales = _mm512_cvtph_ps(_mm256_loadu_si256(scales.as_ptr().cast()));
            let zeros = _mm512_cvtepu8_epi32(_mm_loadu_si128(zeros.as_ptr().cast()));
            let zeros = _mm512_cvtepi32_ps(zeros);
            for (t, part) in part.iter().enumerate() {
                let acc = acc.add(t * PANEL);
                let part = _mm512_fnmadd_ps(zeros, _mm512_set1_ps(*rows.sums.add(i * TILE + t)), *part);
                _mm512_storeu_ps(acc, _mm512_fmadd_ps(part, scales, _mm512_loadu_ps(acc)));
            }
        }
    }
}

/// Keeps a sum in its register, as [`crate::avx2`] does.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn keep(sum: &mut __m512i) {
    // SAFETY: does nothing.
    unsafe { asm!("/* {0} */", inout(zmm_reg) * sum, options(nomem, nostack, preserves_flags)) };
}
