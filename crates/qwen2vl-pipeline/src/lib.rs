#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod annotation;
mod annotator;
mod answer;
mod batch;
mod boxes;
mod caches;
mod conversation;
mod error;
mod logprobs;
mod media;
mod memory_limit;
mod options;
mod processor;
mod render;
mod request;
mod score;
mod source;
mod stop;
mod structured;
mod video;
mod vision_cache;
mod written_out;

pub use annotation::{Alternative, Annotation, MediaInfo, ResultRow, RowError, Times};
pub use annotator::{Annotator, AnnotatorBuilder, open_package};
pub use boxes::{
    AnswerBox, AnswerBoxes, BoxEvent, BoxForms, BoxParser, Coco, Corners, FoundBox, MalformedBox,
    YoloClasses, draw_boxes, encode_png,
};
pub use caches::{CacheFolder, CacheUsage, Cleared};
pub use conversation::Conversation;
pub use error::Error;
pub use logprobs::{TokenLogprobs, TopLogprob};
pub use memory_limit::OnExceed;
pub use options::RequestOptions;
pub use processor::{ImagePlan, Prepared, Processor};
pub use qwen2vl_grammar::Format as AnswerFormat;
pub use qwen2vl_package::{
    Check, IrReport, ModelPackage, PackageKind, PackageReport, Parameter, Provenance, cache_root,
};
pub use qwen2vl_preprocess::{
    AlphaMode, AnimationInfo, DecodeLimits, DecodeOptions, ImageSize, PixelLimits, PixelValues, RgbImage,
};
pub use qwen2vl_runtime::{
    CancelToken, EarlyStopping, EngineKind, EngineStats, FinishReason, KvCachePrecision, Precision,
    available_memory_bytes, library,
};
pub use qwen2vl_tokenizer::{
    Content, ContentPart, ImagePart, Message, VideoPart, VideoSource, parse_messages,
};
pub use qwen2vl_types::{GridThw, TokenId};
pub use qwen2vl_video::{Ffmpeg, OnBroken};
pub use request::{ImageInput, ImageSizing, PromptInput, Request};
pub use schemars;
pub use score::{Labels, ScoreRow, ScoredLabel, Scores};
pub use source::count_pdf_pages;
pub use structured::Structured;
pub use video::{PreparedVideo, Sampling, VideoContent, VideoInput, VideoOptions, find_ffmpeg};
pub use vision_cache::VisionCacheOptions;

/// The snippets of the repository's README compile.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct RepositoryReadme;
