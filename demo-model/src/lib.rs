#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod samples;

pub use samples::{SAMPLES, Sample};

/// The model's name, as in rows and in the cache.
pub const NAME: &str = "demo-model-int4";

/// The OpenVINO INT4 export, a zip of 3.8 MB that unpacks to 53 MB.
pub const INT4_ZIP: &[u8] = include_bytes!("../demo-model-int4-ov.zip");
