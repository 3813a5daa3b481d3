//! Log-probabilities of an answer's tokens, as OpenAI's API and vLLM report them: of the model's own distribution,
//! the softmax of its logits before penalties, bias, temperature or any cut. So they mean the same whatever the
//! options, and greedy answers have them too.

use qwen2vl_types::TokenId;

/// A token and its log-probability.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TokenLogprob {
    /// The token.
    pub token: TokenId,
    /// Natural logarithm of its probability.
    pub logprob: f32,
}

/// Log-probabilities of an answer, token by token.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Logprobs {
    chosen: Vec<TokenLogprob>,
    top: Vec<TokenLogprob>,
    /// Where each token's part of `top` ends.
    ends: Vec<usize>,
}

impl Logprobs {
    /// Tokens of the answer.
    pub fn len(&self) -> usize {
        self.chosen.len()
    }

    /// Whether the answer is empty.
    pub fn is_empty(&self) -> bool {
        self.chosen.is_empty()
    }

    /// Each token of the answer with the most probable ones in its place, those most probable first.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (TokenLogprob, &[TokenLogprob])> {
        self.chosen.iter().enumerate().map(|(i, chosen)| {
            let start = if i == 0 { 0 } else { self.ends[i - 1] };
            (*chosen, &self.top[start..self.ends[i]])
        })
    }

    pub(crate) fn truncate(&mut self, len: usize) {
        self.chosen.truncate(len);
        self.ends.truncate(len);
        self.top.truncate(self.ends.last().copied().unwrap_or(0));
    }
}

/// Collects [`Logprobs`].
#[derive(Debug, Clone)]
pub(crate) struct Recorder {
    n_top: usize,
    /// The row as the model gave it.
    row: Vec<f32>,
    logprobs: Logprobs,
}

impl Recorder {
    /// `n_top` most probable tokens are reported beside each chosen one.
    pub fn new(n_top: usize) -> Self {
        Self { n_top, row: Vec::new(), logprobs: Logprobs::default() }
    }

    /// Keeps the row of the next token.
    pub fn look(&mut self, logits: &[f32]) {
        self.row.clear();
        self.row.extend_from_slice(logits);
    }

    /// Adds the token that was chosen from the row looked at last.
    pub fn record(&mut self, token: TokenId) {
        let logarithm = log_sum_exp(&self.row);
        let logprob = |logit: f32| (f64::from(logit) - logarithm) as f32;

        let Logprobs { chosen, top, ends } = &mut self.logprobs;
        let logit = self.row.get(token as usize).copied().unwrap_or(f32::NEG_INFINITY);
        chosen.push(TokenLogprob { token, logprob: logprob(logit) });
        let start = top.len();
        if self.n_top > 0 {
            // Logits until the end; of equal ones the first stays in front.
            for (i, &logit) in self.row.iter().enumerate().filter(|(_, l)| l.is_finite()) {
                let full = top.len() - start == self.n_top;
                if full && top[top.len() - 1].logprob >= logit {
                    continue;
                }
                if full {
                    top.pop();
                }
                let place = start + top[start..].partition_point(|t| t.logprob >= logit);
                top.insert(place, TokenLogprob { token: i as TokenId, logprob: logit });
            }
            top[start..].iter_mut().for_each(|t| t.logprob = logprob(t.logprob));
        }
        ends.push(top.len());
    }

    /// What was collected.
    pub fn finish(self) -> Logprobs {
        self.logprobs
    }
}

/// The logarithm of the sum of the exponentials of all finite logits; minus infinity without any.
pub(crate) fn log_sum_exp(logits: &[f32]) -> f64 {
    let finite = || logits.iter().filter(|l| l.is_finite());
    let largest = finite().copied().max_by(f32::total_cmp).unwrap_or(0.0);
    let sum: f64 = finite().map(|l| f64::from((l - largest).exp())).sum();
    f64::from(largest) + sum.ln()
}

/// Turns logits into log-probabilities.
pub(crate) fn log_softmax(logits: &mut [f32]) {
    let logarithm = log_sum_exp(logits);
    logits.iter_mut().for_each(|logit| *logit = (f64::from(*logit) - logarithm) as f32);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_probable_come_in_order_and_the_chosen_one_stands_beside_them() {
        let mut recorder = Recorder::new(2);
        recorder.look(&[0.0, 1.0, f32::NAN, 1.0, f32::NEG_INFINITY]);
        recorder.record(0);
        recorder.look(&[0.0]);
        recorder.record(0);
        recorder.look(&[0.0, 0.0]);
        recorder.record(1);
        let mut logprobs = recorder.finish();
        assert_eq!(logprobs.len(), 3);
        let rows: Vec<_> = logprobs.iter().collect();
        let (chosen, top) = rows[0];
        let e = std::f32::consts::E;
        let want = -(1.0 + 2.0 * e).ln();
        assert!((chosen.logprob - want).abs() < 1e-6 && chosen.token == 0, "{chosen:?}");
        assert_eq!(top.iter().map(|t| t.token).collect::<Vec<_>>(), [1, 3]);
        assert!(top.iter().all(|t| (t.logprob - want - 1.0).abs() < 1e-6), "{top:?}");
        assert_eq!((rows[1].0.logprob, rows[1].1.len()), (0.0, 1));
        assert_eq!(rows[2].1.len(), 2);
        logprobs.truncate(2);
        assert_eq!((logprobs.len(), logprobs.iter().last().unwrap().1.len()), (2, 1));
        logprobs.truncate(0);
        assert!(logprobs.is_empty());
    }
}
