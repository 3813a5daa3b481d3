//! What is wrong with a format.

use qwen2vl_types::TokenId;

/// Errors of formats; each is known before an image is read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The tokenizer cannot be used for formats.
    #[error("the tokenizer cannot be used for formats: {reason}")]
    Vocabulary {
        /// What is wrong with it.
        reason: String,
    },
    /// A JSON schema that is none, or says what cannot be kept to.
    #[error("the JSON schema at {at}: {reason}")]
    Schema {
        /// Where in the schema, as a JSON pointer in a fragment: `#/properties/name`.
        at: String,
        /// What is wrong there.
        reason: String,
    },
    /// A format that no answer can have.
    #[error("no answer can have this {format}: {reason}")]
    Impossible {
        /// Which kind of format.
        format: &'static str,
        /// Why not.
        reason: String,
    },
    /// A regex that cannot be read.
    #[error("the regex {regex:?}: {reason}")]
    Regex {
        /// The regex.
        regex: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A grammar that cannot be read.
    #[error("the grammar: {reason}")]
    Lark {
        /// What is wrong with it, and where.
        reason: String,
    },
    /// A list without choices.
    #[error("the list of choices is empty: give at least one")]
    NoChoices,
    /// A choice that cannot be made.
    #[error("choice {number} is {reason}")]
    Choice {
        /// Which one, counted from 1.
        number: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// A format that is larger than what is read.
    #[error("the {what} has {got}, the limit is {limit}")]
    TooLarge {
        /// What is too large, and in which unit.
        what: &'static str,
        /// How much was given.
        got: usize,
        /// How much is allowed.
        limit: usize,
    },
    /// Fewer tokens than the shortest answer has.
    #[error(
        "max_new_tokens is {max_new_tokens}, but the shortest answer of this format that was found has {needed} tokens: \
         allow at least {needed}"
    )]
    Budget {
        /// Tokens of the shortest answer that was found.
        needed: usize,
        /// Tokens that were allowed.
        max_new_tokens: usize,
    },
    /// A stop token that answers are made of.
    #[error(
        "stop token {id} is a piece of text, which would end an answer before its format allows: use special tokens only"
    )]
    StopToken {
        /// The token.
        id: TokenId,
    },
}
