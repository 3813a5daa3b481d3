//! Log-probabilities of an answer's tokens with their texts, as OpenAI's API has them.

use qwen2vl_runtime::{Logprobs, TokenLogprob};
use qwen2vl_tokenizer::Tokenizer;
use qwen2vl_types::TokenId;
use serde::Serialize;

/// A token of the answer and how probable the model found it, before any option changed the distribution.
///
/// Serialized as `{"id", "token", "logprob", "top": [{"id", "token", "logprob"}, …]}`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct TokenLogprobs {
    /// The token.
    #[serde(flatten)]
    pub chosen: TopLogprob,
    /// The most probable tokens in its place, those most probable first.
    pub top: Vec<TopLogprob>,
}

/// A token and how probable the model found it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct TopLogprob {
    /// Its id.
    pub id: TokenId,
    /// Its text; part of a character is U+FFFD.
    pub token: String,
    /// Natural logarithm of its probability.
    pub logprob: f32,
}

/// Puts the texts to the ids.
pub(crate) fn with_texts(logprobs: &Logprobs, tokenizer: &Tokenizer) -> Vec<TokenLogprobs> {
    let with_text = |one: &TokenLogprob| TopLogprob {
        id: one.token,
        token: tokenizer.detokenize(&[one.token], false),
        logprob: one.logprob,
    };
    let row = |(chosen, top): (TokenLogprob, &[TokenLogprob])| TokenLogprobs {
        chosen: with_text(&chosen),
        top: top.iter().map(with_text).collect(),
    };
    logprobs.iter().map(row).collect()
}
