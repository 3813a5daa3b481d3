//! Attention with VNNI: as with AVX2, to the bit.

use super::keep;
use super::vector::*;

/// Keys, or columns of values, that meet the vectors together.
const TILE: usize = 8;

crate::attention::define_meet!("avx512f,avx512bw,avx512vl,avx512vnni");
