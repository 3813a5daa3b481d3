//! Beam search: several answers followed at once, each step of all in one call of the model.
//!
//! Follows transformers 4.57.6, `GenerationMixin._beam_search`, for one prompt: the processors change log-probabilities
//! instead of logits, the best `(1 + stop tokens) * num_beams` continuations are looked at, and of these only the best
//! `num_beams` may end. One thing differs where options exclude almost everything: the reference fills up with
//! continuations of probability zero, here there are fewer beams then, and fewer answers in the end.

use std::time::{Duration, Instant};

use qwen2vl_types::TokenId;

use crate::generate::Start;
use crate::logits::history::History;
use crate::logits::logprobs::log_softmax;
use crate::logits::processors::process;
use crate::{
    CancelToken, EarlyStopping, Error, FinishReason, Generation, GenerationConfig, LanguageSession, Prompt,
};

/// What the reference has in place of a score that nothing has reached yet.
const NO_SCORE: f32 = -1.0e9;

/// The search for answers to one prompt, which the session holds.
pub(crate) struct BeamSearch<'a> {
    pub prompt: &'a Prompt<'a>,
    pub config: &'a GenerationConfig,
    /// The most tokens of an answer, at least 1.
    pub limit: usize,
    pub cancel: &'a CancelToken,
}

/// An answer that goes on.
struct Open {
    history: History,
    /// Sum of the log-probabilities of its tokens.
    score: f32,
}

/// An answer that has ended.
struct Ended {
    token_ids: Vec<TokenId>,
    finish_reason: FinishReason,
    /// The sum over its length to the power of the length penalty.
    score: f32,
}

/// A token that may continue a beam.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    beam: usize,
    token: TokenId,
    score: f32,
}

impl BeamSearch<'_> {
    /// The answers, the best first; at most `num_return_sequences`, and one if cancelled. The session is left with the
    /// prompt alone.
    pub fn run(&self, session: &mut dyn LanguageSession, mut start: Start) -> Result<Vec<Generation>, Error> {
        let started = Instant::now();
        let vocab_size = start.logits.len();
        let mut open = vec![Open { history: History::new(self.prompt.input_ids), score: 0.0 }];
        let mut ended = Vec::new();
        let mut logits = start.logits.as_mut_slice();
        let mut length = 0;
        while !self.cancel.is_cancelled() {
            let candidates = self.best_candidates(&open, logits, vocab_size)?;
            length += 1;
            let next = self.advance(&open, &candidates, length, &mut ended);
            let goes_on = self.goes_on(next.first(), length, &ended);
            if !goes_on {
                break;
            }
            let parents: Vec<usize> = next.iter().map(|c| c.beam).collect();
            let tokens: Vec<TokenId> = next.iter().map(|c| c.token).collect();
            let continued = next.iter().map(|c| {
                let mut history = open[c.beam].history.clone();
                history.push(c.token);
                Open { history, score: c.score }
            });
            open = continued.collect();
            let position = (self.prompt.input_ids.len() + length - 1) as i64 + self.prompt.rope_delta;
            logits = session.decode(&parents, &tokens, position)?;
        }
        session.rewind(self.prompt.input_ids.len());
        let mut answers = if self.cancel.is_cancelled() { vec![self.cancelled(&open)] } else { ended };
        answers.truncate(self.config.num_return_sequences);
        let timed = |(index, answer): (usize, Ended)| {
            // The work is that of all.
            let (prefill, generate) = match index {
                0 => (start.prefill, started.elapsed()),
                _ => (Duration::ZERO, Duration::ZERO),
            };
            Generation {
                token_ids: answer.token_ids,
                finish_reason: answer.finish_reason,
                prefill,
                generate,
                logprobs: None,
                score: Some(answer.score),
            }
        };
        Ok(answers.into_iter().enumerate().map(timed).collect())
    }

    /// `_get_top_k_continuations`: the best continuations of all open beams, the best first.
    fn best_candidates(
        &self,
        open: &[Open],
        logits: &mut [f32],
        vocab_size: usize,
    ) -> Result<Vec<Candidate>, Error> {
        // Each beam may end on every stop token, and as many others must be left as there are beams.
        let keep = (1 + self.config.stop_token_ids.len()).max(2) * self.config.num_beams;
        let mut best: Vec<Candidate> = Vec::with_capacity(keep + 1);
        let mut excluded = false;
        for (beam, (from, row)) in open.iter().zip(logits.chunks_exact_mut(vocab_size)).enumerate() {
            log_softmax(row);
            excluded |= process(self.config, &from.history, row);
            for (token, logprob) in row.iter().enumerate().filter(|(_, logprob)| logprob.is_finite()) {
                let score = from.score + logprob;
                if best.len() == keep && best[keep - 1].score >= score {
                    continue;
                }
                best.truncate(keep - 1);
                let place = best.partition_point(|other| other.score >= score);
                best.insert(place, Candidate { beam, token: token as TokenId, score });
            }
        }
        if best.is_empty() {
            let step = open[0].history.n_new_tokens();
            return Err(if excluded { Error::NothingAllowed { step } } else { Error::Numerical { step } });
        }
        Ok(best)
    }

    /// `_update_finished_beams` and `_get_running_beams_for_next_iteration`: what ends with its token, the `length`-th,
    /// goes to `ended`; the best of the others are returned.
    fn advance(
        &self,
        open: &[Open],
        candidates: &[Candidate],
        length: usize,
        ended: &mut Vec<Ended>,
    ) -> Vec<Candidate> {
        let num_beams = self.config.num_beams;
        let mut next = Vec::with_capacity(num_beams);
        for (rank, candidate) in candidates.iter().enumerate() {
            let stops = self.config.stop_token_ids.contains(&candidate.token);
            if !stops && length < self.limit {
                next.push(*candidate);
            } else if rank < num_beams {
                let before = &open[candidate.beam].history.tokens()[self.prompt.input_ids.len()..];
                let last = (!stops).then_some(candidate.token);
                ended.push(Ended {
                    token_ids: before.iter().copied().chain(last).collect(),
                    finish_reason: if stops { FinishReason::Stop } else { FinishReason::Length },
                    score: self.normalized(candidate.score, length),
                });
            }
        }
        next.truncate(num_beams);
        // Stable: of equal ones the earlier stays in front.
        ended.sort_by(|a, b| b.score.total_cmp(&a.score));
        ended.truncate(num_beams);
        next
    }

    /// `_check_early_stop_heuristic` and `_beam_search_has_unfinished_sequences`.
    fn goes_on(&self, best: Option<&Candidate>, length: usize, ended: &[Ended]) -> bool {
        let Some(best) = best else { return false };
        let full = ended.len() == self.config.num_beams;
        let early_stopping = self.config.early_stopping;
        if full && early_stopping == EarlyStopping::Yes {
            return false;
        }
        let longer_is_better = self.config.length_penalty > 0.0;
        let length = match early_stopping {
            EarlyStopping::Never if longer_is_better => self.limit,
            _ => length,
        };
        let worst = if full { ended[ended.len() - 1].score } else { NO_SCORE };
        self.normalized(best.score, length) > worst
    }

    fn normalized(&self, score: f32, length: usize) -> f32 {
        score / (length as f64).powf(f64::from(self.config.length_penalty)) as f32
    }

    /// The best answer so far, which a cancellation cuts.
    fn cancelled(&self, open: &[Open]) -> Ended {
        let best = &open[0];
        let token_ids = best.history.tokens()[self.prompt.input_ids.len()..].to_vec();
        let score = self.normalized(best.score, token_ids.len().max(1));
        Ended { token_ids, finish_reason: FinishReason::Cancelled, score }
    }
}
