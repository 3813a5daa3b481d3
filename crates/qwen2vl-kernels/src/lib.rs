#![doc = include_str!("../README.md")]

mod activations;
mod attention;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod finish;
#[cfg(target_arch = "x86_64")]
mod isa;
#[cfg(target_arch = "x86_64")]
mod job;
mod multiply;
mod paged;
#[cfg(target_arch = "x86_64")]
mod panel;
mod pool;
mod product;
#[cfg(target_arch = "x86_64")]
mod quantize;
mod rotation;
mod weights;

pub use attention::{Attention, attend, is_head_supported};
pub use multiply::{Scratch, free_rows, is_supported, multiply};
pub use paged::{
    BLOCK_TOKENS, CacheError, CacheShape, KvCache, KvPrecision, PagedAttention, Sequences, SequencesError,
    attend_paged, is_paged_head_supported,
};
pub use pool::Pool;
pub use product::{Norm, Product, Rows};
pub use rotation::Rotation;
pub use weights::{Kind, Weights, WeightsError};

/// Activations that are quantized together, and whose products are added up as integers.
pub(crate) const GROUP: usize = 32;

/// The least values of a row of weights, and what groups of them are multiples of, if no smaller.
pub(crate) const BLOCK: usize = 128;
