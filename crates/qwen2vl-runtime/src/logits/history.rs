//! What an answer is preceded by: the prompt and the tokens chosen so far, as the processors need them.

use std::collections::HashMap;

use qwen2vl_types::TokenId;

/// The tokens of one prompt and its answer.
#[derive(Debug, Clone)]
pub(crate) struct History {
    tokens: Vec<TokenId>,
    prompt_tokens: usize,
    /// How often the answer has each token of prompt and answer, so 0 for one that only the prompt has.
    counts: HashMap<TokenId, u32>,
}

impl History {
    /// The history of an answer that has no token yet.
    pub fn new(prompt: &[TokenId]) -> Self {
        Self {
            tokens: prompt.to_vec(),
            prompt_tokens: prompt.len(),
            counts: prompt.iter().map(|id| (*id, 0)).collect(),
        }
    }

    /// Adds a token to the answer.
    pub fn push(&mut self, token: TokenId) {
        self.tokens.push(token);
        *self.counts.entry(token).or_insert(0) += 1;
    }

    /// Prompt and answer.
    pub fn tokens(&self) -> &[TokenId] {
        &self.tokens
    }

    /// Tokens of the answer.
    pub fn n_new_tokens(&self) -> usize {
        self.tokens.len() - self.prompt_tokens
    }

    /// Each token of prompt and answer once, with how often the answer has it.
    pub fn counts(&self) -> impl Iterator<Item = (TokenId, u32)> {
        self.counts.iter().map(|(id, count)| (*id, *count))
    }
}
