//! What can be wrong with prompts, templates and tokenizers.

use std::path::PathBuf;

/// Errors of the tokenizer layer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The tokenizer file cannot be read.
    #[error("tokenizer {}: {reason}", path.display())]
    TokenizerFile {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The tokenizer's content is not what Qwen2-VL has.
    #[error("the tokenizer cannot be used: {reason}")]
    Tokenizer {
        /// Why.
        reason: String,
    },
    /// The chat template cannot be parsed.
    #[error("the chat template cannot be parsed: {reason}")]
    Template {
        /// The template engine's reason, with the line.
        reason: String,
    },
    /// The chat template refused the conversation.
    #[error("the chat template failed: {reason}")]
    Render {
        /// The template engine's reason.
        reason: String,
    },
    /// A conversation is not in the expected form.
    #[error("{place}: {reason}")]
    Message {
        /// Which message and part, from 0: `messages[1].content[0]`.
        place: String,
        /// What was found and what is expected.
        reason: String,
    },
    /// The prompt has another number of placeholders than there are images or videos.
    #[error("the prompt has {placeholders} {kind} placeholders, but there are {given} {kind}s")]
    PlaceholderCount {
        /// `image` or `video`.
        kind: &'static str,
        /// Placeholders in the prompt.
        placeholders: usize,
        /// Images or videos given.
        given: usize,
    },
    /// Expanded placeholders and grids disagree.
    #[error("the ids have {placeholders} {kind} placeholder tokens, but the {kind} grids need {needed}")]
    PlaceholderTokens {
        /// `image` or `video`.
        kind: &'static str,
        /// Placeholder tokens in the ids.
        placeholders: usize,
        /// Tokens that all grids of this kind need.
        needed: usize,
    },
    /// The placeholder tokens of one image or video do not stand in a row.
    #[error("the {kind} at token {at} needs {needed} placeholder tokens in a row, there are {found}")]
    PlaceholderRun {
        /// `image` or `video`.
        kind: &'static str,
        /// Where its placeholders should start.
        at: usize,
        /// Tokens that its grid needs.
        needed: usize,
        /// Placeholder tokens there.
        found: usize,
    },
    /// A prompt longer than any model takes.
    #[error("the prompt needs {tokens} tokens, more than the {limit} that are ever built")]
    TooLong {
        /// Tokens needed.
        tokens: usize,
        /// The limit.
        limit: usize,
    },
}
