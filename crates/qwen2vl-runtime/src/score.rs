//! Scoring labels: how probable each of some given answers is, without generating any.
//!
//! The prompt is run once. The labels' tokens are a tree below it, which is walked depth by depth: all nodes of a depth
//! are rows of one step, so what labels begin with in common is computed once. Labels that do not fit into the rows
//! of one pass are taken in several, in the order of their tokens.
//!
//! A label's log-probability is that of its tokens and of a stop token after them, by the model's own distribution,
//! whatever temperature or penalties. With the end counted, labels that begin other labels ("cat", "cats") are
//! different answers like all others.

use std::ops::Range;
use std::time::{Duration, Instant};

use qwen2vl_types::TokenId;

use crate::generate::Start;
use crate::logits::logprobs::log_sum_exp;
use crate::{CancelToken, Error, LanguageSession, Prompt};

/// What scoring needs to know beside prompt and labels.
#[derive(Debug, Clone, Copy)]
pub struct ScoreOptions<'a> {
    /// The tokens that end an answer, at least one: any of them may follow a label.
    pub stop_token_ids: &'a [TokenId],
    /// Tokens that prompt and label may have together.
    pub context_tokens: usize,
    /// The most rows of a step, at least 1; each has a KV cache of its own.
    pub max_rows: usize,
}

/// How probable a label is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LabelScore {
    /// Natural logarithm of the probability that the model answers exactly this.
    pub logprob: f32,
    /// The probability among the labels: they sum up to 1.
    pub probability: f32,
}

/// Scores of labels.
#[derive(Debug, Clone, PartialEq)]
pub struct LabelScores {
    /// In the order of the labels.
    pub scores: Vec<LabelScore>,
    /// Time of the prompt's pass.
    pub prefill: Duration,
    /// Time of the labels.
    pub labels: Duration,
}

/// Scores labels, each the tokens of an answer without a stop token; `None` when cancelled. The session is left with the
/// prompt alone.
///
/// # Errors
///
/// [`Error::InvalidOption`] for an empty list, a label without tokens, two labels of the same tokens and for a list of
/// stop tokens that is empty, [`Error::TokenId`], [`Error::EmptyPrompt`], [`Error::LabelTooLong`] if a label does not
/// fit behind the prompt, [`Error::Numerical`] for damaged logits, and what the session reports.
pub fn score(
    session: &mut dyn LanguageSession,
    prompt: &Prompt<'_>,
    labels: &[Vec<TokenId>],
    options: &ScoreOptions<'_>,
    cancel: &CancelToken,
) -> Result<Option<LabelScores>, Error> {
    let sorted = check(prompt, labels, options)?;
    let Some(start) = Start::run(session, prompt, cancel)? else { return Ok(None) };
    check_ids(labels.iter().flatten().chain(options.stop_token_ids), start.logits.len())?;
    let started = Instant::now();
    let mut tree = Tree { labels, options, prompt, logprobs: vec![0.0; labels.len()] };
    for pass in passes(labels, &sorted, options.max_rows) {
        let walked = tree.walk(session, &start.logits, &sorted[pass], cancel)?;
        session.rewind(prompt.input_ids.len());
        if !walked {
            return Ok(None);
        }
    }
    Ok(Some(LabelScores {
        scores: normalized(&tree.logprobs),
        prefill: start.prefill,
        labels: started.elapsed(),
    }))
}

/// The labels' indices in the order of their tokens.
fn check(
    prompt: &Prompt<'_>,
    labels: &[Vec<TokenId>],
    options: &ScoreOptions<'_>,
) -> Result<Vec<usize>, Error> {
    let refuse = |name, value: String, allowed: &'static str| {
        Err(Error::InvalidOption { name, value, allowed: allowed.into() })
    };
    if prompt.input_ids.is_empty() {
        return Err(Error::EmptyPrompt);
    }
    if labels.is_empty() {
        return refuse("labels", "an empty list".to_owned(), "one label or more");
    }
    if options.stop_token_ids.is_empty() {
        let allowed = "one token or more: the end of a label counts";
        return refuse("stop_token_ids", "an empty list".to_owned(), allowed);
    }
    if options.max_rows == 0 {
        return refuse("max_rows", "0".to_owned(), "1 or more");
    }
    if let Some(index) = labels.iter().position(Vec::is_empty) {
        return refuse("labels", format!("without tokens at index {index}"), "labels of one token or more");
    }
    let mut sorted: Vec<usize> = (0..labels.len()).collect();
    sorted.sort_by_key(|index| &labels[*index]);
    if let Some(pair) = sorted.windows(2).find(|pair| labels[pair[0]] == labels[pair[1]]) {
        let value = format!("the same tokens at indices {} and {}", pair[0], pair[1]);
        return refuse("labels", value, "labels that differ");
    }
    let longest = labels.iter().map(Vec::len).max().unwrap_or(0);
    let prompt_tokens = prompt.input_ids.len();
    if prompt_tokens.saturating_add(longest) > options.context_tokens {
        let limit = options.context_tokens;
        return Err(Error::LabelTooLong { prompt_tokens, label_tokens: longest, limit });
    }
    Ok(sorted)
}

fn check_ids<'a>(ids: impl IntoIterator<Item = &'a TokenId>, vocab_size: usize) -> Result<(), Error> {
    match ids.into_iter().find(|id| **id as usize >= vocab_size) {
        Some(&id) => Err(Error::TokenId { id, vocab_size }),
        None => Ok(()),
    }
}

/// Cuts the sorted labels into parts whose trees are nowhere wider than `max_rows`.
fn passes(labels: &[Vec<TokenId>], sorted: &[usize], max_rows: usize) -> Vec<Range<usize>> {
    let mut passes = Vec::new();
    let (mut start, mut widths) = (0, Vec::new());
    for (place, index) in sorted.iter().enumerate() {
        let label = &labels[*index];
        let before = if place == start { &[][..] } else { &labels[sorted[place - 1]] };
        let shared = label.iter().zip(before).take_while(|(a, b)| a == b).count();
        if widths.iter().take(label.len()).skip(shared).any(|width| *width == max_rows) {
            passes.push(start..place);
            (start, widths) = (place, vec![1; label.len()]);
            continue;
        }
        widths.resize(widths.len().max(label.len()), 0);
        widths[shared..label.len()].iter_mut().for_each(|width| *width += 1);
    }
    passes.push(start..sorted.len());
    passes
}

struct Tree<'a> {
    labels: &'a [Vec<TokenId>],
    options: &'a ScoreOptions<'a>,
    prompt: &'a Prompt<'a>,
    /// Of each label as far as it was walked.
    logprobs: Vec<f64>,
}

impl Tree<'_> {
    /// Walks the tree of `sorted` labels, whose first logits are `first`; whether it was not cancelled.
    fn walk(
        &mut self,
        session: &mut dyn LanguageSession,
        first: &[f32],
        sorted: &[usize],
        cancel: &CancelToken,
    ) -> Result<bool, Error> {
        let vocab_size = first.len();
        let mut logits = first;
        // The labels below each node of this depth; the nodes are the rows.
        let mut nodes = vec![sorted];
        for depth in 0.. {
            let (mut children, mut parents, mut tokens) = (Vec::new(), Vec::new(), Vec::new());
            for (row, (node, logits)) in nodes.iter().zip(logits.chunks_exact(vocab_size)).enumerate() {
                let all = log_sum_exp(logits);
                if !all.is_finite() {
                    return Err(Error::Numerical { step: depth });
                }
                let next = |index: usize| self.labels[index].get(depth).copied();
                for child in node.chunk_by(|a, b| next(*a) == next(*b)) {
                    let token = next(child[0]);
                    let logprob = self.logit(logits, token) - all;
                    child.iter().for_each(|index| self.logprobs[*index] += logprob);
                    if let Some(token) = token {
                        children.push(child);
                        parents.push(row);
                        tokens.push(token);
                    }
                }
            }
            if children.is_empty() {
                break;
            }
            if cancel.is_cancelled() {
                return Ok(false);
            }
            let position = (self.prompt.input_ids.len() + depth) as i64 + self.prompt.rope_delta;
            logits = session.decode(&parents, &tokens, position)?;
            nodes = children;
        }
        Ok(true)
    }

    /// The logit of a token; without one that of the end, which any of the stop tokens makes.
    fn logit(&self, logits: &[f32], token: Option<TokenId>) -> f64 {
        let stops = &self.options.stop_token_ids;
        let is_first = |i: usize| !stops[..i].contains(&stops[i]);
        match token {
            Some(token) => log_sum_exp(&[logits[token as usize]]),
            None => {
                let stops = (0..stops.len()).filter(|i| is_first(*i)).map(|i| logits[stops[i] as usize]);
                log_sum_exp(&stops.collect::<Vec<_>>())
            }
        }
    }
}

fn normalized(logprobs: &[f64]) -> Vec<LabelScore> {
    let largest = logprobs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    // Where all are impossible, none is likelier.
    let weight = |logprob: f64| if largest.is_finite() { (logprob - largest).exp() } else { 1.0 };
    let sum: f64 = logprobs.iter().map(|logprob| weight(*logprob)).sum();
    let one =
        |logprob: &f64| LabelScore { logprob: *logprob as f32, probability: (weight(*logprob) / sum) as f32 };
    logprobs.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_are_as_wide_as_allowed_and_no_wider() {
        let labels: Vec<Vec<TokenId>> =
            [&[1][..], &[1, 2], &[1, 2, 3], &[1, 4], &[2, 2], &[3], &[4, 1, 1]].map(<[_]>::to_vec).to_vec();
        let sorted: Vec<usize> = (0..labels.len()).collect();
        for (max_rows, want) in [
            (1, &[0..3, 3..4, 4..5, 5..6, 6..7][..]),
            (2, &[0..4, 4..6, 6..7]),
            (3, &[0..6, 6..7]),
            (4, std::slice::from_ref(&(0..7))),
            (32, std::slice::from_ref(&(0..7))),
        ] {
            assert_eq!(passes(&labels, &sorted, max_rows), want, "{max_rows}");
        }
    }

    #[test]
    fn probabilities_sum_up_to_one_however_small_they_are() {
        for logprobs in
            [&[-900.0, -901.0, -2000.0][..], &[0.0], &[f64::NEG_INFINITY, -1.0], &[f64::NEG_INFINITY; 2]]
        {
            let sum: f32 = normalized(logprobs).iter().map(|score| score.probability).sum();
            assert!((sum - 1.0).abs() < 1e-6, "{logprobs:?} {sum}");
        }
        assert_eq!(normalized(&[f64::NEG_INFINITY, -1.0])[0].probability, 0.0);
    }
}
