#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod cache;
mod configs;
mod error;
mod json;
mod model_package;
mod source;

pub use cache::cache_root;
pub use error::Error;
pub use model_package::ModelPackage;
