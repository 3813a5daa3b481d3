//! Paged attention with AVX2.

use std::arch::asm;
use std::arch::x86_64::_mm256_setzero_ps as no_sums;

use super::attention::power_of_two;
use super::vector::*;

crate::paged::define_paged_meet!("avx2,fma,f16c");

/// Keeps a sum in its register, see [`super::keep`].
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn keep(sum: &mut Floats) {
    // SAFETY: does nothing.
    unsafe { asm!("/* {0} */", inout(ymm_reg) * sum, options(nomem, nostack, preserves_flags)) };
}
