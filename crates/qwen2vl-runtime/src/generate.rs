//! The generation loop: prefill, then one token at a time until a stop token, the limit, or a cancellation.
//!
//! Knows no OpenVINO: it runs on anything that implements [`LanguageSession`].

use std::fmt;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use qwen2vl_types::TokenId;
use serde::Serialize;

use crate::prompt_lookup::PromptLookup;
use crate::{CancelToken, Constraint, Error, GenerationConfig, LanguageSession, Logprobs, Prompt, Sampler};

/// Sees every token of an answer as it comes, and may end it.
pub type OnToken<'f> = dyn FnMut(TokenId) -> ControlFlow<()> + 'f;

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FinishReason {
    /// A stop token came.
    Stop,
    /// `max_new_tokens` or the model's context is used up.
    Length,
    /// The caller ended it.
    Cancelled,
}

impl fmt::Display for FinishReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::Cancelled => "cancelled",
        })
    }
}

/// An answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Generation {
    /// The tokens, without the stop token.
    pub token_ids: Vec<TokenId>,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// Time of the prompt's pass, up to the first logits.
    pub prefill: Duration,
    /// Time of everything after it.
    pub generate: Duration,
    /// Log-probabilities of the tokens, if the options ask for them.
    pub logprobs: Option<Logprobs>,
    /// The score of a beam: its tokens' log-probabilities together, the stop token's included, over its length to the
    /// power of `length_penalty`. `None` without beam search.
    pub score: Option<f32>,
}

/// Answers a prompt. `on_token` sees every token of the answer as it comes and may end it.
///
/// Tokens that `constraint` forces go into the next step together with the one before them; where log-probabilities are
/// asked for, they are computed one by one. Where `prompt_lookup_num_tokens` allows, the next step also runs a guess at
/// what follows; the answer is the same. Of `config`, `num_beams` and `num_return_sequences` are not looked at:
/// [`crate::generate_all`] does.
///
/// # Errors
///
/// [`Error::InvalidOption`] for options out of range, [`Error::EmptyPrompt`], [`Error::InputTooLong`],
/// [`Error::ContextExceeded`] if the prompt leaves no room within `context_tokens`, [`Error::NothingAllowed`] if the
/// options exclude every token, and what session and constraint report.
pub fn generate(
    session: &mut dyn LanguageSession,
    prompt: &Prompt<'_>,
    config: &GenerationConfig,
    context_tokens: usize,
    constraint: Option<Box<dyn Constraint>>,
    cancel: &CancelToken,
    on_token: &mut OnToken<'_>,
) -> Result<Generation, Error> {
    let limit = new_tokens(prompt, config, context_tokens)?;
    let sampler = Sampler::new(config, prompt.input_ids)?;
    let Some(start) = Start::run(session, prompt, cancel)? else {
        return Ok(Generation::cancelled(config));
    };
    Answering { prompt, config, limit, sampler, constraint, cancel, on_token }.run(session, start)
}

/// What a prompt's pass leaves behind.
#[derive(Debug, Clone)]
pub(crate) struct Start {
    /// Of the prompt's last position.
    pub logits: Vec<f32>,
    pub prefill: Duration,
}

impl Start {
    /// Runs a prompt; `None` when cancelled.
    pub fn run(
        session: &mut dyn LanguageSession,
        prompt: &Prompt<'_>,
        cancel: &CancelToken,
    ) -> Result<Option<Self>, Error> {
        if cancel.is_cancelled() {
            return Ok(None);
        }
        let started = Instant::now();
        let logits = session.prefill(prompt, cancel)?.map(|logits| logits.to_vec());
        Ok(logits.map(|logits| Self { logits, prefill: started.elapsed() }))
    }
}

impl Generation {
    /// The answer of a request that ended before its first token.
    pub(crate) fn cancelled(config: &GenerationConfig) -> Self {
        Self {
            token_ids: Vec::new(),
            finish_reason: FinishReason::Cancelled,
            prefill: Duration::ZERO,
            generate: Duration::ZERO,
            logprobs: config.logprobs.map(|_| Logprobs::default()),
            score: None,
        }
    }
}

/// The most tokens that the answer to a prompt may have.
pub(crate) fn new_tokens(
    prompt: &Prompt<'_>,
    config: &GenerationConfig,
    context_tokens: usize,
) -> Result<usize, Error> {
    config.validate()?;
    let prompt_tokens = prompt.input_ids.len();
    if prompt_tokens == 0 {
        return Err(Error::EmptyPrompt);
    }
    config.check_prompt_tokens(prompt_tokens)?;
    if prompt_tokens >= context_tokens {
        return Err(Error::ContextExceeded { prompt_tokens, limit: context_tokens });
    }
    Ok(config.max_new_tokens.min(context_tokens - prompt_tokens))
}

/// One answer in the making.
pub(crate) struct Answering<'a, 'f> {
    pub prompt: &'a Prompt<'a>,
    pub config: &'a GenerationConfig,
    /// The most tokens of the answer, at least 1.
    pub limit: usize,
    pub sampler: Sampler,
    pub constraint: Option<Box<dyn Constraint>>,
    pub cancel: &'a CancelToken,
    pub on_token: &'a mut OnToken<'f>,
}

impl Answering<'_, '_> {
    /// Goes on where the session stands: behind the prompt.
    pub fn run(mut self, session: &mut dyn LanguageSession, mut start: Start) -> Result<Generation, Error> {
        let started = Instant::now();
        let mut answer = Generation { prefill: start.prefill, ..Generation::cancelled(self.config) };
        let mut lookup = PromptLookup::new(self.config, self.prompt.input_ids);
        answer.finish_reason = self.answer(session, &mut start.logits, &mut lookup, &mut answer.token_ids)?;
        answer.generate = started.elapsed();
        answer.logprobs = self.sampler.into_logprobs();
        if let Some(logprobs) = &mut answer.logprobs {
            // The stop token is not part of the answer.
            logprobs.truncate(answer.token_ids.len());
        }
        Ok(answer)
    }

    fn answer(
        &mut self,
        session: &mut dyn LanguageSession,
        start: &mut [f32],
        lookup: &mut Option<PromptLookup>,
        token_ids: &mut Vec<TokenId>,
    ) -> Result<FinishReason, Error> {
        if let Some(reason) = self.force(token_ids)? {
            return Ok(reason);
        }
        // Tokens of the answer that the session has run.
        let mut run = 0;
        if token_ids.is_empty()
            && let Some(reason) = self.choose(start, &[], token_ids)?
        {
            return Ok(reason);
        }
        loop {
            if self.cancel.is_cancelled() {
                return Ok(FinishReason::Cancelled);
            }
            let guess = lookup.as_mut().map_or_else(Vec::new, |lookup| {
                lookup.extend(token_ids);
                lookup.guess(self.limit - token_ids.len() - 1, session.free_guesses())
            });
            let first = token_ids.len();
            let (logits, guess) = self.next_logits(session, &token_ids[run..], run, guess)?;
            let reason = self.choose(logits, &guess, token_ids)?;
            let right = common_prefix(&token_ids[first..], &guess);
            run = first + right;
            if right < guess.len() {
                session.rewind(self.prompt.input_ids.len() + run);
            }
            if let (Some(lookup), false) = (&mut *lookup, guess.is_empty()) {
                lookup.came_true(guess.len(), right);
            }
            if let Some(reason) = reason {
                return Ok(reason);
            }
        }
    }

    /// Has the answer's tokens behind the first `run` run, and with them a guess at the next ones. The logits behind them
    /// and behind each of the guess, which is empty where the session checks none.
    fn next_logits<'s>(
        &self,
        session: &'s mut dyn LanguageSession,
        pending: &[TokenId],
        run: usize,
        guess: Vec<TokenId>,
    ) -> Result<(&'s mut [f32], Vec<TokenId>), Error> {
        let position = (self.prompt.input_ids.len() + run) as i64 + self.prompt.rope_delta;
        if !guess.is_empty() && session.verifies() {
            let logits = session.verify(&[pending, &guess].concat(), guess.len(), position)?;
            return Ok((logits, guess));
        }
        Ok((session.decode(&[0], pending, position)?, Vec::new()))
    }

    /// Chooses tokens as long as there are logits: behind each token that is as guessed there are some.
    fn choose(
        &mut self,
        logits: &mut [f32],
        guess: &[TokenId],
        token_ids: &mut Vec<TokenId>,
    ) -> Result<Option<FinishReason>, Error> {
        let first = token_ids.len();
        let vocab_size = logits.len() / (1 + guess.len());
        for (at, logits) in logits.chunks_exact_mut(vocab_size).enumerate() {
            // A constraint may have forced tokens past this place, or to others than guessed.
            let new = &token_ids[first..];
            if new.len() > at {
                continue;
            }
            if new != &guess[..at] {
                break;
            }
            if self.cancel.is_cancelled() {
                return Ok(Some(FinishReason::Cancelled));
            }
            let remaining = self.limit - token_ids.len();
            let constraint = &mut self.constraint;
            let token = self.sampler.sample_among(logits, |logits| match constraint {
                Some(constraint) => constraint.mask(logits, remaining),
                None => Ok(()),
            })?;
            if self.config.stop_token_ids.contains(&token) {
                return Ok(Some(self.stopped()));
            }
            if let Some(constraint) = &mut self.constraint {
                constraint.commit(token)?;
            }
            if let Some(reason) = self.take(token, token_ids) {
                return Ok(Some(reason));
            }
            if let Some(reason) = self.force(token_ids)? {
                return Ok(Some(reason));
            }
        }
        Ok(None)
    }

    /// Appends what the constraint forces.
    fn force(&mut self, token_ids: &mut Vec<TokenId>) -> Result<Option<FinishReason>, Error> {
        let Some(constraint) = &mut self.constraint else { return Ok(None) };
        if constraint.is_finished() {
            return Ok(Some(self.stopped()));
        }
        if self.config.logprobs.is_some() {
            return Ok(None);
        }
        let forced = constraint.forced(self.limit - token_ids.len())?;
        let finished = constraint.is_finished();
        for token in forced {
            self.sampler.push(token);
            if let Some(reason) = self.take(token, token_ids) {
                return Ok(Some(reason));
            }
        }
        Ok(finished.then(|| self.stopped()))
    }

    /// Adds a token to the answer; the reason if it was the last.
    fn take(&mut self, token: TokenId, token_ids: &mut Vec<TokenId>) -> Option<FinishReason> {
        token_ids.push(token);
        if (self.on_token)(token).is_break() {
            return Some(FinishReason::Cancelled);
        }
        if token_ids.len() < self.limit {
            return None;
        }
        let finished = self.constraint.as_ref().is_some_and(|c| c.is_finished());
        Some(if finished { self.stopped() } else { FinishReason::Length })
    }

    /// The reason of an answer that ended by itself.
    fn stopped(&self) -> FinishReason {
        let closed = self.constraint.as_ref().is_some_and(|c| c.closed_early());
        if closed { FinishReason::Length } else { FinishReason::Stop }
    }
}

fn common_prefix(one: &[TokenId], other: &[TokenId]) -> usize {
    one.iter().zip(other).take_while(|(a, b)| a == b).count()
}
