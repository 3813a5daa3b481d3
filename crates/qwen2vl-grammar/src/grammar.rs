//! A compiled format, from which any number of answers start.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use llguidance::TokenParser;
use qwen2vl_types::TokenId;

use crate::completion::{Completer, Limits};
use crate::engine::Vocabulary;
use crate::{Error, Format, GrammarConstraint};

/// The longest shortest answer of a format, in bytes.
const MAX_SHORTEST_BYTES: usize = 1 << 17;
/// The time in which it has to be found.
const MAX_SHORTEST_TIME: Duration = Duration::from_secs(5);

/// A format that is known to have answers. Cheap to clone and to start from.
#[derive(Clone)]
pub struct Grammar {
    inner: Arc<Inner>,
}

struct Inner {
    completer: Completer,
    /// Before the first token.
    parser: Mutex<TokenParser>,
    /// The shortest answer that was found.
    shortest: Vec<TokenId>,
}

impl Grammar {
    pub(crate) fn new(
        vocabulary: Arc<Vocabulary>,
        mut parser: TokenParser,
        format: &Format,
    ) -> Result<Self, Error> {
        let completer = Completer::new(vocabulary, format.is_json());
        let limits = Limits { bytes: MAX_SHORTEST_BYTES, until: Some(Instant::now() + MAX_SHORTEST_TIME) };
        let shortest = completer.shortest(&mut parser, &limits).ok_or_else(|| Error::Impossible {
            format: format.name(),
            reason: format!(
                "none was found that ends within {MAX_SHORTEST_BYTES} bytes; is a part of it required without end, or \
                 special tokens?"
            ),
        })?;
        Ok(Self { inner: Arc::new(Inner { completer, parser: Mutex::new(parser), shortest }) })
    }

    /// Tokens of the shortest answer that was found, without a stop token.
    pub fn least_tokens(&self) -> usize {
        self.inner.shortest.len()
    }

    /// Starts an answer of at most `max_new_tokens` that ends by one of `stop_token_ids`.
    ///
    /// # Errors
    ///
    /// [`Error::Budget`] if they do not suffice for the shortest answer, [`Error::StopToken`] for a stop token that is
    /// not special.
    pub fn start(
        &self,
        max_new_tokens: usize,
        stop_token_ids: &[TokenId],
    ) -> Result<GrammarConstraint, Error> {
        let needed = self.least_tokens();
        if max_new_tokens < needed {
            return Err(Error::Budget { needed, max_new_tokens });
        }
        let trie = &self.inner.completer.vocabulary.trie;
        let is_text = |id: &&TokenId| {
            (**id as usize) < trie.vocab_size()
                && !trie.is_special_token(**id)
                && !trie.token(**id).is_empty()
        };
        if let Some(&id) = stop_token_ids.iter().find(is_text) {
            return Err(Error::StopToken { id });
        }
        let parser = self.inner.parser.lock().unwrap_or_else(PoisonError::into_inner).deep_clone();
        let completer = self.inner.completer.clone();
        Ok(GrammarConstraint::new(completer, parser, self.inner.shortest.clone(), stop_token_ids.to_vec()))
    }
}

impl std::fmt::Debug for Grammar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Grammar").field("least_tokens", &self.least_tokens()).finish_non_exhaustive()
    }
}
