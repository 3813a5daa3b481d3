//! A limit on memory, as flags.

use clap::{Args, ValueEnum};
use qwen2vl_pipeline::{AnnotatorBuilder, OnExceed, Processor};

use super::cache::parse_bytes;

#[derive(Debug, Args)]
pub struct MemoryArgs {
    /// The most memory that `qwen2vl plan` may predict for a request, the model included, as 3GiB; caches and requests
    /// answered at the same time come on top. With a limit, image and answer have memory one after the other,
    /// the model's weights included [default: none]
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes, env = "QWEN2VL_MEMORY_LIMIT")]
    pub memory_limit: Option<u64>,
    /// What becomes of a request above: lower gives its images fewer pixels, with a warning; refuse fails it
    #[arg(long, value_enum, default_value_t = OnExceedArg::Lower, env = "QWEN2VL_ON_MEMORY_LIMIT")]
    pub on_memory_limit: OnExceedArg,
}

impl MemoryArgs {
    /// Puts them into a builder.
    pub fn apply(&self, builder: AnnotatorBuilder) -> AnnotatorBuilder {
        match self.memory_limit {
            Some(bytes) => builder.memory_limit(bytes, self.on_memory_limit.into()),
            None => builder,
        }
    }

    /// Puts them into a processor.
    pub fn limit(&self, processor: Processor) -> Processor {
        match self.memory_limit {
            Some(bytes) => processor.memory_limit(bytes, self.on_memory_limit.into()),
            None => processor,
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum OnExceedArg {
    /// Fewer pixels.
    Lower,
    /// An error.
    Refuse,
}

impl From<OnExceedArg> for OnExceed {
    fn from(arg: OnExceedArg) -> Self {
        match arg {
            OnExceedArg::Lower => Self::Lower,
            OnExceedArg::Refuse => Self::Refuse,
        }
    }
}
