#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod annotation;
mod assembler;
mod bytes;
mod error;
mod frame;
mod image;
mod light;
mod parameters;
mod pipeline;
mod question;
mod read;
mod saved;
mod schema;
mod setters;
mod transformer;

pub use annotation::{Annotation, AnnotationImage, DOCUMENT, IMAGE, utf16_end};
pub use assembler::ImageAssembler;
pub use error::Error;
pub use frame::{Cell, Column, DataFrame};
pub use image::{MODE_BGR, MODE_BGRA, MODE_GREY, MODE_UNDEFINED, PixelKind, SparkImage, is_encoded_image};
pub use light::{LightCell, LightPipeline, LightRow};
pub use parameters::{Defaults, PARAMETERS, PYTHON_ONLY, Parameter, ParameterKind, Value};
pub use pipeline::{Pipeline, PipelineModel, Stage};
pub use question::{DEFAULT_PROMPT, DEFAULT_QUESTION};
pub use schema::DataType;
pub use transformer::{DEFAULT_LANG, DEFAULT_PRETRAINED_NAME, Qwen2VLTransformer};

/// The snippets of the guide compile.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/spark-nlp.md")]
struct Guide;
