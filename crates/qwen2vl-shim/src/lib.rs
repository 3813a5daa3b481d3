#![doc = include_str!("../README.md")]

mod build;
mod error;
mod ffi;
mod kept;
mod model;
mod port;
mod products;
mod request;
mod shim;
mod table;

pub use error::Error;
pub use model::Model;
pub use port::{Element, Port};
pub use products::Kernels;
pub use request::{Request, Value};
pub use shim::{CompileOptions, Shim};
pub use table::Table;
