//! Paged attention with AVX-512: as with AVX2, to the bit.

use std::arch::asm;
use std::arch::x86_64::_mm256_setzero_ps as no_sums;

use super::attention::power_of_two;
use super::vector::*;
use crate::avx2::vector::sum_of_eights;

crate::paged::define_paged_meet!("avx512f,avx512bw,avx512vl,avx512vnni");

/// Keeps a sum in its register, see [`super::keep`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn keep(sum: &mut Floats) {
    // SAFETY: does nothing.
    unsafe { asm!("/* {0} */", inout(zmm_reg) * sum, options(nomem, nostack, preserves_flags)) };
}
