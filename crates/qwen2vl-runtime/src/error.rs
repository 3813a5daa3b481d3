//! What can go wrong below the pipeline.

use std::borrow::Cow;
use std::path::PathBuf;

/// Errors of the runtime layer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No OpenVINO library was found.
    #[error(
        "no OpenVINO library found; looked at {searched}; run `cargo xtask demo` once to fetch it, install OpenVINO \
         2025.1 or newer, or name it by QWEN2VL_OPENVINO"
    )]
    LibraryNotFound {
        /// The places that were searched, in order.
        searched: String,
    },
    /// A library was found, or named, that cannot be used.
    #[error("the OpenVINO library {} cannot be used: {reason}", path.display())]
    LibraryUnusable {
        /// The library.
        path: PathBuf,
        /// Why, in the loader's words.
        reason: String,
    },
    /// OpenVINO reported a failure.
    #[error("OpenVINO failed to {action}: {message}")]
    OpenVino {
        /// What was being done.
        action: String,
        /// OpenVINO's message.
        message: String,
    },
    /// The shim that the paged engine needs.
    #[error(transparent)]
    Shim(#[from] qwen2vl_shim::Error),
    /// A file of the model cannot be read.
    #[error("model file {}: {reason}", path.display())]
    ModelFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A model's inputs or outputs do not fit its config or the four-model layout.
    #[error("{model}: {detail}")]
    ModelMismatch {
        /// Which of the four models.
        model: &'static str,
        /// What was found and what was expected.
        detail: String,
    },
    /// The pixel values do not fit their grid.
    #[error("pixel_values have {got} values, grid {grid} of {patch_len}-value patches needs {want}")]
    PixelValues {
        /// Values given.
        got: usize,
        /// Values needed.
        want: usize,
        /// The grid, `[t, h, w]`.
        grid: qwen2vl_types::GridThw,
        /// Values per patch.
        patch_len: usize,
    },
    /// The prompt has another number of placeholder tokens than there are vision embeddings.
    #[error(
        "the prompt has {placeholders} {kind} placeholder tokens, but the {kind} embeddings have {rows} rows"
    )]
    Placeholders {
        /// `image` or `video`.
        kind: &'static str,
        /// Placeholder tokens in the prompt.
        placeholders: usize,
        /// Rows of the embeddings.
        rows: usize,
    },
    /// Ids and positions have different lengths.
    #[error("the prompt has {ids} token ids but {positions} positions")]
    Positions {
        /// Token ids.
        ids: usize,
        /// Positions on the axis that differs.
        positions: usize,
    },
    /// A prompt without tokens.
    #[error("the prompt is empty: give at least one token")]
    EmptyPrompt,
    /// A session that holds all of the prompt already, or more.
    #[error(
        "the prompt has {prompt_tokens} tokens and the session holds {past_tokens}: nothing is left to run"
    )]
    NothingToRun {
        /// Tokens of the prompt.
        prompt_tokens: usize,
        /// Tokens of the session.
        past_tokens: usize,
    },
    /// Rows that do not fit the session or their tokens.
    #[error("{tokens} tokens cannot continue rows {parents:?} of a session with {rows} rows")]
    Rows {
        /// The rows to continue.
        parents: Vec<usize>,
        /// Tokens given, the same number for each row.
        tokens: usize,
        /// Rows of the session.
        rows: usize,
    },
    /// Rows that do not fit the KV cache even when all of it is theirs.
    #[error("{tokens} tokens do not fit the KV cache, which has room for {limit}; raise kv_cache_bytes")]
    CacheTooSmall {
        /// Tokens of all rows.
        tokens: usize,
        /// Tokens that the cache holds.
        limit: usize,
    },
    /// A constraint cannot be kept.
    #[error("the answer cannot keep to its format: {reason}")]
    Constraint {
        /// Why.
        reason: String,
    },
    /// A token id outside the embedding table.
    #[error("token id {id} is outside the model's vocabulary of {vocab_size}")]
    TokenId {
        /// The id.
        id: u32,
        /// Rows of the embedding table.
        vocab_size: usize,
    },
    /// The prompt leaves no room for an answer.
    #[error(
        "the prompt has {prompt_tokens} tokens, the model's context holds {limit}; lower max_pixels, or use fewer \
         images or less text"
    )]
    ContextExceeded {
        /// Tokens of the prompt.
        prompt_tokens: usize,
        /// Tokens that prompt and answer may have together.
        limit: usize,
    },
    /// A label does not fit behind the prompt.
    #[error(
        "the prompt has {prompt_tokens} tokens and the longest label {label_tokens}, the model's context holds {limit}; \
         shorten the label, lower max_pixels, or use less text"
    )]
    LabelTooLong {
        /// Tokens of the prompt.
        prompt_tokens: usize,
        /// Tokens of the longest label.
        label_tokens: usize,
        /// Tokens that prompt and label may have together.
        limit: usize,
    },
    /// The prompt has more tokens than was allowed.
    #[error(
        "the prompt has {prompt_tokens} tokens, max_input_tokens allows {limit}; raise it, lower max_pixels, or use \
         fewer images or less text"
    )]
    InputTooLong {
        /// Tokens of the prompt, those of images and videos included.
        prompt_tokens: usize,
        /// The limit that was set.
        limit: usize,
    },
    /// A generation option outside its range.
    #[error("{name} is {value}, allowed is {allowed}")]
    InvalidOption {
        /// The option's name.
        name: &'static str,
        /// What was given.
        value: String,
        /// What is allowed.
        allowed: Cow<'static, str>,
    },
    /// The machine has less free memory than the request needs.
    #[error(
        "this needs about {} MiB more memory and {} MiB are free; lower max_pixels", needed_bytes >> 20,
        available_bytes >> 20
    )]
    NotEnoughMemory {
        /// Bytes needed beyond what the loaded model holds.
        needed_bytes: u64,
        /// Bytes free.
        available_bytes: u64,
    },
    /// Somebody cancelled it.
    #[error("cancelled before it was done")]
    Cancelled,
    /// The model returned no finite logit.
    #[error(
        "the model returned no finite logit at token {step} of the answer; the weights or the input are damaged"
    )]
    Numerical {
        /// Tokens generated before.
        step: usize,
    },
    /// The options exclude every token.
    #[error(
        "the options leave no token to choose at token {step} of the answer: suppress_tokens, no_repeat_ngram_size and \
         min_new_tokens exclude all of them"
    )]
    NothingAllowed {
        /// Tokens generated before.
        step: usize,
    },
}
