//! Completions: tokens by which an answer in the making ends and keeps to its format.

use std::sync::Arc;

use llguidance::TokenParser;
use qwen2vl_types::TokenId;

use crate::engine::Vocabulary;
use crate::walk::{Lexical, RANKINGS, Ranking, Walk};

pub(crate) use crate::walk::Limits;

/// Finds completions. A completion is checked by the parser before it is believed.
#[derive(Clone)]
pub(crate) struct Completer {
    pub vocabulary: Arc<Vocabulary>,
    pub json: bool,
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
        let found = RANKINGS.into_iter().filter_map(|ranking| self.walk(parser, None, ranking, limits));
        found.min_by_key(Vec::len)
    }

    /// A completion behind `token` of at most `most` tokens, given one in front of it.
    pub fn behind(
        &self,
        parser: &mut TokenParser,
        token: TokenId,
        known: &[TokenId],
        most: usize,
        may_search: &mut usize,
    ) -> Option<Vec<TokenId>> {
        if known.len() <= most && self.ends(parser, token, known) {
            return Some(known.to_vec());
        }
        if let Some(near) = self.near(parser, token, known, most) {
            return Some(near);
        }
        if *may_search == 0 {
            return None;
        }
        *may_search -= 1;
        // Not more bytes than so many tokens are likely to have.
        let limits = Limits { bytes: 16 * most + 16, until: None };
        RANKINGS.into_iter().find_map(|ranking| {
            self.walk(parser, Some(token), ranking, &limits).filter(|tokens| tokens.len() <= most)
        })
    }

    /// A completion that differs from the known one at its beginning only.
    fn near(
        &self,
        parser: &mut TokenParser,
        token: TokenId,
        known: &[TokenId],
        most: usize,
    ) -> Option<Vec<TokenId>> {
        let bytes = self.vocabulary.trie.decode_raw(known);
        for left_out in 0..=MOST_LEFT_OUT.min(bytes.len()) {
            for front in FRONTS {
                let end = [front, &bytes[left_out..]].concat();
                if self.ends(parser, token, &self.vocabulary.single_bytes(&end)) {
                    let tokens = self.tokens(parser, Some(token), &end)?;
                    return (tokens.len() <= most).then_some(tokens);
                }
            }
        }
        None
    }

    fn walk(
        &self,
        parser: &TokenParser,
        token: Option<TokenId>,
        ranking: Ranking,
        limits: &Limits,
    ) -> Option<Vec<TokenId>> {
        let mut walker = parser.clone();
        let mut lexical = Lexical::new(self.json).push_all(walker.final_bytes());
        if let Some(token) = token {
            if walker.consume_token(token).ok()? != 0 {
                return None;
            }
            lexical = lexical.push_all(self.vocabulary.trie.token(token));
        }
        let bytes = Walk::new(&self.vocabulary, &mut walker, lexical, ranking).run(limits)?;
        self.tokens(&mut parser.clone(), token, &bytes)
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
