//! One error type for a request, its cause kept.

use std::path::PathBuf;

/// Errors of the pipeline; each ends one request and no other.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The model package cannot be used.
    #[error(transparent)]
    Package(#[from] qwen2vl_package::Error),
    /// No model was given to the builder.
    #[error("no model given: call model() or package() on the builder")]
    NoModel,
    /// A file cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// An image cannot be decoded or does not fit the limits.
    #[error("{input}: {source}")]
    Image {
        /// The file's path, or which image of the request.
        input: String,
        /// The reason.
        source: qwen2vl_preprocess::Error,
    },
    /// A video file cannot be read or decoded.
    #[error("{input}: {source}")]
    Video {
        /// The file's path.
        input: String,
        /// The reason.
        source: qwen2vl_video::Error,
    },
    /// Prompt, template or placeholders are not right.
    #[error(transparent)]
    Prompt(#[from] qwen2vl_tokenizer::Error),
    /// A written-out prompt without a placeholder, where one was asked for strictly.
    #[error("the prompt has no {placeholder}, but the request has {given} {kind}s")]
    NoPlaceholder {
        /// The special token that stands for one.
        placeholder: &'static str,
        /// `image` or `video`.
        kind: &'static str,
        /// Inputs of the request.
        given: usize,
    },
    /// Messages name fewer or more media than the request has.
    #[error("the messages have {placeholders} {kind}s without a source, but the request has {given} {kind}s")]
    Media {
        /// `image` or `video`.
        kind: &'static str,
        /// Parts of the messages that name no source.
        placeholders: usize,
        /// Inputs of the request.
        given: usize,
    },
    /// An option that there is not.
    #[error("there is no option {name}{}", nearest.map(|n| format!(", did you mean {n}?")).unwrap_or_default())]
    UnknownOption {
        /// The name given.
        name: String,
        /// The name that is nearest, if one is near.
        nearest: Option<&'static str>,
    },
    /// The value of an option is of another type, or given twice.
    #[error("option {name}: {reason}")]
    OptionValue {
        /// The option as it was named.
        name: String,
        /// What is wrong with the value.
        reason: String,
    },
    /// A verbatim prompt as a turn.
    #[error(
        "a prompt with its template written out is no turn of a conversation: ask a question or give messages"
    )]
    Turn,
    /// An input that is not read.
    #[error("{input}: {reason}")]
    Source {
        /// The input as given.
        input: String,
        /// Why it is not read, and what to do.
        reason: String,
    },
    /// A format that cannot be kept.
    #[error(transparent)]
    Format(#[from] qwen2vl_grammar::Error),
    /// An answer that is not a value of the type asked for.
    #[error("the answer {answer:?} is no value of the type: {source}")]
    Value {
        /// The answer.
        answer: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The request would take more than [`crate::AnnotatorBuilder::memory_limit`] allows.
    #[error(
        "this needs about {} MiB of memory and the limit is {} MiB; raise the limit, lower max_pixels, or ask with fewer \
         images", needed_bytes.div_ceil(1 << 20), limit_bytes >> 20
    )]
    MemoryLimit {
        /// The predicted peak of the process.
        needed_bytes: u64,
        /// The limit.
        limit_bytes: u64,
    },
    /// Inference.
    #[error(transparent)]
    Runtime(#[from] qwen2vl_runtime::Error),
}

impl Error {
    /// A short stable name for rows and programs: `io`, `image`, `video`, `prompt`, `options`, `format`, `context`, `memory`,
    /// `openvino`, `model`.
    pub fn kind(&self) -> &'static str {
        use qwen2vl_runtime::Error as Runtime;
        match self {
            Self::Io { .. } | Self::Source { .. } => "io",
            Self::Image { .. } => "image",
            Self::Video { source: qwen2vl_video::Error::Io(_), .. } => "io",
            Self::Video { .. } => "video",
            Self::Prompt(_) | Self::NoPlaceholder { .. } | Self::Media { .. } | Self::Turn => "prompt",
            Self::UnknownOption { .. } | Self::OptionValue { .. } => "options",
            Self::Format(_) | Self::Value { .. } => "format",
            Self::Package(_) | Self::NoModel => "model",
            Self::MemoryLimit { .. } => "memory",
            Self::Runtime(error) => match error {
                Runtime::InvalidOption { .. } | Runtime::NothingAllowed { .. } => "options",
                Runtime::ContextExceeded { .. }
                | Runtime::InputTooLong { .. }
                | Runtime::LabelTooLong { .. } => "context",
                Runtime::Constraint { .. } => "format",
                Runtime::NotEnoughMemory { .. } => "memory",
                Runtime::ModelFile { .. } | Runtime::ModelMismatch { .. } => "model",
                Runtime::EmptyPrompt
                | Runtime::Placeholders { .. }
                | Runtime::Positions { .. }
                | Runtime::TokenId { .. } => "prompt",
                _ => "openvino",
            },
        }
    }
}
