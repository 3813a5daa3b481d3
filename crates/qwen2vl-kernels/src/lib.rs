#![doc = include_str!("../README.md")]

mod activations;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod multiply;
#[cfg(target_arch = "x86_64")]
mod panel;
mod pool;
mod product;
mod weights;

pub use multiply::{Scratch, is_supported, multiply};
pub use pool::Pool;
pub use product::{Product, RmsNorm, Rows};
pub use weights::{Kind, Weights, WeightsError};

/// Values that are computed together: one step of the kernels.
pub(crate) const BLOCK: usize = 128;
