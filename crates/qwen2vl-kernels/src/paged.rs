//! Attention of rows to what a KV cache holds of their sequences, themselves included: a language model's, with a cache in
//! blocks that sequences share.
//!
//! Keys lie with tokens in the lanes of vectors, values with a head's values, so that neither is turned, and what is kept in few
//! bits becomes f32 once for several queries. Everything is f32, in an order that only positions decide: a row's result depends
//! neither on the rows beside it, nor on which of its tokens were written when, nor on the instruction set, to the bit.

mod cache;
#[cfg(target_arch = "x86_64")]
mod job;
#[cfg(target_arch = "x86_64")]
mod meet;
mod sequences;
#[cfg(target_arch = "x86_64")]
mod tile;
#[cfg(target_arch = "x86_64")]
mod write;

pub use cache::{BLOCK_TOKENS, CacheError, CacheShape, KvCache, KvPrecision};
pub use sequences::{Sequences, SequencesError};

#[cfg(target_arch = "x86_64")]
pub(crate) use cache::{Element, Numbers, Part};
#[cfg(target_arch = "x86_64")]
pub(crate) use meet::define_paged_meet;
#[cfg(target_arch = "x86_64")]
pub(crate) use tile::{Met, SPAN, Scores, Tile};

use crate::GROUP;
use crate::pool::Pool;

/// The widest head.
pub(crate) const WIDEST: usize = 128;

/// Attention of rows whose keys and values are written into the cache before: `out = softmax(scale * q kᵀ) v`.
#[derive(Debug)]
pub struct PagedAttention<'a> {
    /// `[n, heads, width]`, rotated.
    pub queries: &'a [f32],
    /// `[n, kv_heads, width]`, rotated.
    pub keys: &'a [f32],
    /// `[n, kv_heads, width]`.
    pub values: &'a [f32],
    /// The first of the rows among the tokens of all sequences.
    pub first: usize,
    /// Whose part of the cache it is.
    pub layer: usize,
    /// Heads of queries, a multiple of those of keys.
    pub heads: usize,
    /// What scores are multiplied with.
    pub scale: f32,
    /// `[n, heads, width]`.
    pub out: &'a mut [f32],
}

/// Whether [`attend_paged`] can be used for heads of so many values: multiples of 32, up to 128.
pub fn is_paged_head_supported(width: usize) -> bool {
    width.is_multiple_of(GROUP) && (GROUP..=WIDEST).contains(&width)
}

/// Writes the rows' keys and values to where they belong in the cache, then lets each row meet all tokens of its sequence up to
/// itself. Results that come from numbers that are not finite are not finite either.
///
/// # Panics
///
/// If the lengths do not fit each other, a sequence has blocks that the cache has not, or the processor is not supported.
pub fn attend_paged(attention: PagedAttention<'_>, cache: &mut KvCache, sequences: &Sequences, pool: &Pool) {
    let &PagedAttention { queries, keys, values, first, layer, heads, ref out, .. } = &attention;
    let shape = *cache.shape();
    let row = heads * shape.width;
    assert!(heads > 0 && heads.is_multiple_of(shape.heads) && layer < shape.layers, "another cache");
    let n = out.len() / row;
    let kv = n * shape.heads * shape.width;
    assert!(out.len() == n * row && queries.len() == out.len(), "lengths do not fit");
    assert!(keys.len() == kv && values.len() == kv, "lengths do not fit");
    assert!(first + n <= sequences.tokens(), "more rows than the sequences have");
    assert!(sequences.blocks_needed() <= shape.blocks, "blocks that the cache has not");
    assert!(crate::is_supported(), "this processor has no AVX2");
    #[cfg(target_arch = "x86_64")]
    job::attend(crate::isa::Isa::best(), attention, cache, sequences, pool);
}

#[cfg(all(test, target_arch = "x86_64"))]
#[path = "paged_tests.rs"]
mod tests;
