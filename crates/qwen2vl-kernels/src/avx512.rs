//! The kernels for AVX-512 with VNNI.
//!
//! A tile is 16 results: `R` rows of weights by `T` rows of activations. Each result is built up in the 16 lanes of one
//! vector, in the order of the blocks, and the lanes are added up at the end, always in the same order; so it does not
//! depend on which tile it is part of.

use std::arch::x86_64::*;

use crate::BLOCK;
use crate::activations::{LANES, RowMut, inverse, padded};
use crate::weights::Kind;

/// Whether this processor has all that is used here.
pub(crate) fn is_supported() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512vnni")
}

/// How scales lie: one for each row of weights, one for each block, or several within a block.
pub(crate) const PER_ROW: u8 = 0;
pub(crate) const PER_BLOCK: u8 = 1;
pub(crate) const WITHIN_BLOCK: u8 = 2;

/// Quantized activations of one row.
#[derive(Clone, Copy)]
pub(crate) struct Row {
    pub values: *const i8,
    pub scales: *const f32,
    pub lane_sums: *const f32,
    pub block_sums: *const f32,
}

/// Weights of a tile's rows and what belongs to them.
#[derive(Clone, Copy)]
pub(crate) struct Panel<const R: usize> {
    pub rows: [*const u8; R],
    /// Of each row: one value, one for each block, or 16 for each block.
    pub scales: [*const f32; R],
    /// Scale times zero point, likewise; with one scale for each row the zero point alone.
    pub zeros: [*const f32; R],
}

/// Sums of 16 vectors' lanes, in their order; each in the order of `activations::sum_of_lanes`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn sums(v: &[__m512; 16]) -> [f32; 16] {
    let halves = |a, b| {
        _mm512_add_ps(
            _mm512_shuffle_f32x4::<0b01_00_01_00>(a, b),
            _mm512_shuffle_f32x4::<0b11_10_11_10>(a, b),
        )
    };
    let quarters = |a, b| {
        _mm512_add_ps(
            _mm512_shuffle_f32x4::<0b10_00_10_00>(a, b),
            _mm512_shuffle_f32x4::<0b11_01_11_01>(a, b),
        )
    };
    let pairs = |a, b| {
        let (a, b) = (_mm512_castps_pd(a), _mm512_castps_pd(b));
        _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)), _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)))
    };
    let mut four = [_mm512_setzero_ps(); 4];
    for (i, four) in four.iter_mut().enumerate() {
        *four = quarters(halves(v[4 * i], v[4 * i + 1]), halves(v[4 * i + 2], v[4 * i + 3]));
    }
    let (a, b) = (pairs(four[0], four[1]), pairs(four[2], four[3]));
    let all =
        _mm512_add_ps(_mm512_shuffle_ps::<0b10_00_10_00>(a, b), _mm512_shuffle_ps::<0b11_01_11_01>(a, b));
    let mut mixed = [0.0; 16];
    // SAFETY: 16 floats are written into 16.
    unsafe { _mm512_storeu_ps(mixed.as_mut_ptr(), all) };
    let mut sums = [0.0; 16];
    for (i, sum) in sums.iter_mut().enumerate() {
        *sum = mixed[i % 4 * 4 + i / 4];
    }
    sums
}

/// Results of `R` rows of weights by `T` rows of activations, row by row; `R * T` is 16. `AT_ONCE` rows of weights are read
/// together, block by block. What lies `ahead` bytes after them is fetched meanwhile.
///
/// # Safety
///
/// The processor is supported; all pointers are valid for `blocks` blocks of the kind and layout of scales.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(crate) unsafe fn tile<
    const R: usize,
    const T: usize,
    const KIND: u8,
    const SCALES: u8,
    const AT_ONCE: usize,
>(
    panel: &Panel<R>,
    rows: &[Row; T],
    blocks: usize,
    ahead: usize,
) -> [f32; 16] {
    let mut acc = [[_mm512_setzero_ps(); T]; R];
    let low = _mm512_set1_epi8(15);
    let sign = _mm512_set1_epi8(-128);
    for (acc, first_row) in acc.chunks_exact_mut(AT_ONCE).zip((0..R).step_by(AT_ONCE)) {
        let mut part = [[_mm512_setzero_ps(); T]; AT_ONCE];
        for block in 0..blocks {
            for (i, part) in part.iter_mut().enumerate() {
                let r = first_row + i;
                // SAFETY: the caller vouches for the pointers.
                let (first, second) = unsafe {
                    if KIND == Kind::U4 as u8 {
                        let at = panel.rows[r].add(block * 64);
                        if ahead > 0 {
                            _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(ahead).cast());
                        }
                        let both = _mm512_loadu_si512(at.cast());
                        (_mm512_and_si512(both, low), _mm512_and_si512(_mm512_srli_epi16::<4>(both), low))
                    } else {
                        let at = panel.rows[r].add(block * BLOCK);
                        if ahead > 0 {
                            _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(ahead).cast());
                            _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(ahead + 64).cast());
                        }
                        let (a, b) = (_mm512_loadu_si512(at.cast()), _mm512_loadu_si512(at.add(64).cast()));
                        match KIND == Kind::I8 as u8 {
                            true => (_mm512_xor_si512(a, sign), _mm512_xor_si512(b, sign)),
                            false => (a, b),
                        }
                    }
                };
                for t in 0..T {
                    // SAFETY: as above.
                    unsafe {
                        let row = &rows[t];
                        let values = row.values.add(block * BLOCK);
                        let sum = _mm512_dpbusd_epi32(
                            _mm512_setzero_si512(),
                            first,
                            _mm512_loadu_si512(values.cast()),
                        );
                        let sum = _mm512_dpbusd_epi32(sum, second, _mm512_loadu_si512(values.add(64).cast()));
                        let sum = _mm512_cvtepi32_ps(sum);
                        let scale = _mm512_loadu_ps(row.scales.add(block * LANES));
                        part[t] = match SCALES {
                            PER_ROW => _mm512_fmadd_ps(sum, scale, part[t]),
                            PER_BLOCK => {
                                let both = _mm512_mul_ps(scale, _mm512_set1_ps(*panel.scales[r].add(block)));
                                _mm512_fmadd_ps(sum, both, part[t])
                            }
                            _ => {
                                let of_weights = _mm512_loadu_ps(panel.scales[r].add(block * LANES));
                                let zeros = _mm512_loadu_ps(panel.zeros[r].add(block * LANES));
                                let sums = _mm512_loadu_ps(row.lane_sums.add(block * LANES));
                                let sum = _mm512_fmadd_ps(sum, _mm512_mul_ps(scale, of_weights), part[t]);
                                _mm512_fnmadd_ps(zeros, sums, sum)
                            }
                        };
                    }
                }
            }
        }
        acc.copy_from_slice(&part);
    }
    if SCALES != WITHIN_BLOCK {
        for chunk in (0..padded(blocks)).step_by(LANES) {
            for (r, acc) in acc.iter_mut().enumerate() {
                for (acc, row) in acc.iter_mut().zip(rows) {
                    // SAFETY: block sums are padded with zeros to whole vectors, and behind the last zeros is room for one.
                    unsafe {
                        let zeros = match SCALES {
                            PER_ROW => _mm512_set1_ps(*panel.zeros[r]),
                            _ => _mm512_loadu_ps(panel.zeros[r].add(chunk)),
                        };
                        let sums = _mm512_loadu_ps(row.block_sums.add(chunk));
                        *acc = _mm512_fnmadd_ps(zeros, sums, *acc);
                    }
                }
            }
        }
    }
    let mut flat = [_mm512_setzero_ps(); 16];
    for (i, flat) in flat.iter_mut().enumerate() {
        *flat = acc[i / T][i % T];
    }
    let mut sums = sums(&flat);
    if SCALES == PER_ROW {
        for (i, sum) in sums.iter_mut().enumerate() {
            // SAFETY: each row has a scale.
            *sum *= unsafe { *panel.scales[i / T] };
        }
    }
    sums
}

/// Scales of 16 rows or fewer, from f16, and their zero points of 8 bits.
///
/// # Safety
///
/// The processor is supported; `scales` has `n` values of 2 bytes, `points` `n` of one, and both outputs have room for 16.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(crate) unsafe fn scales_of_rows(
    scales: *const u8,
    points: *const u8,
    n: usize,
    out: *mut f32,
    zeros: *mut f32,
) {
    let mask = ((1u32 << n) - 1) as u16;
    // SAFETY: masked lanes are not read; the outputs have room.
    unsafe {
        _mm512_storeu_ps(out, _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, scales.cast())));
        let points = _mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(mask, points.cast()));
        _mm512_storeu_ps(zeros, _mm512_cvtepi32_ps(points));
    }
}

/// Scales of 16 blocks or fewer, from f16, and those times the zero points of 4 bits. The scales that lie `ahead` bytes
/// after these are fetched meanwhile.
///
/// # Safety
///
/// The processor is supported; `scales` has `n` values of 2 bytes, `points` `n` of 4 bits that begin with a byte, and both
/// outputs have room for 16.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(crate) unsafe fn scales_of_blocks(
    scales: *const u8,
    points: *const u8,
    n: usize,
    ahead: usize,
    out: *mut f32,
    zeros: *mut f32,
) {
    let mask = ((1u32 << n) - 1) as u16;
    // SAFETY: masked lanes are not read; the outputs have room.
    unsafe {
        _mm_prefetch::<_MM_HINT_T0>(scales.wrapping_add(ahead).cast());
        _mm_prefetch::<_MM_HINT_T0>(points.wrapping_add(ahead / 4).cast());
        let scales = _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, scales.cast()));
        let bytes = ((1u32 << n.div_ceil(2)) - 1) as u16;
        let packed = _mm_maskz_loadu_epi8(bytes, points.cast());
        let low = _mm_set1_epi8(15);
        let (even, odd) = (_mm_and_si128(packed, low), _mm_and_si128(_mm_srli_epi16::<4>(packed), low));
        let points = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_unpacklo_epi8(even, odd)));
        _mm512_storeu_ps(out, scales);
        _mm512_storeu_ps(zeros, _mm512_maskz_mul_ps(mask, scales, points));
    }
}

/// Each value plus its bias, then `y * sigmoid(beta * y)`, then times its factor, then plus another; what is `None` is left
/// out.
///
/// # Panics
///
/// If lengths differ.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(crate) fn finish(
    out: &mut [f32],
    bias: Option<&[f32]>,
    beta: Option<f32>,
    factors: Option<&[f32]>,
    plus: Option<&[f32]>,
) {
    let same = |other: Option<&[f32]>| other.is_none_or(|other| other.len() == out.len());
    assert!(same(bias) && same(factors) && same(plus), "lengths differ");
    for i in (0..out.len()).step_by(LANES) {
        let mask = ((1u32 << LANES.min(out.len() - i)) - 1) as u16;
        // SAFETY: masked lanes are neither read nor written.
        let at = |values: &[f32]| unsafe { _mm512_maskz_loadu_ps(mask, values.as_ptr().add(i)) };
        let mut y = at(out);
        if let Some(bias) = bias {
            y = _mm512_add_ps(y, at(bias));
        }
        if let Some(beta) = beta {
            let e = exp(_mm512_mul_ps(y, _mm512_set1_ps(-beta)));
            y = _mm512_div_ps(y, _mm512_add_ps(e, _mm512_set1_ps(1.0)));
        }
        if let Some(factors) = factors {
            y = _mm512_mul_ps(y, at(factors));
        }
        if let Some(plus) = plus {
            y = _mm512_add_ps(y, at(plus));
        }
        // SAFETY: as above.
        unsafe { _mm512_mask_storeu_ps(out.as_mut_ptr().add(i), mask, y) };
    }
}

/// `x / sqrt(mean(x²) + epsilon) * weight`.
///
/// # Panics
///
/// If lengths differ, or are no multiple of a block.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(crate) fn normalize(x: &[f32], epsilon: f32, weight: Option<&[f32]>, out: &mut [f32]) {
    let same = out.len() == x.len() && weight.is_none_or(|weight| weight.len() == x.len());
    assert!(same && x.len().is_multiple_of(BLOCK), "lengths differ");
    // SAFETY: there are as many whole vectors in each.
    let at = |values: &[f32], i: usize| unsafe { _mm512_loadu_ps(values.as_ptr().add(i)) };
    let mut squares = [_mm512_setzero_ps(); 4];
    for block in (0..x.len()).step_by(4 * LANES) {
        for (i, sum) in squares.iter_mut().enumerate() {
            let x = at(x, block + i * LANES);
            *sum = _mm512_fmadd_ps(x, x, *sum);
        }
    }
    let [a, b, c, d] = squares;
    let sum = _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(a, b), _mm512_add_ps(c, d)));
    let inverse = _mm512_set1_ps(1.0 / (sum / x.len() as f32 + epsilon).sqrt());
    for i in (0..x.len()).step_by(LANES) {
        let y = _mm512_mul_ps(at(x, i), inverse);
        let y = weight.map_or(y, |weight| _mm512_mul_ps(y, at(weight, i)));
        // SAFETY: as above.
        unsafe { _mm512_storeu_ps(out.as_mut_ptr().add(i), y) };
    }
}

/// e to the power of each, within 2 units of the last place; the reduction and polynomial are those of Cephes' expf.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn exp(x: __m512) -> __m512 {
    // Beyond, results are 0 or infinite anyway.
    let x = _mm512_min_ps(_mm512_set1_ps(100.0), _mm512_max_ps(_mm512_set1_ps(-150.0), x));
    let n = _mm512_roundscale_ps::<0>(_mm512_mul_ps(x, _mm512_set1_ps(std::f32::consts::LOG2_E)));
    let x = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693_359_4), x);
    let x = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.121_944_4e-4), x);
    let mut p = _mm512_set1_ps(1.987_569_1e-4);
    for c in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = _mm512_fmadd_ps(p, x, _mm512_set1_ps(c));
    }
    let p = _mm512_fmadd_ps(_mm512_mul_ps(p, x), x, _mm512_add_ps(x, _mm512_set1_ps(1.0)));
    _mm512_scalef_ps(p, n)
}

/// As [`crate::activations::quantize`], to the bit.
///
/// # Safety
///
/// The processor is supported.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(crate) unsafe fn quantize(kind: Kind, x: &[f32], out: &mut RowMut<'_>) {
    // Of each of a block's eight vectors the group.
    let groups: [usize; 8] = match kind {
        Kind::U4 => [0, 0, 1, 1, 2, 2, 3, 3],
        Kind::U8 | Kind::I8 => [0, 0, 1, 1, 0, 0, 1, 1],
    };
    let width = if kind == Kind::U4 { 4 } else { 8 };
    for (block, x) in x.chunks_exact(BLOCK).enumerate() {
        // SAFETY: a block has 128 values, that is eight vectors.
        let v: [__m512; 8] = std::array::from_fn(|i| unsafe { _mm512_loadu_ps(x.as_ptr().add(i * LANES)) });
        let (mut largest, mut damage) = ([_mm512_setzero_ps(); 4], _mm512_setzero_ps());
        for (v, group) in v.iter().zip(groups) {
            largest[group] = _mm512_max_ps(_mm512_abs_ps(*v), largest[group]);
            damage = _mm512_fmadd_ps(*v, _mm512_setzero_ps(), damage);
        }
        let damage = _mm512_reduce_add_ps(damage);
        let largest = largest.map(|v| _mm512_reduce_max_ps(v));
        let scales: [f32; LANES] = std::array::from_fn(|lane| largest[lane / width] / 127.0 + damage);
        let mut bytes = [0i8; BLOCK];
        for (i, (v, group)) in v.iter().zip(groups).enumerate() {
            let scaled = _mm512_mul_ps(*v, _mm512_set1_ps(inverse(largest[group])));
            let narrow = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(scaled));
            // SAFETY: 16 of the 128 bytes.
            unsafe { _mm_storeu_si128(bytes.as_mut_ptr().add(i * LANES).cast(), narrow) };
        }
        // SAFETY: 128 bytes are read and as many written; the slices have a block's lanes.
        unsafe {
            let (mut a, mut b) = (
                _mm512_loadu_si512(bytes.as_ptr().cast()),
                _mm512_loadu_si512(bytes.as_ptr().add(64).cast()),
            );
            if kind == Kind::U4 {
                let even = |v| _mm512_cvtepi16_epi8(v);
                let odd = |v| _mm512_cvtepi16_epi8(_mm512_srli_epi16::<8>(v));
                let join = |low, high| _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high);
                (a, b) = (join(even(a), even(b)), join(odd(a), odd(b)));
            }
            let to = out.values[block * BLOCK..][..BLOCK].as_mut_ptr();
            _mm512_storeu_si512(to.cast(), a);
            _mm512_storeu_si512(to.add(64).cast(), b);
            let ones = _mm512_set1_epi8(1);
            let sum = _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(_mm512_setzero_si512(), ones, a), ones, b);
            let sum = _mm512_mul_ps(_mm512_cvtepi32_ps(sum), _mm512_loadu_ps(scales.as_ptr()));
            out.scales[block * LANES..][..LANES].copy_from_slice(&scales);
            _mm512_storeu_ps(out.lane_sums[block * LANES..][..LANES].as_mut_ptr(), sum);
        }
        out.block_sums[block] = crate::activations::sum_of_lanes(&out.lane_sums[block * LANES..][..LANES]);
    }
}
