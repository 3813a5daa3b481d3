//! Paged attention with AVX2.

use std::arch::x86_64::_mm256_setzero_ps as no_sums;

use super::attention::power_of_two;
use super::vector::*;

crate::paged::define_paged_meet!("avx2,fma,f16c");
