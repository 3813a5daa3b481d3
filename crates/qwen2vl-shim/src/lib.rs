#![doc = include_str!("../README.md")]

mod build;
mod error;
mod ffi;
mod port;
mod products;

pub use error::Error;
pub use ffi::{CompileOptions, Model, Request, Shim, Table, Value};
pub use port::{Element, Port};
pub use products::Kernels;
