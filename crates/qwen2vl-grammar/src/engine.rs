//! A tokenizer's vocabulary in the form that llguidance walks, made once.

use std::sync::Arc;

use llguidance::earley::SlicedBiasComputer;
use llguidance::toktrie::{InferenceCapabilities, TokEnv, TokRxInfo, TokTrie, TokenizerEnv};
use llguidance::{ParserFactory, panic_utils};
use qwen2vl_tokenizer::Tokenizer;
use qwen2vl_types::TokenId;

use crate::{Error, Format, Grammar};

/// States that the lexer of one grammar may have, one or two KiB each.
const MAX_LEXER_STATES: usize = 50_000;

/// Compiles formats for one tokenizer. `Send + Sync`; building one takes about a second.
#[derive(Clone)]
pub struct GrammarEngine {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub factory: ParserFactory,
    pub vocabulary: Arc<Vocabulary>,
}

/// The vocabulary: llguidance's trie, and the tokenizer for canonical tokens.
pub(crate) struct Vocabulary {
    tokenizer: Arc<Tokenizer>,
    pub trie: TokTrie,
    /// The token of each single byte.
    pub byte_tokens: Vec<TokenId>,
}

impl GrammarEngine {
    /// Takes the vocabulary of `tokenizer`. `vocab_size` is the length of the model's logits, which may be larger: ids
    /// without a token are never allowed. `stop_token_ids` end an answer.
    ///
    /// # Errors
    ///
    /// [`Error::Vocabulary`] if it lacks a token for a single byte, has more tokens than the model, or there is no stop
    /// token.
    pub fn new(
        tokenizer: Arc<Tokenizer>,
        vocab_size: usize,
        stop_token_ids: &[TokenId],
    ) -> Result<Self, Error> {
        let bad = |reason: String| Error::Vocabulary { reason };
        let tokens = tokenizer.vocab_size();
        if tokens > vocab_size {
            return Err(bad(format!("it has {tokens} tokens and the model {vocab_size}")));
        }
        let stops: Vec<TokenId> =
            stop_token_ids.iter().copied().filter(|&id| (id as usize) < vocab_size).collect();
        let Some(&stop) = stops.first() else {
            return Err(bad("there is no stop token, by which an answer ends".to_owned()));
        };
        let words: Vec<Vec<u8>> = (0..vocab_size as TokenId).map(|id| word(&tokenizer, id)).collect();
        let mut byte_tokens: Vec<Option<TokenId>> = vec![None; 256];
        for (id, word) in (0..).zip(&words) {
            if let [byte] = word[..] {
                byte_tokens[usize::from(byte)] = Some(id);
            }
        }
        let byte_tokens: Option<Vec<TokenId>> = byte_tokens.into_iter().collect();
        let byte_tokens = byte_tokens.ok_or_else(|| bad("a byte has no token of its own".to_owned()))?;
        let trie = TokTrie::from(&TokRxInfo::new(vocab_size as u32, stop), &words).with_eos_tokens(&stops);
        let vocabulary = Arc::new(Vocabulary { tokenizer, trie, byte_tokens });
        let factory = factory(&vocabulary).map_err(|e| bad(e.to_string()))?;
        Ok(Self { inner: Arc::new(Inner { factory, vocabulary }) })
    }

    /// Compiles a format and finds its shortest answer.
    ///
    /// # Errors
    ///
    /// What is wrong with the format, see [`Error`].
    pub fn compile(&self, format: &Format) -> Result<Grammar, Error> {
        let source = format.to_llguidance()?;
        let parser = self.inner.factory.create_parser(source);
        let mut parser = parser.map_err(|e| format.refused(brief(&format!("{e:#}"))))?;
        parser.start_without_prompt();
        Grammar::new(self.inner.vocabulary.clone(), parser, format)
    }
}

impl std::fmt::Debug for GrammarEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let vocab_size = self.inner.vocabulary.trie.vocab_size();
        f.debug_struct("GrammarEngine").field("vocab_size", &vocab_size).finish_non_exhaustive()
    }
}

/// A token's bytes as the trie wants them: a special token's behind a byte that no text has.
fn word(tokenizer: &Tokenizer, id: TokenId) -> Vec<u8> {
    let mut bytes = tokenizer.token_bytes(id).unwrap_or_default();
    if tokenizer.is_special(id) {
        bytes.insert(0, TokTrie::SPECIAL_TOKEN_MARKER);
    }
    bytes
}

fn factory(vocabulary: &Arc<Vocabulary>) -> Result<ParserFactory, Box<dyn std::error::Error>> {
    let env: TokEnv = Arc::new(Env(vocabulary.clone()));
    let make = || {
        let slices = SlicedBiasComputer::general_slices();
        ParserFactory::new(&env, InferenceCapabilities { ff_tokens: true, ..Default::default() }, &slices)
    };
    let mut factory = panic_utils::catch_unwind(std::panic::AssertUnwindSafe(make))?;
    factory.quiet();
    let limits = factory.limits_mut();
    limits.max_lexer_states = MAX_LEXER_STATES;
    limits.verbose_errors = false;
    Ok(factory)
}

/// The first lines of a message, without a backtrace.
pub(crate) fn brief(message: &str) -> String {
    let message = message.split("\n<").next().unwrap_or(message);
    let mut lines: Vec<&str> = message.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    lines.truncate(8);
    let mut text = lines.join("\n");
    if let Some((end, _)) = text.char_indices().nth(600) {
        text.truncate(end);
        text.push('…');
    }
    text
}

/// [`Vocabulary`] as llguidance asks for it.
struct Env(Arc<Vocabulary>);

impl TokenizerEnv for Env {
    fn tok_trie(&self) -> &TokTrie {
        &self.0.trie
    }

    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<TokenId> {
        self.0.tokenize(bytes)
    }
}

impl Vocabulary {
    /// The tokens that the tokenizer makes of a text; the longest that fit, where it reads special tokens in it or
    /// composes characters.
    pub fn tokenize(&self, bytes: &[u8]) -> Vec<TokenId> {
        let plain = |text: &str| self.tokenizer.encode(text).unwrap_or_default();
        let tokens = self.trie.tokenize_with_greedy_fallback(bytes, plain);
        if self.trie.decode_raw(&tokens) == bytes { tokens } else { self.trie.greedy_tokenize(bytes) }
    }

    /// The token of each byte.
    pub fn single_bytes(&self, bytes: &[u8]) -> Vec<TokenId> {
        bytes.iter().map(|&byte| self.byte_tokens[usize::from(byte)]).collect()
    }
}
