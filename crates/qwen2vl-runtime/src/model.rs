//! The waist of the crate: what the generation loops need of a language model, so that they run on a scripted one, and
//! what may narrow its choice.

use qwen2vl_types::TokenId;

use crate::{CancelToken, Error, ModelConfig, VisionEmbeddings};

/// A prompt ready for the model: ids with expanded placeholders, positions, and the rows that replace placeholders.
#[derive(Debug, Clone, Copy)]
pub struct Prompt<'a> {
    /// Token ids, `S` of them.
    pub input_ids: &'a [TokenId],
    /// M-RoPE positions of temporal, height and width axis, `S` each.
    pub position_ids: &'a [Vec<i64>; 3],
    /// What is added to the number of past tokens for the position of a generated one.
    pub rope_delta: i64,
    /// Embeddings that replace the image placeholders, in order; only of those that the session does not hold yet.
    pub images: &'a [VisionEmbeddings],
    /// Embeddings that replace the video placeholders, in order; only of those that the session does not hold yet.
    pub videos: &'a [VisionEmbeddings],
}

impl Prompt<'_> {
    /// Whether it fits the model and a session that holds its first `past_tokens`.
    pub(crate) fn check(&self, past_tokens: usize, config: &ModelConfig) -> Result<(), Error> {
        let ids = self.input_ids.len();
        if past_tokens >= ids {
            return Err(Error::NothingToRun { prompt_tokens: ids, past_tokens });
        }
        if let Some(axis) = self.position_ids.iter().find(|axis| axis.len() != ids) {
            return Err(Error::Positions { ids, positions: axis.len() });
        }
        if let Some(&id) = self.input_ids.iter().find(|&&id| id as usize >= config.vocab_size) {
            return Err(Error::TokenId { id, vocab_size: config.vocab_size });
        }
        let kinds =
            [("image", config.image_token_id, self.images), ("video", config.video_token_id, self.videos)];
        for (kind, pad, embeddings) in kinds {
            let placeholders = self.input_ids[past_tokens..].iter().filter(|&&id| id == pad).count();
            let rows = embeddings.iter().map(VisionEmbeddings::n_tokens).sum();
            if placeholders != rows {
                return Err(Error::Placeholders { kind, placeholders, rows });
            }
        }
        Ok(())
    }
}

/// One conversation with a language model: its KV cache, in rows of equal length, and the logits of their last positions.
pub trait LanguageSession {
    /// Runs the prompt and returns the logits of its last position, `[vocab_size]`; `None` when cancelled midway.
    ///
    /// What the first row holds already, `input_ids[..past_tokens()]`, is not run again: the caller vouches that it is
    /// the same. At least one token must be left to run.
    ///
    /// # Errors
    ///
    /// If the prompt does not fit the model or the session, or inference fails.
    fn prefill(&mut self, prompt: &Prompt<'_>, cancel: &CancelToken) -> Result<Option<&mut [f32]>, Error>;

    /// Runs tokens in rows, and returns the logits after the last of each, `[rows, vocab_size]`.
    ///
    /// Row `i` continues what was row `parents[i]` with `tokens[i * n..(i + 1) * n]`, `n = tokens.len() /
    /// parents.len()`, at `position..position + n` on all three axes. A row may be continued several times, or not at
    /// all: then it is gone.
    ///
    /// # Errors
    ///
    /// [`Error::Rows`] if rows and tokens do not fit, or what inference reports.
    fn decode(&mut self, parents: &[usize], tokens: &[TokenId], position: i64) -> Result<&mut [f32], Error>;

    /// Whether it has [`LanguageSession::verify`].
    fn verifies(&self) -> bool {
        false
    }

    /// Guessed tokens that the next step checks at no cost: a few where nobody else is in the step, since the weights are
    /// read anyway, and none where the tokens of a step change each other's results in the last digits.
    fn free_guesses(&self) -> usize {
        0
    }

    /// Runs tokens in the only row, as [`LanguageSession::decode`] does, and returns the logits after each of the last `1 +
    /// guessed` of them, `[1 + guessed, vocab_size]`: those that one token after the other would give.
    ///
    /// # Errors
    ///
    /// As for [`LanguageSession::decode`]; [`Error::Rows`] where the session cannot do that.
    fn verify(&mut self, tokens: &[TokenId], guessed: usize, position: i64) -> Result<&mut [f32], Error> {
        let _ = (guessed, position);
        Err(Error::Rows { parents: vec![0], tokens: tokens.len(), rows: 0 })
    }

    /// Tokens that each row holds.
    fn past_tokens(&self) -> usize;

    /// Forgets all but the first `past_tokens` tokens of the first row, which alone is left. Does nothing to a session of
    /// one row that has no more.
    fn rewind(&mut self, past_tokens: usize);

    /// Tokens of the last prefill that were computed for another session before, and not again.
    fn found_tokens(&self) -> usize {
        0
    }
}

/// What narrows the choice of tokens while an answer grows, as a grammar does. The runtime knows no text.
pub trait Constraint: Send {
    /// Sets the logits of all tokens that may not come next to negative infinity. `remaining` tokens are left, at least 1,
    /// the next one included: what stays allowed must leave a way to end within them. Stop tokens stay exactly where
    /// the answer may end.
    ///
    /// # Errors
    ///
    /// [`Error::Constraint`].
    fn mask(&mut self, logits: &mut [f32], remaining: usize) -> Result<(), Error>;

    /// Takes note of a token that was chosen under [`Constraint::mask`] and is no stop token.
    ///
    /// # Errors
    ///
    /// [`Error::Constraint`].
    fn commit(&mut self, token: TokenId) -> Result<(), Error>;

    /// The tokens that have to come now, whatever the model says, at most `remaining`; they need no
    /// [`Constraint::commit`].
    ///
    /// # Errors
    ///
    /// [`Error::Constraint`].
    fn forced(&mut self, remaining: usize) -> Result<Vec<TokenId>, Error>;

    /// Whether nothing may follow.
    fn is_finished(&self) -> bool;

    /// Whether it ended what was open because tokens ran low. The answer is then reported as cut by its length.
    fn closed_early(&self) -> bool;

    /// A copy that goes on by itself.
    fn fork(&self) -> Box<dyn Constraint>;
}
