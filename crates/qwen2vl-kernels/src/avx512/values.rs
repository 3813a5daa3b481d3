//! What is done to activations before the products, and to results behind: as with AVX2, to the bit.

use std::arch::x86_64::*;

use crate::GROUP;
use crate::activations::{Form, RowMut, inverse};
use crate::avx2::exponential;
use crate::panel::PANEL;
use crate::product::Behind;

/// As [`crate::avx2::finish`].
///
/// # Safety
///
/// As there.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(crate) unsafe fn finish(
    behind: &Behind,
    acc: &[[f32; PANEL]],
    factors: Option<&[[f32; PANEL]]>,
    plus: Option<*const f32>,
    out: *mut f32,
    n: usize,
) {
    // SAFETY: a panel is a vector; the caller vouches for the rest.
    unsafe {
        let at = |values: &[f32; PANEL]| _mm512_loadu_ps(values.as_ptr());
        let bias = behind.bias.as_ref().map(at);
        for (row, y) in acc.iter().enumerate() {
            let mut v = at(y);
            if let Some(bias) = bias {
                v = _mm512_add_ps(v, bias);
            }
            if let Some(beta) = behind.beta {
                let e = exp(_mm512_mul_ps(v, _mm512_set1_ps(-beta)));
                v = _mm512_div_ps(v, _mm512_add_ps(e, _mm512_set1_ps(1.0)));
            }
            if let Some(factors) = factors {
                v = _mm512_mul_ps(v, at(&factors[row]));
            }
            if let Some(plus) = plus {
                v = _mm512_add_ps(v, _mm512_loadu_ps(plus.add(row * n)));
            }
            _mm512_storeu_ps(out.add(row * n), v);
        }
    }
}

/// e to the power of each.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn exp(x: __m512) -> __m512 {
    let [least, most] = exponential::RANGE;
    let x = _mm512_min_ps(_mm512_set1_ps(most), _mm512_max_ps(_mm512_set1_ps(least), x));
    let n = _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(_mm512_mul_ps(
        x,
        _mm512_set1_ps(std::f32::consts::LOG2_E),
    ));
    let [coarse, fine] = exponential::LN_2;
    let x = _mm512_fnmadd_ps(n, _mm512_set1_ps(fine), _mm512_fnmadd_ps(n, _mm512_set1_ps(coarse), x));
    let [p, others @ ..] = exponential::POLYNOMIAL;
    let mut p = _mm512_set1_ps(p);
    for c in others {
        p = _mm512_fmadd_ps(p, x, _mm512_set1_ps(c));
    }
    let p = _mm512_fmadd_ps(_mm512_mul_ps(p, x), x, _mm512_add_ps(x, _mm512_set1_ps(1.0)));
    _mm512_scalef_ps(p, n)
}

/// As [`crate::activations::quantize`], into bytes.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(crate) fn quantize(form: Form, x: &[f32], out: &mut RowMut<'_, '_>) {
    #[rustfmt::skip]
    let order = match form {
        Form::Halves => _mm_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15),
        Form::Bytes | Form::Words => _mm_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
    };
    for (group, x) in x.chunks_exact(GROUP).enumerate() {
        // SAFETY: a group is two vectors.
        let (a, b) = unsafe { (_mm512_loadu_ps(x.as_ptr()), _mm512_loadu_ps(x.as_ptr().add(16))) };
        // As integers, sizes are in the same order, and those that are not finite are the largest.
        let sizes =
            _mm512_max_epu32(_mm512_castps_si512(_mm512_abs_ps(a)), _mm512_castps_si512(_mm512_abs_ps(b)));
        let largest = f32::from_bits(_mm512_reduce_max_epu32(sizes));
        let scale = if largest.is_finite() { largest / 127.0 } else { f32::NAN };
        let by = _mm512_set1_ps(inverse(largest));
        let (a, b) = (_mm512_cvtps_epi32(_mm512_mul_ps(a, by)), _mm512_cvtps_epi32(_mm512_mul_ps(b, by)));
        let sum = _mm512_reduce_add_epi32(_mm512_add_epi32(a, b));
        let mut all = [0; GROUP];
        for (to, values) in all.chunks_exact_mut(16).zip([a, b]) {
            let bytes = _mm_shuffle_epi8(_mm512_cvtsepi32_epi8(values), order);
            // SAFETY: 16 bytes are written to as many.
            unsafe { _mm_storeu_si128(to.as_mut_ptr().cast(), bytes) };
        }
        out.set(group, &all, scale, sum as f32 * scale);
    }
    out.add_up();
}
