#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub mod checksum;
mod error;
pub mod ml_metadata;
pub mod object_file;
pub mod object_stream;
pub mod sequence_file;

pub use error::{Error, Reason};
