//! The product: activations quantized once, weights where they lie.

use crate::activations::Activations;
use crate::pool::Pool;
use crate::product::{Product, Rows};

/// Memory that calls use one after the other.
#[derive(Debug, Default)]
pub struct Scratch {
    activations: Activations,
    #[cfg(target_arch = "x86_64")]
    pub(crate) attention: crate::attention::Quantized,
}

/// Whether [`multiply`] can be used on this processor.
pub fn is_supported() -> bool {
    #[cfg(target_arch = "x86_64")]
    return crate::avx2::is_supported();
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Rows that take little longer than one, since weights are read once for all: 2 with AVX2, 4 with VNNI (docs/performance.md).
pub fn free_rows() -> usize {
    #[cfg(target_arch = "x86_64")]
    return crate::isa::Isa::best().free_rows();
    #[cfg(not(target_arch = "x86_64"))]
    1
}

/// Computes products of the same rows, which are quantized once for all of them.
///
/// # Panics
///
/// If the lengths do not fit the weights, weights of 4 bits and of 8 are mixed, or the processor is not supported.
pub fn multiply(rows: Rows<'_>, products: &mut [Product<'_>], scratch: &mut Scratch, pool: &Pool) {
    let Some(first) = products.first().map(|p| p.weights) else { return };
    let m = rows.x.len() / first.k;
    let norm = rows.norm.is_none_or(|norm| norm.fits(first.k));
    let fits = rows.x.len() == m * first.k && norm && products.iter().all(|p| p.fits(m, first));
    assert!(fits, "lengths do not fit the weights");
    assert!(is_supported(), "this processor has no AVX2");
    if m == 0 {
        return;
    }
    #[cfg(target_arch = "x86_64")]
    crate::job::multiply(crate::isa::Isa::best(), rows, products, m, &mut scratch.activations, pool);
}

#[cfg(all(test, target_arch = "x86_64"))]
#[path = "multiply_tests.rs"]
mod tests;
