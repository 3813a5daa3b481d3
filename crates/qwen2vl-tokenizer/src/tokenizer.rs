//! Text to ids and back, placeholders expanded. A layer over Hugging Face's `tokenizers` with the true tokenizer.json.

use std::path::Path;

use qwen2vl_types::{GridThw, TokenId};

use crate::stream::{DetokenizeStream, append_bytes};
use crate::{Error, VisionTokens, rope_index_with};

/// More tokens than any context holds: a hostile grid must not allocate.
const MAX_PROMPT_TOKENS: usize = 1 << 24;

/// A Qwen2-VL tokenizer. `Send + Sync`.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    vision_tokens: VisionTokens,
    pub(crate) special: std::collections::HashSet<TokenId>,
}

/// A prompt as the model takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedPrompt {
    /// Token ids, placeholders expanded, `S` of them.
    pub input_ids: Vec<TokenId>,
    /// M-RoPE positions of temporal, height and width axis, `S` each.
    pub position_ids: [Vec<i64>; 3],
    /// See [`crate::RopeIndex::rope_delta`].
    pub rope_delta: i64,
}

impl Tokenizer {
    /// Reads a `tokenizer.json`.
    ///
    /// # Errors
    ///
    /// [`Error::TokenizerFile`] if it cannot be read or is not a byte-level tokenizer with Qwen2-VL's vision tokens.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let at = |reason: String| Error::TokenizerFile { path: path.to_owned(), reason };
        let bytes = std::fs::read(path).map_err(|e| at(e.to_string()))?;
        Self::from_bytes(&bytes).map_err(|e| match e {
            Error::Tokenizer { reason } => at(reason),
            other => other,
        })
    }

    /// Reads the content of a `tokenizer.json`.
    ///
    /// # Errors
    ///
    /// [`Error::Tokenizer`] if it is not a byte-level tokenizer with Qwen2-VL's vision tokens.
    pub fn from_bytes(json: &[u8]) -> Result<Self, Error> {
        let bad = |reason: String| Error::Tokenizer { reason };
        let inner = tokenizers::Tokenizer::from_bytes(json).map_err(|e| bad(e.to_string()))?;
        if !matches!(inner.get_decoder(), Some(tokenizers::DecoderWrapper::ByteLevel(_))) {
            return Err(bad("its decoder is not ByteLevel, as Qwen2-VL's is".to_owned()));
        }
        let id =
            |token: &str| inner.token_to_id(token).ok_or_else(|| bad(format!("it has no token {token}")));
        let vision_tokens = VisionTokens {
            image_pad: id("<|image_pad|>")?,
            video_pad: id("<|video_pad|>")?,
            vision_start: id("<|vision_start|>")?,
            vision_end: id("<|vision_end|>")?,
        };
        let added = inner.get_added_tokens_decoder();
        let special = added.iter().filter(|(_, token)| token.special).map(|(&id, _)| id).collect();
        Ok(Self { inner, vision_tokens, special })
    }

    /// Ids of the vision tokens.
    pub fn vision_tokens(&self) -> VisionTokens {
        self.vision_tokens
    }

    /// Number of tokens, added ones included.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// The id of a token.
    pub fn token_to_id(&self, token: &str) -> Option<TokenId> {
        self.inner.token_to_id(token)
    }

    /// The token of an id, in the byte-level alphabet.
    pub fn id_to_token(&self, id: TokenId) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The bytes that a token adds to a text; those of a special token spell its name.
    pub fn token_bytes(&self, id: TokenId) -> Option<Vec<u8>> {
        let token = self.id_to_token(id)?;
        let mut bytes = Vec::with_capacity(token.len());
        append_bytes(&token, &mut bytes);
        Some(bytes)
    }

    /// Whether a token is special: one that no text is made of.
    pub fn is_special(&self, id: TokenId) -> bool {
        self.special.contains(&id)
    }

    /// Ids of a text. Special tokens written in it are recognized, none are added.
    ///
    /// # Errors
    ///
    /// [`Error::Tokenizer`] where the tokenizer fails.
    pub fn encode(&self, text: &str) -> Result<Vec<TokenId>, Error> {
        let encoding =
            self.inner.encode_fast(text, false).map_err(|e| Error::Tokenizer { reason: e.to_string() })?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Text of ids. Bytes that are not UTF-8 become U+FFFD, ids outside the vocabulary nothing, as in Hugging Face's
    /// `decode`.
    pub fn detokenize(&self, ids: &[TokenId], skip_special_tokens: bool) -> String {
        let mut stream = self.stream(skip_special_tokens);
        let mut text: String = ids.iter().filter_map(|&id| stream.push(id)).collect();
        text.extend(stream.finish());
        text
    }

    /// Starts detokenizing token by token.
    pub fn stream(&self, skip_special_tokens: bool) -> DetokenizeStream<'_> {
        DetokenizeStream::new(self, skip_special_tokens)
    }

    /// Repeats each placeholder as often as its grid has tokens: `Qwen2VLProcessor`'s expansion, on ids.
    ///
    /// # Errors
    ///
    /// [`Error::PlaceholderCount`] if images or videos are more or fewer than their placeholders, [`Error::TooLong`].
    pub fn expand(
        &self,
        ids: &[TokenId],
        images: &[GridThw],
        videos: &[GridThw],
        merge_size: u32,
    ) -> Result<Vec<TokenId>, Error> {
        let VisionTokens { image_pad, video_pad, .. } = self.vision_tokens;
        let mut length = ids.len();
        for (kind, pad, grids) in [("image", image_pad, images), ("video", video_pad, videos)] {
            let placeholders = ids.iter().filter(|&&id| id == pad).count();
            if placeholders != grids.len() {
                return Err(Error::PlaceholderCount { kind, placeholders, given: grids.len() });
            }
            length = grids.iter().fold(length, |sum, g| sum.saturating_add(g.n_tokens(merge_size)));
        }
        if length > MAX_PROMPT_TOKENS {
            return Err(Error::TooLong { tokens: length, limit: MAX_PROMPT_TOKENS });
        }
        let mut expanded = Vec::with_capacity(length);
        let (mut images, mut videos) = (images.iter(), videos.iter());
        for &id in ids {
            let grid = match id {
                _ if id == image_pad => images.next(),
                _ if id == video_pad => videos.next(),
                _ => None,
            };
            expanded.extend(std::iter::repeat_n(id, grid.map_or(1, |g| g.n_tokens(merge_size))));
        }
        Ok(expanded)
    }

    /// Encodes a rendered prompt, expands its placeholders and computes its positions.
    ///
    /// # Errors
    ///
    /// As [`Tokenizer::encode`], [`Tokenizer::expand`] and [`rope_index_with`].
    pub fn prepare(
        &self,
        prompt: &str,
        images: &[GridThw],
        videos: &[GridThw],
        merge_size: u32,
    ) -> Result<EncodedPrompt, Error> {
        let input_ids = self.expand(&self.encode(prompt)?, images, videos, merge_size)?;
        let index = rope_index_with(&self.vision_tokens, merge_size, &input_ids, images, videos)?;
        Ok(EncodedPrompt { input_ids, position_ids: index.position_ids, rope_delta: index.rope_delta })
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer").field("vocab_size", &self.vocab_size()).finish_non_exhaustive()
    }
}
