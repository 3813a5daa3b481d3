//! Attention of every row to every row, head by head, without a matrix of all scores: blocks of keys pass by, and what came
//! before is scaled down where a larger score appears (Milakov and Gimelshein, 2018; Dao et al., FlashAttention, 2022).
//!
//! Queries, keys, values and the weights of a block are integers of 13 bits, so that products and their sums within a block are
//! exact; everything else is f32. Queries lie in the lanes of vectors, so that none depends on the others.

#[cfg(target_arch = "x86_64")]
mod job;
#[cfg(target_arch = "x86_64")]
mod meet;
#[cfg(target_arch = "x86_64")]
mod quantized;
#[cfg(target_arch = "x86_64")]
mod queries;
#[cfg(target_arch = "x86_64")]
mod rows;

use crate::Scratch;
use crate::pool::Pool;
use crate::rotation::Rotation;

#[cfg(target_arch = "x86_64")]
pub(crate) use meet::define_meet;
#[cfg(target_arch = "x86_64")]
pub(crate) use quantized::{Block, LARGEST, Quantized};
#[cfg(target_arch = "x86_64")]
pub(crate) use queries::{Queries, VECTORS, WEIGHT, powers};

/// The widest head: as many products of two values fit 32 bits.
const WIDEST: usize = 128;

/// What widths of heads are multiples of.
const WIDTHS: usize = 16;

/// Attention of heads that lie side by side: `out = softmax(scale * q kᵀ) v`.
#[derive(Debug)]
pub struct Attention<'a> {
    /// Queries, keys and values, `[n, 3, heads, width]`.
    pub qkv: &'a [f32],
    /// How many there are.
    pub heads: usize,
    /// Values of a head.
    pub width: usize,
    /// What scores are multiplied with, above 0.
    pub scale: f32,
    /// What is done to queries and keys before.
    pub rotation: Option<Rotation<'a>>,
    /// `[n, heads, width]`.
    pub out: &'a mut [f32],
}

/// Whether [`attend`] can be used for heads of so many values: multiples of 16, up to 128.
pub fn is_head_supported(width: usize) -> bool {
    width.is_multiple_of(WIDTHS) && (WIDTHS..=WIDEST).contains(&width)
}

/// Computes attention. Results of heads with values that are not finite are NaN.
///
/// # Panics
///
/// If the lengths do not fit each other, or heads of this width or the processor are not supported.
pub fn attend(attention: Attention<'_>, scratch: &mut Scratch, pool: &Pool) {
    let &Attention { qkv, heads, width, rotation, ref out, .. } = &attention;
    assert!(is_head_supported(width) && heads > 0, "heads that are not supported");
    let n = out.len() / (heads * width);
    let turned = rotation.is_none_or(|rotation| rotation.width == width && rotation.fits(n, width));
    assert!(out.len() == n * heads * width && qkv.len() == 3 * out.len() && turned, "lengths do not fit");
    assert!(crate::is_supported(), "this processor has no AVX2");
    #[cfg(target_arch = "x86_64")]
    job::attend(crate::isa::Isa::best(), attention, scratch, pool);
}

#[cfg(all(test, target_arch = "x86_64"))]
#[path = "attention_tests.rs"]
mod tests;
