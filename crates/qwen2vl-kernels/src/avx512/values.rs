//! What is done to activations before the products, and to results behind: as with AVX2, to the bit.

use std::arch::x86_64::*;

use super::vector::*;
use crate::GROUP;
use crate::activations::{Form, MOST, RowMut, inverse};

crate::finish::define_finish!("avx512f,avx512bw,avx512vl,avx512vnni");

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
        let scale = if largest.is_finite() { largest / MOST } else { f32::NAN };
        let by = _mm512_set1_ps(inverse(largest, MOST));
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
