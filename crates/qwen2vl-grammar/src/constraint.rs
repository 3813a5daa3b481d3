//! An answer in the making that keeps to a format, and always ends.
//!
//! At every step a completion of what there is is known, of no more tokens than are left. A token may come only if a
//! completion behind it is known that fits as well; of the tokens that the format allows, the likeliest are looked at.
//! So the answer ends within its tokens whatever the model does: in the worst case by the known completion.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;

use llguidance::{TokenParser, panic_utils};
use qwen2vl_runtime::{Constraint, Error};
use qwen2vl_types::TokenId;

use crate::completion::{Completer, Known};
use crate::engine::brief;
use crate::walk::Lexical;

/// Allowed tokens that are looked at in one step, the likeliest first.
const CANDIDATES: usize = 32;
/// Of these, those for which a completion is searched from scratch if none is near the known one.
const SEARCHES: usize = 3;

/// Keeps one answer to a [`crate::Grammar`]. See [`crate::Grammar::start`].
#[derive(Clone)]
pub struct GrammarConstraint {
    completer: Completer,
    parser: TokenParser,
    /// What ends the answer from here.
    completion: Vec<TokenId>,
    /// Completions behind the tokens that may come next.
    behind: HashMap<TokenId, Vec<TokenId>>,
    /// The caller's stop tokens.
    stops: Vec<TokenId>,
    /// Tokens that are left, as far as known.
    remaining: usize,
    state: State,
    closed_early: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// llguidance gave up, by its limits: only the known completion may come.
    Closing,
    Finished,
}

impl GrammarConstraint {
    pub(crate) fn new(
        completer: Completer,
        parser: TokenParser,
        completion: Vec<TokenId>,
        stops: Vec<TokenId>,
    ) -> Self {
        let (behind, remaining) = (HashMap::new(), usize::MAX);
        let (state, closed_early) = (State::Open, false);
        Self { completer, parser, completion, behind, stops, remaining, state, closed_early }
    }

    /// The likeliest tokens that the format allows here, or `None` when llguidance gives up; and whether the answer may
    /// end.
    fn allowed(&mut self, logits: &[f32]) -> Option<(Vec<TokenId>, bool)> {
        if self.state != State::Open {
            return None;
        }
        let parser = &mut self.parser;
        let mut mask = panic_utils::catch_unwind(AssertUnwindSafe(|| parser.compute_mask())).ok()?;
        let ends = self.completer.vocabulary.trie.eos_tokens();
        let may_end = ends.iter().any(|&end| mask.is_allowed(end));
        for &end in ends.iter().chain(&self.stops) {
            if (end as usize) < mask.len() {
                mask.disallow_token(end);
            }
        }
        Some((likeliest(mask.as_slice(), logits), may_end))
    }

    /// Of the likeliest allowed tokens those that may come, with their completions.
    fn look_behind(&mut self, likeliest: &[TokenId]) {
        let most = self.remaining - 1;
        let trie = &self.completer.vocabulary.trie;
        let known = Known { bytes: trie.decode_raw(&self.completion), tokens: self.completion.clone() };
        let lexical = Lexical::new(self.completer.json).push_all(self.parser.final_bytes());
        let mut searches = 0;
        for (i, &token) in likeliest.iter().enumerate() {
            if known.tokens.first() == Some(&token) {
                self.behind.insert(token, known.tokens[1..].to_vec());
                continue;
            }
            // The likeliest are worth a search, and others where none of them may come.
            let search = i < SEARCHES || (self.behind.is_empty() && searches < 2 * SEARCHES);
            searches += usize::from(search);
            let behind = self.completer.behind(&mut self.parser, token, &known, lexical, most, search);
            if let Some(behind) = behind {
                self.behind.insert(token, behind);
            }
        }
    }

    fn mask_inner(&mut self, logits: &mut [f32], remaining: usize) -> Result<(), Error> {
        self.remaining = remaining;
        self.behind.clear();
        let needed = self.completion.len();
        if needed > remaining {
            return Err(broken(&format!("{remaining} tokens are left and {needed} are needed to end it")));
        }
        let vocab = self.completer.vocabulary.trie.vocab_size();
        if logits.len() < vocab {
            return Err(broken(&format!("the model has {} logits, its vocabulary {vocab}", logits.len())));
        }
        let logit = |logits: &[f32], token: TokenId| {
            logits.get(token as usize).copied().filter(|l| l.is_finite()).unwrap_or(f32::NEG_INFINITY)
        };
        let mut wanted = None;
        let mut may_end = self.completion.is_empty();
        match self.allowed(logits) {
            Some((allowed, ends)) => {
                may_end = ends;
                wanted = allowed.first().map(|&token| (token, logits[token as usize]));
                let look = AssertUnwindSafe(|| {
                    self.look_behind(&allowed);
                    Ok(())
                });
                if panic_utils::catch_unwind(look).is_err() {
                    self.behind.clear();
                    self.give_up();
                }
            }
            None => self.give_up(),
        }
        if self.behind.is_empty()
            && let Some((&first, rest)) = self.completion.split_first()
        {
            self.behind.insert(first, rest.to_vec());
        }
        let stops: &[TokenId] = if may_end { &self.stops } else { &[] };
        let stop = stops.iter().map(|&stop| logit(logits, stop)).fold(f32::NEG_INFINITY, f32::max);
        if let Some((token, logit)) = wanted
            && logit > stop
            && !self.behind.contains_key(&token)
        {
            self.closed_early = true;
        }
        let permitted = self.behind.keys().chain(stops);
        let mut kept: Vec<(TokenId, f32)> = permitted.map(|&token| (token, logit(logits, token))).collect();
        if kept.iter().all(|(_, logit)| *logit == f32::NEG_INFINITY) {
            kept.iter_mut().for_each(|(_, logit)| *logit = 0.0);
        }
        logits.fill(f32::NEG_INFINITY);
        for (token, logit) in kept {
            if let Some(slot) = logits.get_mut(token as usize) {
                *slot = logit;
            }
        }
        Ok(())
    }

    fn give_up(&mut self) {
        if self.state == State::Open {
            self.state = State::Closing;
        }
        self.closed_early = true;
    }

    /// Takes a token whose completion is known.
    fn take(&mut self, token: TokenId, behind: Vec<TokenId>) {
        self.completion = behind;
        self.behind.clear();
        self.remaining = self.remaining.saturating_sub(1);
        if self.state == State::Open {
            let parser = &mut self.parser;
            let step = || {
                let back = parser.consume_token(token)?;
                Ok((back, parser.check_stop()?))
            };
            match panic_utils::catch_unwind(AssertUnwindSafe(step)).ok() {
                Some((0, true)) => self.state = State::Finished,
                Some((0, false)) => {}
                _ => self.give_up(),
            }
        }
        if self.state == State::Closing && self.completion.is_empty() {
            self.state = State::Finished;
        }
        if self.remaining == 0 && self.state != State::Finished {
            // It may go on and has no tokens for it.
            self.state = State::Finished;
            self.closed_early = true;
        }
    }

    /// Forced tokens whose end is known to fit.
    fn forced_inner(&mut self, remaining: usize) -> Vec<TokenId> {
        self.remaining = remaining;
        if self.state == State::Finished || self.completion.is_empty() {
            return Vec::new();
        }
        if self.state == State::Closing || (self.closed_early && self.completion.len() == remaining) {
            let all = std::mem::take(&mut self.completion);
            for i in 0..all.len() {
                self.take(all[i], all[i + 1..].to_vec());
            }
            self.state = State::Finished;
            return all;
        }
        let parser = &mut self.parser;
        let forced = panic_utils::catch_unwind(AssertUnwindSafe(|| Ok(parser.compute_ff_tokens())));
        let forced = forced.unwrap_or_default();
        let Some(behind) = self.behind_forced(&forced, remaining) else { return Vec::new() };
        for (i, &token) in forced.iter().enumerate() {
            self.take(token, [&forced[i + 1..], &behind].concat());
        }
        forced
    }

    /// The rest of the known completion behind forced tokens, which spell its beginning.
    fn behind_forced(&mut self, forced: &[TokenId], remaining: usize) -> Option<Vec<TokenId>> {
        let trie = &self.completer.vocabulary.trie;
        if forced.is_empty() || forced.iter().any(|token| self.stops.contains(token)) {
            return None;
        }
        if self.completion.starts_with(forced) {
            return Some(self.completion[forced.len()..].to_vec());
        }
        let known = trie.decode_raw(&self.completion);
        let rest = known.strip_prefix(&trie.decode_raw(forced)[..])?;
        let mut tokens = self.completer.vocabulary.tokenize(rest);
        if !self.completer.accepts(&mut self.parser, [forced, &tokens].concat()) {
            tokens = self.completer.vocabulary.single_bytes(rest);
            if !self.completer.accepts(&mut self.parser, [forced, &tokens].concat()) {
                return None;
            }
        }
        (forced.len() + tokens.len() <= remaining).then_some(tokens)
    }
}

impl Constraint for GrammarConstraint {
    fn mask(&mut self, logits: &mut [f32], remaining: usize) -> Result<(), Error> {
        self.mask_inner(logits, remaining)
    }

    fn commit(&mut self, token: TokenId) -> Result<(), Error> {
        match self.behind.remove(&token) {
            Some(behind) => {
                self.take(token, behind);
                Ok(())
            }
            None => Err(broken(&format!("token {token} was chosen, which the format does not allow"))),
        }
    }

    fn forced(&mut self, remaining: usize) -> Result<Vec<TokenId>, Error> {
        Ok(self.forced_inner(remaining))
    }

    fn is_finished(&self) -> bool {
        self.state == State::Finished
    }

    fn closed_early(&self) -> bool {
        self.closed_early
    }

    fn fork(&self) -> Box<dyn Constraint> {
        Box::new(Self { parser: self.parser.deep_clone(), ..self.clone() })
    }
}

fn broken(reason: &str) -> Error {
    Error::Constraint { reason: brief(reason) }
}

/// Of the tokens in a bit mask those of the largest logits, the largest first.
fn likeliest(mask: &[u32], logits: &[f32]) -> Vec<TokenId> {
    let mut best: Vec<(f32, TokenId)> = Vec::with_capacity(CANDIDATES + 1);
    for (word, base) in mask.iter().zip((0..).step_by(32)) {
        let mut bits = *word;
        while bits != 0 {
            let token = base + bits.trailing_zeros();
            bits &= bits - 1;
            let Some(&logit) = logits.get(token as usize) else { break };
            let full = best.len() == CANDIDATES;
            if !logit.is_finite() || (full && logit <= best[CANDIDATES - 1].0) {
                continue;
            }
            let at = best.partition_point(|(other, _)| *other >= logit);
            best.insert(at, (logit, token));
            best.truncate(CANDIDATES);
        }
    }
    best.into_iter().map(|(_, token)| token).collect()
}

impl std::fmt::Debug for GrammarConstraint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GrammarConstraint")
            .field("state", &self.state)
            .field("closed_early", &self.closed_early)
            .field("completion_tokens", &self.completion.len())
            .finish_non_exhaustive()
    }
}
