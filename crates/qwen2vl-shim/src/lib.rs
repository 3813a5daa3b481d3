#![doc = include_str!("../README.md")]

mod build;
mod callbacks;
mod error;
mod ffi;
mod kept;
mod kernels;
mod model;
mod port;
mod request;
mod shim;
mod table;

pub use error::Error;
pub use kernels::Kernels;
pub use model::Model;
pub use port::{Element, Port};
pub use qwen2vl_kernels::{
    BLOCK_TOKENS, CacheError, CacheShape, KvCache, KvPrecision, Sequences, SequencesError,
};
pub use request::{Request, Value};
pub use shim::{CompileOptions, Shim};
pub use table::Table;
