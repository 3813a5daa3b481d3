//! Scoring labels: how probable each of some given answers is, without generating any.
//!
//! The prompt is run once, and the labels' tokens are a tree below it, of which every node is run once: what labels begin
//! with in common is computed once. Subtrees of as many labels as there may be rows are walked depth by depth, all nodes of
//! a depth in one step; the nodes above them are run one by one.
//!
//! A label's log-probability is that of its tokens and of a stop token after them, by the model's own distribution,
//! whatever temperature or penalties. With the end counted, labels that begin other labels ("cat", "cats") are
//! different answers like all others.

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
    let mut tree = Tree { labels, options, prompt, cancel, logprobs: vec![0.0; labels.len()] };
    let walked = tree.walk(session, &start.logits, &sorted)?;
    session.rewind(prompt.input_ids.len());
    if !walked {
        return Ok(None);
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

struct Tree<'a> {
    labels: &'a [Vec<TokenId>],
    options: &'a ScoreOptions<'a>,
    prompt: &'a Prompt<'a>,
    cancel: &'a CancelToken,
    /// Of each label as far as it was walked.
    logprobs: Vec<f64>,
}

/// Labels with the same tokens up to some depth, sorted: a node of the tree.
type Node<'s> = &'s [usize];

impl Tree<'_> {
    /// Walks the tree of all labels, `sorted`, whose first logits are `first`; whether it was not cancelled.
    fn walk(
        &mut self,
        session: &mut dyn LanguageSession,
        first: &[f32],
        sorted: Node<'_>,
    ) -> Result<bool, Error> {
        // From the root down to the node that the session holds, of each what is still to be run below it.
        let mut path = vec![self.children(sorted, 0, first)?];
        while let Some(rest) = path.last_mut() {
            let n = batch(rest, self.options.max_rows);
            let nodes: Vec<Node<'_>> = rest.drain(..n).collect();
            let depth = path.len();
            if nodes.is_empty() {
                path.pop();
                continue;
            }
            session.rewind(self.prompt.input_ids.len() + depth - 1);
            if nodes[0].len() > self.options.max_rows {
                let Some(logits) = self.step(session, &[0], &nodes, depth)? else { return Ok(false) };
                path.push(self.children(nodes[0], depth, logits)?);
            } else if !self.walk_broadly(session, nodes, depth)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Walks subtrees that fit into rows together, their roots in `depth` tokens.
    fn walk_broadly(
        &mut self,
        session: &mut dyn LanguageSession,
        mut nodes: Vec<Node<'_>>,
        mut depth: usize,
    ) -> Result<bool, Error> {
        let mut parents = vec![0; nodes.len()];
        while !nodes.is_empty() {
            let Some(logits) = self.step(session, &parents, &nodes, depth)? else { return Ok(false) };
            let rows = logits.chunks_exact(logits.len() / nodes.len());
            let mut below = Vec::new();
            parents.clear();
            for (row, (node, logits)) in nodes.iter().zip(rows).enumerate() {
                let children = self.children(node, depth, logits)?;
                parents.resize(parents.len() + children.len(), row);
                below.extend(children);
            }
            (nodes, depth) = (below, depth + 1);
        }
        Ok(true)
    }

    /// Runs the last token of each node, the `depth`-th of its labels; `None` when cancelled.
    fn step<'l>(
        &self,
        session: &'l mut dyn LanguageSession,
        parents: &[usize],
        nodes: &[Node<'_>],
        depth: usize,
    ) -> Result<Option<&'l [f32]>, Error> {
        if self.cancel.is_cancelled() {
            return Ok(None);
        }
        let tokens: Vec<TokenId> = nodes.iter().map(|node| self.labels[node[0]][depth - 1]).collect();
        let position = (self.prompt.input_ids.len() + depth - 1) as i64 + self.prompt.rope_delta;
        Ok(Some(session.decode(parents, &tokens, position)?))
    }

    /// What is below a node of `depth` tokens, by the logits after them.
    fn children<'s>(&mut self, node: Node<'s>, depth: usize, logits: &[f32]) -> Result<Vec<Node<'s>>, Error> {
        let all = log_sum_exp(logits);
        if !all.is_finite() {
            return Err(Error::Numerical { step: depth });
        }
        let next = |index: usize| self.labels[index].get(depth).copied();
        let mut children = Vec::new();
        for child in node.chunk_by(|a, b| next(*a) == next(*b)) {
            let token = next(child[0]);
            let logprob = self.logit(logits, token) - all;
            child.iter().for_each(|index| self.logprobs[*index] += logprob);
            if token.is_some() {
                children.push(child);
            }
        }
        Ok(children)
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

/// How many of the first nodes fit into rows together; a node that does not fit is taken alone.
fn batch(nodes: &[Node<'_>], max_rows: usize) -> usize {
    let mut labels = 0;
    let fit = nodes.iter().take_while(|node| {
        labels += node.len();
        labels <= max_rows
    });
    fit.count().max(1).min(nodes.len())
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
    fn batches_are_as_large_as_allowed_and_never_empty() {
        let indices: Vec<usize> = (0..6).collect();
        let nodes: Vec<Node<'_>> = vec![&indices[..2], &indices[2..5], &indices[5..]];
        for (max_rows, want) in [(1, 1), (2, 1), (4, 1), (5, 2), (6, 3), (100, 3)] {
            assert_eq!(batch(&nodes, max_rows), want, "{max_rows}");
        }
        assert_eq!(batch(&[], 5), 0);
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
