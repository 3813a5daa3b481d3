//! The kernels for AVX2. Outputs lie in the lanes of vectors; 4 or 2 inputs of each are a lane's 32 bits.

use std::arch::asm;
use std::arch::x86_64::*;

use crate::activations::{Form, RowMut, add_up, inverse};
use crate::panel::{PANEL, RowsOf, Scales, Tile};
use crate::weights::Kind;
use crate::{BLOCK, GROUP};

/// Floats of a vector.
const LANES: usize = 8;

/// Steps of a tile that are written out.
const UNROLLED: usize = 4;

/// Whether this processor has all that is used here.
pub(crate) fn is_supported() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")
}

/// Unpacks blocks of a panel's weights as activations lie: into bytes, `[values / 4, 16, 4]`, or words, `[values / 2, 16, 2]`.
/// What lies `ahead` bytes after them is fetched meanwhile.
///
/// # Safety
///
/// The processor is supported; rows have as many blocks, and `out` room for what they become.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) unsafe fn unpack<const KIND: u8>(
    form: Form,
    rows: &RowsOf,
    blocks: usize,
    ahead: Option<usize>,
    mut out: *mut u8,
) {
    let bytes = if KIND == Kind::U4 as u8 { BLOCK / 2 } else { BLOCK };
    let (mask, shift) = match KIND == Kind::U4 as u8 {
        true => (_mm256_set1_epi8(15), 4),
        false => (_mm256_set1_epi16(255), 8),
    };
    let shift = _mm_cvtsi32_si128(shift);
    let sign = _mm256_set1_epi8(if KIND == Kind::I8 as u8 { -128 } else { 0 });
    for block in 0..blocks {
        if let Some(ahead) = ahead {
            fetch(rows, 0..PANEL, block * bytes + ahead, bytes);
        }
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
                        if form == Form::Bytes {
                            _mm256_store_si256(out.add(i * 64 + half * 32).cast(), column);
                            continue;
                        }
                        let low = _mm256_and_si256(column, mask);
                        let high = _mm256_and_si256(_mm256_srl_epi16(column, shift), mask);
                        let to = out.add(i * 2 * 64 + half * 32);
                        _mm256_store_si256(to.cast(), low);
                        _mm256_store_si256(to.add(64).cast(), high);
                    }
                }
            }
            // SAFETY: as above.
            out = unsafe { out.add(if form == Form::Bytes { 4 * 64 } else { 8 * 64 }) };
        }
    }
}

/// Results of a panel with few rows of activations, `[T, 16]`, straight from packed weights: inputs lie in the lanes, which
/// are added up for eight rows of weights at once. What lies `ahead` bytes after the weights is fetched meanwhile.
///
/// # Safety
///
/// The processor is supported; all pointers are valid for `blocks`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) unsafe fn few<const T: usize, const KIND: u8, const SPAN: usize>(
    tile: &Tile<T>,
    weights: &RowsOf,
    scales: &Scales,
    blocks: usize,
    ahead: usize,
    acc: *mut f32,
) {
    const GROUPS: usize = BLOCK / GROUP;
    let four = KIND == Kind::U4 as u8;
    let bytes = if four { BLOCK / 2 } else { BLOCK };
    for half in [0, LANES] {
        let mut all = [_mm256_setzero_ps(); T];
        let mut part = [_mm256_setzero_ps(); T];
        for block in 0..blocks {
            fetch(weights, half..half + LANES, block * bytes + ahead, bytes);
            let mut sums = [[_mm256_setzero_si256(); GROUPS]; T];
            for i in 0..bytes / 32 {
                let at = block * bytes + i * 32;
                for (sums, row) in sums.iter_mut().zip(&tile.rows) {
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
                    for ((part, sums), row) in part.iter_mut().zip(&sums).zip(&tile.rows) {
                        let scale = _mm256_set1_ps(*row.scales.add(at));
                        *part = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums[group]), scale, *part);
                    }
                    let span = (at + 1) * GROUP / SPAN;
                    if (at + 1) * GROUP == span * SPAN {
                        let (scales, zeros) = scales.at(span - 1);
                        let scale = from_halves(scales.as_ptr().add(half));
                        let zero = from_bytes(zeros.as_ptr().add(half));
                        for ((all, part), row) in all.iter_mut().zip(&mut part).zip(&tile.rows) {
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

/// Fetches so many bytes of each row.
#[inline(always)]
fn fetch(rows: &RowsOf, of: std::ops::Range<usize>, at: usize, bytes: usize) {
    for row in of {
        for line in (0..bytes).step_by(64) {
            fetch_line(rows.at(row).wrapping_add(at + line));
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
    tile: &Tile<T>,
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
                        for (sums, row) in sums.iter_mut().zip(&tile.rows) {
                            let x: *const i32 = row.values.add(group * GROUP * bytes + step * 4).cast();
                            let x = _mm256_set1_epi32(x.read_unaligned());
                            for (sum, w) in sums.iter_mut().zip(w) {
                                *sum = match KIND == Kind::U4 as u8 {
                                    true => _mm256_add_epi16(*sum, _mm256_maddubs_epi16(w, x)),
                                    false => _mm256_add_epi32(*sum, _mm256_madd_epi16(w, x)),
                                };
                                keep(sum);
                            }
                        }
                    }
                }
            }
            for ((part, sums), row) in part.iter_mut().zip(sums).zip(&tile.rows) {
                // SAFETY: as above.
                let scale = _mm256_set1_ps(unsafe { *row.scales.add(group) });
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
            for (t, (part, row)) in part.iter().zip(&tile.rows).enumerate() {
                let sum = _mm256_set1_ps(*row.sums.add(i));
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

/// Eight numbers of half precision.
///
/// # Safety
///
/// There are as many.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn from_halves(values: *const u16) -> __m256 {
    // SAFETY: the caller vouches for it.
    _mm256_cvtph_ps(unsafe { _mm_loadu_si128(values.cast()) })
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

/// Each value plus its bias, then `y * sigmoid(beta * y)`, then times its factor, then plus another; what is `None` is left
/// out.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn finish(
    y: &mut [f32; PANEL],
    bias: Option<&[f32; PANEL]>,
    beta: Option<f32>,
    factors: Option<&[f32; PANEL]>,
    plus: Option<&[f32; PANEL]>,
) {
    for i in (0..PANEL).step_by(LANES) {
        // SAFETY: a panel has two vectors.
        let at = |values: &[f32; PANEL]| unsafe { _mm256_loadu_ps(values.as_ptr().add(i)) };
        let mut v = at(y);
        if let Some(bias) = bias {
            v = _mm256_add_ps(v, at(bias));
        }
        if let Some(beta) = beta {
            let e = exp(_mm256_mul_ps(v, _mm256_set1_ps(-beta)));
            v = _mm256_div_ps(v, _mm256_add_ps(e, _mm256_set1_ps(1.0)));
        }
        if let Some(factors) = factors {
            v = _mm256_mul_ps(v, at(factors));
        }
        if let Some(plus) = plus {
            v = _mm256_add_ps(v, at(plus));
        }
        // SAFETY: as above.
        unsafe { _mm256_storeu_ps(y.as_mut_ptr().add(i), v) };
    }
}

/// The sum of a vector's lanes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn sum(v: __m256) -> f32 {
    let v = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
    let v = _mm_add_ps(v, _mm_movehl_ps(v, v));
    _mm_cvtss_f32(_mm_add_ss(v, _mm_shuffle_ps::<1>(v, v)))
}

/// `x / sqrt(mean(x²) + epsilon) * weight`.
///
/// # Panics
///
/// If lengths differ, or are no multiple of a block.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn normalize(x: &[f32], epsilon: f32, weight: Option<&[f32]>, out: &mut [f32]) {
    let same = out.len() == x.len() && weight.is_none_or(|weight| weight.len() == x.len());
    assert!(same && x.len().is_multiple_of(BLOCK), "lengths differ");
    // SAFETY: there are as many whole vectors in each.
    let at = |values: &[f32], i: usize| unsafe { _mm256_loadu_ps(values.as_ptr().add(i)) };
    let mut squares = [_mm256_setzero_ps(); 8];
    for block in (0..x.len()).step_by(8 * LANES) {
        for (i, sum) in squares.iter_mut().enumerate() {
            let x = at(x, block + i * LANES);
            *sum = _mm256_fmadd_ps(x, x, *sum);
        }
    }
    let squares = squares.into_iter().reduce(|a, b| _mm256_add_ps(a, b)).map_or(0.0, |all| sum(all));
    let inverse = _mm256_set1_ps(1.0 / (squares / x.len() as f32 + epsilon).sqrt());
    for i in (0..x.len()).step_by(LANES) {
        let y = _mm256_mul_ps(at(x, i), inverse);
        let y = weight.map_or(y, |weight| _mm256_mul_ps(y, at(weight, i)));
        // SAFETY: as above.
        unsafe { _mm256_storeu_ps(out.as_mut_ptr().add(i), y) };
    }
}

/// e to the power of each, within 2 units of the last place; the reduction and polynomial are those of Cephes' expf.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn exp(x: __m256) -> __m256 {
    // What lies beyond would not be a normal number; as an addend of 1 it is 0 or infinite enough.
    let x = _mm256_min_ps(_mm256_set1_ps(88.0), _mm256_max_ps(_mm256_set1_ps(-87.0), x));
    let n = _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(_mm256_mul_ps(
        x,
        _mm256_set1_ps(std::f32::consts::LOG2_E),
    ));
    let x = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693_359_4), x);
    let x = _mm256_fnmadd_ps(n, _mm256_set1_ps(-2.121_944_4e-4), x);
    let mut p = _mm256_set1_ps(1.987_569_1e-4);
    for c in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = _mm256_fmadd_ps(p, x, _mm256_set1_ps(c));
    }
    let p = _mm256_fmadd_ps(_mm256_mul_ps(p, x), x, _mm256_add_ps(x, _mm256_set1_ps(1.0)));
    let power = _mm256_slli_epi32::<23>(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)));
    _mm256_mul_ps(p, _mm256_castsi256_ps(power))
}

/// As [`crate::activations::quantize`], to the bit.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn quantize(form: Form, x: &[f32], out: &mut RowMut<'_>) {
    #[rustfmt::skip]
    let order = match form {
        Form::Halves => _mm256_setr_epi8(
            0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15,
            0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15,
        ),
        Form::Bytes | Form::Words => _mm256_setr_epi8(
            0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15,
            0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15,
        ),
    };
    let absolute = _mm256_castsi256_ps(_mm256_set1_epi32(i32::MAX));
    for (group, x) in x.chunks_exact(GROUP).enumerate() {
        // SAFETY: a group is four vectors.
        let v: [__m256; 4] = std::array::from_fn(|i| unsafe { _mm256_loadu_ps(x.as_ptr().add(i * LANES)) });
        let (mut largest, mut damage) = (_mm256_setzero_ps(), _mm256_setzero_ps());
        for v in v {
            largest = _mm256_max_ps(_mm256_and_ps(v, absolute), largest);
            damage = _mm256_fmadd_ps(v, _mm256_setzero_ps(), damage);
        }
        let four = _mm_max_ps(_mm256_castps256_ps128(largest), _mm256_extractf128_ps::<1>(largest));
        let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
        let largest = _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps::<1>(two, two)));
        let scale = largest / 127.0 + sum(damage);
        let inverse = _mm256_set1_ps(inverse(largest));
        let [a, b, c, d] = v.map(|v| _mm256_cvtps_epi32(_mm256_mul_ps(v, inverse)));
        // Packed within halves, whose parts are then brought into their order.
        let packed = _mm256_packs_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
        let packed = _mm256_permutevar8x32_epi32(packed, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
        let values = _mm256_shuffle_epi8(packed, order);
        let pairs =
            _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_set1_epi8(1), packed), _mm256_set1_epi16(1));
        let pairs = _mm_add_epi32(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256::<1>(pairs));
        let pairs = _mm_add_epi32(pairs, _mm_unpackhi_epi64(pairs, pairs));
        let sum = _mm_cvtsi128_si32(_mm_add_epi32(pairs, _mm_shuffle_epi32::<1>(pairs)));
        let to = out.values[group * GROUP * form.bytes()..][..GROUP * form.bytes()].as_mut_ptr();
        // SAFETY: 32 or 64 bytes are written to as many.
        unsafe {
            match form {
                Form::Halves | Form::Bytes => _mm256_storeu_si256(to.cast(), values),
                Form::Words => {
                    let order = _mm256_setr_epi8(
                        0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15, 0, 1, 4, 5, 2, 3, 6, 7, 8, 9,
                        12, 13, 10, 11, 14, 15,
                    );
                    let halves = [_mm256_castsi256_si128(values), _mm256_extracti128_si256::<1>(values)];
                    for (i, half) in halves.into_iter().enumerate() {
                        let words = _mm256_shuffle_epi8(_mm256_cvtepi8_epi16(half), order);
                        _mm256_storeu_si256(to.add(i * 32).cast(), words);
                    }
                }
            }
        }
        out.scales[group] = scale;
        out.sums[group] = sum as f32 * scale;
    }
    add_up(out);
}
