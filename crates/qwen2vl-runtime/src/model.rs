//! The waist of the crate: what the generation loop needs of a language model, so that it runs on a scripted one.

use qwen2vl_types::TokenId;

use crate::{CancelToken, Error, VisionEmbeddings};

/// A prompt ready for the model: ids with expanded placeholders, positions, and the rows that replace placeholders.
#[derive(Debug, Clone, Copy)]
pub struct Prompt<'a> {
    /// Token ids, `S` of them.
    pub input_ids: &'a [TokenId],
    /// M-RoPE positions of temporal, height and width axis, `S` each.
    pub position_ids: &'a [Vec<i64>; 3],
    /// What is added to the number of past tokens for the position of a generated one.
    pub rope_delta: i64,
    /// Embeddings that replace the image placeholders, in order.
    pub images: &'a [VisionEmbeddings],
    /// Embeddings that replace the video placeholders, in order.
    pub videos: &'a [VisionEmbeddings],
}

/// One conversation with a language model: its KV cache and the logits of the last position.
pub trait LanguageSession {
    /// Runs the prompt and returns the logits of its last position, `[vocab_size]`; `None` when cancelled midway.
    ///
    /// # Errors
    ///
    /// If the prompt does not fit the model or inference fails.
    fn prefill(&mut self, prompt: &Prompt<'_>, cancel: &CancelToken) -> Result<Option<&mut [f32]>, Error>;

    /// Runs one more token at `position` (on all three axes) and returns the logits after it, `[vocab_size]`.
    ///
    /// # Errors
    ///
    /// If inference fails.
    fn decode(&mut self, token: TokenId, position: i64) -> Result<&mut [f32], Error>;
}
