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

use crate::completion::Completer;
use crate::engine::brief;

/// Allowed tokens that are looked at in one step, the likeliest first.
const CANDIDATES: usize = 32;
/// Completions that are searched for from scratch in one step.
const SEARCHES: usize = 4;

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

    /// Which tokens the format allows here, or `None` when llguidance gives up; and whether the answer may end.
    fn allowed(&mut self) -> Option<(Vec<TokenId>, bool)> {
        if self.state != State::Open {
            return None;
        }
        let parser = &mut self.parser;
        let mask = panic_utils::catch_unwind(AssertUnwindSafe(|| parser.compute_mask())).ok()?;
        let trie = &self.completer.vocabulary.trie;
        let is_end = |token: &TokenId| trie.eos_tokens().contains(token) || self.stops.contains(token);
        let may_end = trie.eos_tokens().iter().any(|&end| mask.is_allowed(end));
        let mut allowed = Vec::new();
        mask.iter_set_entries(|id| allowed.push(id as TokenId));
        allowed.retain(|token| !is_end(token));
        Some((allowed, may_end))
    }

    /// Of the likeliest allowed tokens those that may come, with their completions.
    fn look_behind(&mut self, allowed: Vec<TokenId>, logits: &[f32]) {
        let most = self.remaining - 1;
        let mut searches = SEARCHES;
        for token in likeliest(allowed, logits) {
            let known = &self.completion;
            let behind = if known.first() == Some(&token) {
                Some(known[1..].to_vec())
            } else {
                self.completer.behind(&mut self.parser, token, known, most, &mut searches)
            };
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
            return Err(broken(format!("{remaining} tokens are left and {needed} are needed to end it")));
        }
        let vocab = self.completer.vocabulary.trie.vocab_size();
        if logits.len() < vocab {
            return Err(broken(format!("the model has {} logits, its vocabulary {vocab}", logits.len())));
        }
        let logit = |logits: &[f32], token: TokenId| {
            logits.get(token as usize).copied().filter(|l| l.is_finite()).unwrap_or(f32::NEG_INFINITY)
        };
        let mut wanted = None;
        let mut may_end = self.completion.is_empty();
        match self.allowed() {
            Some((allowed, ends)) => {
                may_end = ends;
                wanted = best(&allowed, logits);
                self.look_behind(allowed, logits);
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
            None => Err(broken(format!("token {token} was chosen, which the format does not allow"))),
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

fn broken(reason: String) -> Error {
    Error::Constraint { reason: brief(&reason) }
}

/// The token of the largest logit.
fn best(tokens: &[TokenId], logits: &[f32]) -> Option<(TokenId, f32)> {
    let with_logits = tokens.iter().map(|&token| (token, logits[token as usize]));
    with_logits.filter(|(_, logit)| logit.is_finite()).max_by(|a, b| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0)))
}

/// The tokens of the largest logits, the largest first.
fn likeliest(mut tokens: Vec<TokenId>, logits: &[f32]) -> Vec<TokenId> {
    tokens.retain(|&token| logits[token as usize].is_finite());
    let order = |a: &TokenId, b: &TokenId| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
    if tokens.len() > CANDIDATES {
        tokens.select_nth_unstable_by(CANDIDATES - 1, order);
        tokens.truncate(CANDIDATES);
    }
    tokens.sort_unstable_by(order);
    tokens
}
