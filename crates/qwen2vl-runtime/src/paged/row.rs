//! One row of a conversation: its tokens, and the blocks that hold what was computed of them.

use std::ops::Range;
use std::sync::Arc;

use qwen2vl_types::TokenId;
use sha2::{Digest, Sha256};

use super::blocks::{BlockHash, BlockId, BlockPool};
use crate::{Error, ModelConfig, Prompt, VisionEmbeddings};

/// A prompt that outlives its request: rows share it, and it can be computed again.
#[derive(Debug, Default)]
pub(crate) struct PromptTokens {
    ids: Vec<TokenId>,
    positions: [Vec<i64>; 3],
    /// Where rows of embeddings stand in place of tokens, in order.
    placed: Vec<Placed>,
}

/// Rows `first_row..` of embeddings in place of the tokens `start..start + n`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Placed {
    pub start: usize,
    pub n: usize,
    pub embeddings: VisionEmbeddings,
    pub first_row: usize,
}

impl Placed {
    /// The part of it within some tokens.
    fn within(&self, tokens: &Range<usize>) -> Self {
        let start = self.start.max(tokens.start);
        let end = (self.start + self.n).min(tokens.end);
        Self {
            start,
            n: end.saturating_sub(start),
            embeddings: self.embeddings.clone(),
            first_row: self.first_row + start - self.start,
        }
    }
}

impl PromptTokens {
    /// A prompt whose first `past` tokens are those of `before`.
    pub(crate) fn new(
        prompt: &Prompt<'_>,
        past: usize,
        before: &Self,
        config: &ModelConfig,
    ) -> Result<Self, Error> {
        prompt.check(past, config)?;
        let mut placed: Vec<Placed> =
            before.placed.iter().filter(|p| p.start + p.n <= past).cloned().collect();
        let kinds = [(config.image_token_id, prompt.images), (config.video_token_id, prompt.videos)];
        for (pad, embeddings) in kinds {
            let mut pads = (past..prompt.input_ids.len()).filter(|i| prompt.input_ids[*i] == pad);
            for embeddings in embeddings {
                for (row, start) in pads.by_ref().take(embeddings.n_tokens()).enumerate() {
                    match placed.last_mut() {
                        Some(last) if row > 0 && last.start + last.n == start => last.n += 1,
                        _ => placed.push(Placed {
                            start,
                            n: 1,
                            embeddings: embeddings.clone(),
                            first_row: row,
                        }),
                    }
                }
            }
        }
        placed.sort_by_key(|p| p.start);
        Ok(Self { ids: prompt.input_ids.to_vec(), positions: prompt.position_ids.clone(), placed })
    }

    /// The embeddings in place of some of the tokens.
    fn placed(&self, tokens: Range<usize>) -> impl Iterator<Item = Placed> + '_ {
        let first = self.placed.partition_point(|p| p.start + p.n <= tokens.start);
        let end = tokens.end;
        self.placed[first..].iter().take_while(move |p| p.start < end).map(move |p| p.within(&tokens))
    }
}

/// Room for so many tokens is enough to get on, see [`Row::piece`].
pub(crate) const MIN_PIECE: usize = 3;

/// One row. `computed` of its tokens lie in `blocks`, in order; the others are still to be run.
#[derive(Debug, Default)]
pub(crate) struct Row {
    prompt: Arc<PromptTokens>,
    /// Tokens of the prompt that the row has: all, unless it was taken back.
    prompt_len: usize,
    /// What was generated: tokens and their positions, the same on all axes.
    tail: Vec<(TokenId, i64)>,
    pub(crate) computed: usize,
    /// Of how many tokens before the last one logits are wanted as well.
    pub(crate) wanted_before: usize,
    pub(crate) blocks: Vec<BlockId>,
    /// Of the tokens up to each one, as far as they were asked for.
    hashes: Vec<BlockHash>,
    /// Of the computed tokens those that were found and not run.
    pub(crate) found: usize,
}

impl Row {
    pub(crate) fn len(&self) -> usize {
        self.prompt_len + self.tail.len()
    }

    /// Tokens still to be run.
    pub(crate) fn pending(&self) -> usize {
        self.len() - self.computed
    }

    pub(crate) fn prompt(&self) -> &PromptTokens {
        &self.prompt
    }

    /// Puts a prompt in place of the row's own, of which it begins with all tokens.
    pub(crate) fn set_prompt(&mut self, prompt: PromptTokens) {
        self.prompt_len = prompt.ids.len();
        self.prompt = Arc::new(prompt);
        self.tail.clear();
    }

    /// Adds tokens on consecutive positions.
    pub(crate) fn push(&mut self, tokens: &[TokenId], first_position: i64) {
        self.tail.extend(tokens.iter().copied().zip(first_position..));
    }

    /// How many of the pending tokens go into a step that has room for `most`. Attention of one token rounds otherwise than
    /// that of several: of a prompt never one token alone is run (with room for [`MIN_PIECE`] there is always a piece), and
    /// tokens behind it are run each as a sequence of its own. So what is computed again, or together, is as before.
    pub(crate) fn piece(&self, most: usize) -> usize {
        if self.in_tail() {
            return most.min(self.pending());
        }
        let left = self.prompt_len - self.computed;
        match (left.saturating_sub(most), most) {
            (0, _) => left,
            (1, 0..=2) | (_, 0..=1) => 0,
            (1, _) => most - 1,
            _ => most,
        }
    }

    /// Whether what is pending is behind the prompt.
    pub(crate) fn in_tail(&self) -> bool {
        self.computed >= self.prompt_len
    }

    /// Rows of logits that its work leaves.
    pub(crate) fn wanted(&self) -> usize {
        1 + self.wanted_before
    }

    /// Those of the next `n` tokens whose logits are wanted, and the place of the first of them among all.
    pub(crate) fn wanted_of(&self, n: usize) -> (Range<usize>, usize) {
        let (first, end) = (self.len().saturating_sub(self.wanted()), self.computed + n);
        let start = self.computed.max(first).min(end);
        (start..end, start.saturating_sub(first))
    }

    /// Whether the next block may be one that is computed already: what is left has to give logits, see [`Row::piece`].
    pub(crate) fn may_find(&self, block_tokens: usize) -> bool {
        let end = self.computed + block_tokens;
        self.computed.is_multiple_of(block_tokens)
            && end + self.wanted() <= self.len()
            && end + 1 != self.prompt_len
    }

    /// Of how many tokens the next block may begin as another one does: of the prompt all but the last two, see
    /// [`Row::piece`], and what is left has to give logits.
    pub(crate) fn may_begin(&self, block_tokens: usize) -> usize {
        if !self.computed.is_multiple_of(block_tokens) {
            return 0;
        }
        let end = self.prompt_len.saturating_sub(2).min(self.len().saturating_sub(self.wanted()));
        end.saturating_sub(self.computed).min(block_tokens - 1)
    }

    /// Whether others may take over what its first `len` tokens left: where these end a block, or are of the prompt. What a token
    /// behind it leaves is not to the bit what the same token leaves in a prompt.
    pub(crate) fn gives(&self, len: usize, block_tokens: usize) -> bool {
        len <= self.prompt_len || len.is_multiple_of(block_tokens)
    }

    /// The same row once more.
    pub(crate) fn fork(&self, pool: &mut BlockPool) -> Self {
        self.blocks.iter().for_each(|id| pool.hold(*id));
        Self {
            prompt: Arc::clone(&self.prompt),
            prompt_len: self.prompt_len,
            tail: self.tail.clone(),
            computed: self.computed,
            wanted_before: 0,
            blocks: self.blocks.clone(),
            hashes: self.hashes.clone(),
            found: self.found,
        }
    }

    /// Forgets all but the first `len` tokens.
    pub(crate) fn truncate(&mut self, len: usize, pool: &mut BlockPool, block_tokens: usize) {
        if len >= self.len() {
            return;
        }
        self.tail.truncate(len.saturating_sub(self.prompt_len));
        self.prompt_len = self.prompt_len.min(len);
        self.computed = self.computed.min(len);
        self.hashes.truncate(len);
        self.release_unused(pool, block_tokens);
    }

    /// Gives the blocks back that hold nothing computed.
    pub(crate) fn release_unused(&mut self, pool: &mut BlockPool, block_tokens: usize) {
        let needed = self.computed.div_ceil(block_tokens);
        self.blocks.drain(needed.min(self.blocks.len())..).for_each(|id| pool.release(id));
    }

    /// Gives all blocks back; what they held has to be computed again.
    pub(crate) fn evict(&mut self, pool: &mut BlockPool) {
        // The last first: what prompts begin with stays longest.
        self.blocks.drain(..).rev().for_each(|id| pool.release(id));
        self.computed = 0;
    }

    /// The hash of the first `len` tokens.
    pub(crate) fn hash(&mut self, len: usize) -> BlockHash {
        while self.hashes.len() < len {
            let hash = self.hash_of(self.hashes.len(), self.hashes.last().copied().unwrap_or_default());
            self.hashes.push(hash);
        }
        len.checked_sub(1).map_or_else(BlockHash::default, |last| self.hashes[last])
    }

    /// Of a token, its positions, the embedding in its place, and of all that is before.
    fn hash_of(&self, token: usize, before: BlockHash) -> BlockHash {
        let mut hash = Sha256::new();
        hash.update(before);
        hash.update(self.id(token).to_le_bytes());
        for axis in 0..3 {
            hash.update(self.position(axis, token).to_le_bytes());
        }
        for placed in self.placed(token..token + 1) {
            let mut row = vec![0.0; placed.embeddings.hidden_size()];
            placed.embeddings.copy_row(placed.first_row, &mut row);
            let bytes: Vec<u8> = row.iter().flat_map(|value| value.to_le_bytes()).collect();
            hash.update(bytes);
        }
        let mut out = BlockHash::default();
        let n = out.len();
        out.copy_from_slice(&hash.finalize()[..n]);
        out
    }

    pub(crate) fn id(&self, token: usize) -> TokenId {
        match token.checked_sub(self.prompt_len) {
            Some(in_tail) => self.tail[in_tail].0,
            None => self.prompt.ids[token],
        }
    }

    pub(crate) fn position(&self, axis: usize, token: usize) -> i64 {
        match token.checked_sub(self.prompt_len) {
            Some(in_tail) => self.tail[in_tail].1,
            None => self.prompt.positions[axis][token],
        }
    }

    /// The embeddings in place of some of the tokens.
    pub(crate) fn placed(&self, tokens: Range<usize>) -> impl Iterator<Item = Placed> + '_ {
        let end = tokens.end.min(self.prompt_len);
        self.prompt.placed(tokens.start.min(end)..end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(prompt_len: usize, tail: usize) -> Row {
        let ids = vec![1; prompt_len];
        let prompt = PromptTokens { ids, ..Default::default() };
        let mut row = Row::default();
        row.set_prompt(prompt);
        row.push(&vec![2; tail], prompt_len as i64);
        row
    }

    fn pieces(mut row: Row, most: usize) -> Vec<usize> {
        let pieces = std::iter::from_fn(|| {
            let piece = row.piece(most);
            row.computed += piece;
            (piece > 0).then_some(piece)
        });
        pieces.collect()
    }

    #[test]
    fn prompts_come_in_pieces_of_two_or_more_and_answers_as_there_is_room() {
        for (prompt_len, tail, most, want) in [
            (1, 0, 8, &[1][..]),
            (8, 0, 8, &[8]),
            (9, 0, 8, &[7, 2]),
            (17, 6, 8, &[8, 7, 2, 6]),
            (4, 2, MIN_PIECE, &[2, 2, 2]),
            (7, 1, MIN_PIECE, &[3, 2, 2, 1]),
            (3, 0, 2, &[]),
            (2, 5, 2, &[2, 2, 2, 1]),
        ] {
            assert_eq!(pieces(row(prompt_len, tail), most), want, "{prompt_len} {tail} {most}");
        }
        for prompt_len in 2..200 {
            for most in MIN_PIECE..40 {
                let pieces = pieces(row(prompt_len, 0), most);
                assert_eq!(pieces.iter().sum::<usize>(), prompt_len);
                assert!(pieces.iter().all(|n| (2..=most).contains(n)), "{prompt_len} {most} {pieces:?}");
            }
        }
    }

    #[test]
    fn logits_are_wanted_of_the_last_tokens_in_whatever_pieces_they_come() {
        let mut row = row(4, 6);
        row.wanted_before = 2;
        for (computed, n, want) in
            [(0, 10, (7..10, 0)), (0, 4, (4..4, 0)), (4, 4, (7..8, 0)), (8, 1, (8..9, 1)), (9, 1, (9..10, 2))]
        {
            row.computed = computed;
            let (tokens, place) = row.wanted_of(n);
            assert_eq!((tokens.clone(), if tokens.is_empty() { 0 } else { place }), want);
        }
    }
}
