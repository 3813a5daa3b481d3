//! Completions: tokens by which an answer in the making ends and keeps to its format.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use llguidance::toktrie::Recognizer;
use llguidance::{TokenParser, panic_utils};
use qwen2vl_types::TokenId;

use crate::engine::Vocabulary;
use crate::walk::{Lexical, Ranking, Walk, push};

pub(crate) use crate::walk::Limits;

/// Finds completions. A completion is checked by the parser before it is believed.
#[derive(Clone)]
pub(crate) struct Completer {
    pub vocabulary: Arc<Vocabulary>,
    pub json: bool,
}

/// A known completion.
pub(crate) struct Known {
    pub tokens: Vec<TokenId>,
    pub bytes: Vec<u8>,
}

/// Bytes of a known completion that another may leave out at its beginning.
const MOST_LEFT_OUT: usize = 6;
/// What another completion may put in front of a known one.
const FRONTS: [&[u8]; 4] = [b"", b"\"", b"]", b"}"];

impl Completer {
    pub fn new(vocabulary: Arc<Vocabulary>, json: bool) -> Self {
        Self { vocabulary, json }
    }

    /// The shortest completion that any ranking finds.
    pub fn shortest(&self, parser: &mut TokenParser, limits: &Limits) -> Option<Vec<TokenId>> {
        let mut best: Option<Vec<TokenId>> = None;
        for ranking in [Ranking::Search, Ranking::ClosersFirst, Ranking::LettersFirst] {
            let mut limits = *limits;
            if let Some(best) = &best {
                // A longer one is of no use.
                limits.bytes = self.vocabulary.trie.decode_raw(best).len();
            }
            if let Some(found) = self.walk(parser, None, ranking, &limits)
                && best.as_ref().is_none_or(|best| found.len() < best.len())
            {
                best = Some(found);
            }
        }
        best
    }

    /// A completion behind `token` of at most `most` tokens, given one in front of it.
    pub fn behind(
        &self,
        parser: &mut TokenParser,
        token: TokenId,
        known: &Known,
        lexical: Lexical,
        most: usize,
        search: bool,
    ) -> Option<Vec<TokenId>> {
        let bytes = self.vocabulary.trie.token(token);
        for end in self.near(parser, token, &known.bytes) {
            if !lexical.are_numbers_short(bytes.iter().chain(&end)) {
                continue;
            }
            let tokens = if end == known.bytes && self.ends(parser, token, &known.tokens) {
                Some(known.tokens.clone())
            } else {
                self.tokens(parser, Some(token), &end)
            };
            if let Some(tokens) = tokens.filter(|tokens| tokens.len() <= most) {
                return Some(tokens);
            }
        }
        if !search {
            return None;
        }
        // Not more bytes than so many tokens are likely to have; guesses that are much longer than what is known go round
        // in circles.
        let far = 16 * most + 16;
        let near = far.min(known.bytes.len() + 128);
        let rankings = [(Ranking::ClosersFirst, near), (Ranking::Search, far), (Ranking::LettersFirst, near)];
        rankings.into_iter().find_map(|(ranking, bytes_limit)| {
            let limits = Limits { bytes: bytes_limit, until: None };
            let end = self.walk(parser, Some(token), ranking, &limits)?;
            let text = self.vocabulary.trie.decode_raw(&end);
            let fits = end.len() <= most && lexical.are_numbers_short(bytes.iter().chain(&text));
            fits.then_some(end)
        })
    }

    /// Texts behind `token` that differ from the known completion at its beginning only. Whether the answer may end
    /// behind them is not known yet.
    fn near(&self, parser: &mut TokenParser, token: TokenId, known: &[u8]) -> Vec<Vec<u8>> {
        let bytes = self.vocabulary.trie.token(token);
        if !parser.parser.currently_forced_bytes().is_empty() || self.vocabulary.trie.is_special_token(token)
        {
            return Vec::new();
        }
        parser.parser.with_recognizer(|recognizer| {
            recognizer.trie_started("near");
            let pushed = push(recognizer, bytes);
            let mut ends = Vec::new();
            for left_out in 0..=MOST_LEFT_OUT.min(known.len()) {
                for front in FRONTS.iter().take(if pushed == bytes.len() { FRONTS.len() } else { 0 }) {
                    let in_front = push(recognizer, front);
                    let rest = &known[left_out..];
                    let behind = if in_front == front.len() { push(recognizer, rest) } else { 0 };
                    recognizer.pop_bytes(in_front + behind);
                    if in_front + behind == front.len() + rest.len() {
                        ends.push([front, rest].concat());
                    }
                }
            }
            recognizer.pop_bytes(pushed);
            recognizer.trie_finished();
            ends
        })
    }

    /// A completion by one ranking; none where llguidance gives up by its limits, or panics.
    fn walk(
        &self,
        parser: &mut TokenParser,
        token: Option<TokenId>,
        ranking: Ranking,
        limits: &Limits,
    ) -> Option<Vec<TokenId>> {
        let walk = AssertUnwindSafe(|| {
            let mut walker = parser.clone();
            let mut lexical = Lexical::new(self.json).push_all(walker.final_bytes());
            if let Some(token) = token {
                if walker.consume_token(token)? != 0 {
                    return Ok(None);
                }
                lexical = lexical.push_all(self.vocabulary.trie.token(token));
            }
            let bytes = Walk::new(&self.vocabulary, &mut walker, lexical, ranking).run(limits);
            Ok(bytes.and_then(|bytes| self.tokens(parser, token, &bytes)))
        });
        panic_utils::catch_unwind(walk).ok().flatten()
    }

    /// The fewest tokens for these bytes that the parser takes behind `token`.
    pub fn tokens(
        &self,
        parser: &mut TokenParser,
        token: Option<TokenId>,
        bytes: &[u8],
    ) -> Option<Vec<TokenId>> {
        let vocabulary = &self.vocabulary;
        let mut ways = vec![vocabulary.tokenize(bytes), vocabulary.trie.greedy_tokenize(bytes)];
        // Canonical ones win ties.
        ways.sort_by_key(Vec::len);
        ways.push(vocabulary.single_bytes(bytes));
        ways.into_iter().find(|way| match token {
            Some(token) => self.ends(parser, token, way),
            None => self.accepts(parser, way.clone()),
        })
    }

    fn ends(&self, parser: &mut TokenParser, token: TokenId, end: &[TokenId]) -> bool {
        let mut tokens = Vec::with_capacity(end.len() + 2);
        tokens.push(token);
        tokens.extend_from_slice(end);
        self.accepts(parser, tokens)
    }

    /// Whether the answer may end behind these tokens.
    pub fn accepts(&self, parser: &mut TokenParser, mut tokens: Vec<TokenId>) -> bool {
        tokens.push(self.vocabulary.trie.eos_token());
        parser.validate_tokens_raw(&tokens).is_ok_and(|valid| valid == tokens.len())
    }
}
