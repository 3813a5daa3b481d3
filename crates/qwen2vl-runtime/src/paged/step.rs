//! What goes through the model at once.

use qwen2vl_types::TokenId;

use super::blocks::BlockId;
use super::row::{Placed, Row};
use crate::Error;

/// A language model with a KV cache in blocks.
pub(crate) trait PagedModel: Send {
    /// Copies blocks, then runs the step; the logits of `step.logits_indices`, `[n, vocab_size]`.
    ///
    /// # Errors
    ///
    /// What inference reports.
    fn forward(&mut self, step: &Step) -> Result<&[f32], Error>;
}

/// Tokens of several sequences, one after the other, as the inputs of `PagedAttentionExtension` describe them: pieces of
/// prompts, and single tokens behind them.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct Step {
    /// Blocks to copy before, from the first to the second.
    pub copies: Vec<(BlockId, BlockId)>,
    /// `T` of them.
    pub ids: Vec<TokenId>,
    /// Of each axis `T`.
    pub positions: [Vec<i64>; 3],
    /// Embeddings that replace those of tokens; `start` counts the step's tokens.
    pub placed: Vec<Placed>,
    /// Of each sequence the tokens that the cache holds, once those of the sequences before it are written.
    pub past_lens: Vec<i32>,
    /// Of each sequence its first token, and `T` at the end.
    pub subsequence_begins: Vec<i32>,
    /// The sequences' blocks, one sequence after the other.
    pub block_indices: Vec<i32>,
    /// Of each sequence its first in `block_indices`, and their number at the end.
    pub block_indices_begins: Vec<i32>,
    /// Tokens whose logits are wanted.
    pub logits_indices: Vec<i64>,
}

impl Step {
    /// Adds the tokens `row.computed..row.computed + n`; the row's blocks have room for them. How many rows of logits it
    /// gives.
    pub(crate) fn push(&mut self, row: &Row, n: usize, block_tokens: usize) -> usize {
        let tokens = row.computed..row.computed + n;
        let first = self.ids.len();
        let placed = row.placed(tokens.clone());
        self.placed.extend(placed.map(|p| Placed { start: p.start - row.computed + first, ..p }));
        self.ids.extend(tokens.clone().map(|t| row.id(t)));
        for (axis, positions) in self.positions.iter_mut().enumerate() {
            positions.extend(tokens.clone().map(|t| row.position(axis, t)));
        }
        // The cache is written before it is read: of sequences on the same blocks, each sees those before it.
        let pieces = if row.in_tail() { 1 } else { n };
        for start in tokens.clone().step_by(pieces) {
            self.push_sequence(start, pieces, &row.blocks, block_tokens);
        }
        let (wanted, _) = row.wanted_of(n);
        self.logits_indices.extend(wanted.clone().map(|token| (first + token - row.computed) as i64));
        wanted.len()
    }

    fn push_sequence(&mut self, past: usize, n: usize, blocks: &[BlockId], block_tokens: usize) {
        if self.subsequence_begins.is_empty() {
            self.subsequence_begins.push(0);
            self.block_indices_begins.push(0);
        }
        let end = self.subsequence_begins.last().map_or(0, |end| *end) + n as i32;
        self.past_lens.push(past as i32);
        self.subsequence_begins.push(end);
        let blocks = &blocks[..(past + n).div_ceil(block_tokens)];
        self.block_indices.extend(blocks.iter().map(|id| *id as i32));
        self.block_indices_begins.push(self.block_indices.len() as i32);
    }

    /// The longest sequence after the step.
    pub(crate) fn max_context_len(&self) -> i32 {
        let lens = self.subsequence_begins.windows(2).map(|pair| pair[1] - pair[0]);
        lens.zip(&self.past_lens).map(|(n, past)| n + past).max().unwrap_or(0)
    }
}
