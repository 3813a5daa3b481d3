//! The kernels for AVX-512 with VNNI. Outputs lie in the lanes of vectors; 4 inputs of each are a lane's 32 bits.

pub(crate) mod attention;
pub(crate) mod paged;
mod values;
mod vector;

use std::arch::asm;
use std::arch::x86_64::*;

pub(crate) use values::{finish, quantize};

use crate::activations::{Activations, At};
use crate::isa::TILE;
use crate::panel::{LINE, PANEL, Packed, RowsOf, Scales};
use crate::weights::Kind;
use crate::{BLOCK, GROUP};

/// Bytes of each row that are turned at once.
const PART: usize = 32;

/// Whether this processor has all that is used here.
pub(crate) fn is_supported() -> bool {
    crate::avx2::is_supported()
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512vnni")
}

/// The columns of a part of a panel's rows: words of 4 bytes, from byte `at` on.
///
/// # Safety
///
/// The rows have 32 bytes there.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn columns<const KIND: u8>(rows: &RowsOf, at: usize) -> [__m512i; PART / 4] {
    // SAFETY: the caller vouches for it.
    let (a, b) = unsafe { (columns_of_eight(rows, 0, at), columns_of_eight(rows, 8, at)) };
    let mut columns = [_mm512_setzero_si512(); PART / 4];
    for i in 0..4 {
        columns[i] = _mm512_shuffle_i32x4::<0b10_00_10_00>(a[i], b[i]);
        columns[i + 4] = _mm512_shuffle_i32x4::<0b11_01_11_01>(a[i], b[i]);
    }
    if KIND == Kind::I8 as u8 {
        for column in &mut columns {
            *column = _mm512_xor_si512(*column, _mm512_set1_epi8(-128));
        }
    }
    columns
}

/// The columns of eight rows: of each the first and the second 16 bytes of four rows, then those of four more.
///
/// # Safety
///
/// As above.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn columns_of_eight(rows: &RowsOf, first: usize, at: usize) -> [__m512i; 4] {
    // SAFETY: the caller vouches for it.
    let [a, b, c, d] = unsafe {
        [
            two_rows(rows, first, at),
            two_rows(rows, first + 1, at),
            two_rows(rows, first + 2, at),
            two_rows(rows, first + 3, at),
        ]
    };
    let (ab, cd) = (_mm512_unpacklo_epi32(a, b), _mm512_unpacklo_epi32(c, d));
    let (ab_high, cd_high) = (_mm512_unpackhi_epi32(a, b), _mm512_unpackhi_epi32(c, d));
    [
        _mm512_unpacklo_epi64(ab, cd),
        _mm512_unpackhi_epi64(ab, cd),
        _mm512_unpacklo_epi64(ab_high, cd_high),
        _mm512_unpackhi_epi64(ab_high, cd_high),
    ]
}

/// 32 bytes of a row and of the fourth one behind it.
///
/// # Safety
///
/// As above.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn two_rows(rows: &RowsOf, row: usize, at: usize) -> __m512i {
    // SAFETY: the caller vouches for it.
    unsafe {
        let a = _mm256_loadu_si256(rows.at(row).add(at).cast());
        let b = _mm256_loadu_si256(rows.at(row + 4).add(at).cast());
        _mm512_inserti64x4::<1>(_mm512_castsi256_si512(a), b)
    }
}

/// The lower and the upper halves of bytes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn halves(column: __m512i) -> [__m512i; 2] {
    let low = _mm512_set1_epi8(15);
    [_mm512_and_si512(column, low), _mm512_and_si512(_mm512_srli_epi16::<4>(column), low)]
}

/// As [`crate::avx2::unpack`], into bytes.
///
/// # Safety
///
/// As there.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(crate) unsafe fn unpack<const KIND: u8>(rows: &RowsOf, blocks: usize, mut out: *mut u8) {
    let four = KIND == Kind::U4 as u8;
    for part in 0..blocks * if four { BLOCK / 2 } else { BLOCK } / PART {
        // SAFETY: 32 bytes of each row, and of the output what they become.
        unsafe {
            for column in columns::<KIND>(rows, part * PART) {
                let [low, high] = if four { halves(column) } else { [column; 2] };
                _mm512_store_si512(out.cast(), low);
                if four {
                    _mm512_store_si512(out.add(64).cast(), high);
                }
                out = out.add(if four { 128 } else { 64 });
            }
        }
    }
}

/// Results of a panel with `T` rows of activations, which lie side by side, `[T, 16]`; weights are turned on their way.
///
/// # Safety
///
/// The processor is supported; weights, scales and activations have so many blocks.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(crate) unsafe fn few<const T: usize, const KIND: u8, const SPAN: usize>(
    of: &Activations,
    panel: &Packed<'_>,
    acc: *mut f32,
) {
    let &Packed { rows: ref weights, scales, blocks, ahead } = panel;
    let rows = of.at(0, 0, SPAN);
    let four = KIND == Kind::U4 as u8;
    let bytes = if four { BLOCK / 2 } else { BLOCK };
    // Groups of a part, and columns of a group.
    let (groups, columns_of) = if four { (2, 4) } else { (1, 8) };
    let mut all = [_mm512_setzero_ps(); T];
    let mut sums = [_mm512_setzero_ps(); T];
    for part in 0..blocks * bytes / PART {
        let at = part * PART;
        if at.is_multiple_of(LINE) {
            weights.fetch(0..PANEL, at + ahead, LINE);
        }
        // SAFETY: the caller vouches for the pointers.
        unsafe {
            let columns = columns::<KIND>(weights, at);
            for i in 0..groups {
                let group = part * groups + i;
                let mut dots = [_mm512_setzero_si512(); T];
                for c in 0..columns_of {
                    let column = columns[i * columns_of + c];
                    let [low, high] = halves(column);
                    let x = rows.values.cast::<i32>().add(group * GROUP / 4 * T);
                    for (t, dot) in dots.iter_mut().enumerate() {
                        if four {
                            *dot = _mm512_dpbusd_epi32(*dot, low, word(x, c * 2 * T + t));
                            *dot = _mm512_dpbusd_epi32(*dot, high, word(x, (c * 2 + 1) * T + t));
                        } else {
                            *dot = _mm512_dpbusd_epi32(*dot, column, word(x, c * T + t));
                        }
                        keep(dot);
                    }
                }
                for (t, (sum, dot)) in sums.iter_mut().zip(dots).enumerate() {
                    let scale = _mm512_set1_ps(*rows.scales.add(group * T + t));
                    *sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), scale, *sum);
                }
                let span = (group + 1) * GROUP / SPAN;
                if (group + 1) * GROUP == span * SPAN {
                    let (scale, zero) = of_span(scales, span - 1);
                    for (t, (all, sum)) in all.iter_mut().zip(&mut sums).enumerate() {
                        let of_row = _mm512_set1_ps(*rows.sums.add((span - 1) * T + t));
                        *all = _mm512_fmadd_ps(_mm512_fnmadd_ps(zero, of_row, *sum), scale, *all);
                        *sum = _mm512_setzero_ps();
                    }
                }
            }
        }
    }
    for (t, all) in all.into_iter().enumerate() {
        // SAFETY: as above.
        unsafe { _mm512_storeu_ps(acc.add(t * PANEL), all) };
    }
}

/// One of the words of 4 bytes, in all lanes.
///
/// # Safety
///
/// There are so many.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn word(words: *const i32, i: usize) -> __m512i {
    // SAFETY: the caller vouches for it.
    _mm512_set1_epi32(unsafe { words.add(i).read_unaligned() })
}

/// Scales and zero points of a span, as numbers.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn of_span(scales: &Scales, span: usize) -> (__m512, __m512) {
    let (scales, zeros) = scales.at(span);
    // SAFETY: there are 16 of each.
    let (scales, zeros) =
        unsafe { (_mm256_loadu_si256(scales.as_ptr().cast()), _mm_loadu_si128(zeros.as_ptr().cast())) };
    (_mm512_cvtph_ps(scales), _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(zeros)))
}

/// As [`crate::avx2::tile`], to the bit, for weights of 4 and of 8 bits that are unpacked into bytes, of `P` panels.
///
/// # Safety
///
/// The processor is supported; all pointers are valid for the spans.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(crate) unsafe fn tile<const T: usize, const P: usize, const SPAN: usize>(
    rows: At,
    panels: [(*const u8, &Scales); P],
    spans: std::ops::Range<usize>,
    acc: [*mut f32; P],
) {
    let groups = SPAN / GROUP;
    for (i, span) in spans.enumerate() {
        let mut part = [[_mm512_setzero_ps(); P]; T];
        for group in i * groups..(i + 1) * groups {
            let mut sums = [[_mm512_setzero_si512(); P]; T];
            for step in 0..GROUP / 4 {
                // SAFETY: the caller vouches for the pointers.
                unsafe {
                    let mut w = [_mm512_setzero_si512(); P];
                    for (w, (weights, _)) in w.iter_mut().zip(panels) {
                        *w = _mm512_load_si512(weights.add(group * GROUP * PANEL + step * 64).cast());
                    }
                    for (t, sums) in sums.iter_mut().enumerate() {
                        let x = word(rows.values.cast(), (group * GROUP / 4 + step) * TILE + t);
                        for (sum, w) in sums.iter_mut().zip(w) {
                            *sum = _mm512_dpbusd_epi32(*sum, w, x);
                            keep(sum);
                        }
                    }
                }
            }
            for (t, (part, sums)) in part.iter_mut().zip(sums).enumerate() {
                // SAFETY: as above.
                let scale = _mm512_set1_ps(unsafe { *rows.scales.add(group * TILE + t) });
                for (part, sum) in part.iter_mut().zip(sums) {
                    *part = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), scale, *part);
                }
            }
        }
        for (p, (_, scales)) in panels.iter().enumerate() {
            // SAFETY: as above.
            unsafe {
                let (scales, zeros) = of_span(scales, span);
                for (t, part) in part.iter().enumerate() {
                    let acc = acc[p].add(t * PANEL);
                    let part = _mm512_fnmadd_ps(zeros, _mm512_set1_ps(*rows.sums.add(i * TILE + t)), part[p]);
                    _mm512_storeu_ps(acc, _mm512_fmadd_ps(part, scales, _mm512_loadu_ps(acc)));
                }
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
