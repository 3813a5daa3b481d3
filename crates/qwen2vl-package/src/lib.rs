#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod cache;
mod configs;
mod error;
mod export;
mod files;
mod ir;
mod json;
mod layout;
mod model_package;
mod parameters;
mod provenance;
mod report;
mod spark;
mod verify;

pub use cache::{cache_root, remove_unpacked, unpacked_packages};
pub use error::Error;
pub use model_package::{ModelPackage, unpack_zip};
pub use parameters::Parameter;
pub use provenance::{PackageKind, Pipeline, Provenance, SparkProvenance};
pub use report::{IrReport, PackageReport, TokenizerReport};
pub use verify::Check;
