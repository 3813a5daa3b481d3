#![doc = include_str!("../README.md")]

mod activations;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod multiply;
mod pool;
mod weights;

pub use multiply::{Product, RmsNorm, Rows, Scratch, is_supported, multiply};
pub use pool::Pool;
pub use weights::{Kind, Weights, WeightsError};

/// Values that are computed together: one step of the kernels.
pub(crate) const BLOCK: usize = 128;
