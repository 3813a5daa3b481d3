#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod config;

pub use config::{EngineOptions, GenerationConfig, ModelConfig, ModelFiles, Precision, TextConfig, VisionConfig};
