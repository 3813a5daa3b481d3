#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod beam_search;
mod cancel;
mod config;
mod engine;
mod error;
mod generate;
mod generation_config;
mod language;
pub mod library;
mod logits;
mod model;
mod native;
mod paged;
mod plan;
mod prompt_lookup;
mod sampler;
mod score;
mod sequences;
mod vision;

pub use cancel::CancelToken;
pub use config::{
    EngineKind, EngineOptions, KvCachePrecision, ModelConfig, ModelFiles, Precision, TextConfig, VisionConfig,
};
pub use engine::Engine;
pub use error::Error;
pub use generate::{FinishReason, Generation, OnToken, generate};
pub use generation_config::{EarlyStopping, GenerationConfig};
pub use logits::{Logprobs, TokenLogprob};
pub use model::{Constraint, LanguageSession, Prompt};
pub use paged::{Bulk, EngineStats};
pub use plan::{MemoryPlan, Phase, WeightBytes, available_memory_bytes};
pub use sampler::Sampler;
pub use score::{LabelScore, LabelScores, ScoreOptions, score};
pub use sequences::generate_all;
pub use vision::{EmbeddingType, VisionEmbeddings};
