//! The generation loop: prefill, then one token at a time until a stop token, the limit, or a cancellation.
//!
//! Knows no OpenVINO: it runs on anything that implements [`LanguageSession`].

use std::fmt;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use qwen2vl_types::TokenId;
use serde::Serialize;

use crate::{CancelToken, Error, GenerationConfig, LanguageSession, Logprobs, Prompt, Sampler};

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
}

/// Answers a prompt. `on_token` sees every token of the answer as it comes and may end it.
///
/// # Errors
///
/// [`Error::InvalidOption`] for options out of range, [`Error::EmptyPrompt`], [`Error::InputTooLong`],
/// [`Error::ContextExceeded`] if the prompt leaves no room within `context_tokens`, [`Error::NothingAllowed`] if the
/// options exclude every token, and what the session reports.
pub fn generate(
    session: &mut dyn LanguageSession,
    prompt: &Prompt<'_>,
    config: &GenerationConfig,
    context_tokens: usize,
    cancel: &CancelToken,
    on_token: &mut dyn FnMut(TokenId) -> ControlFlow<()>,
) -> Result<Generation, Error> {
    let mut sampler = Sampler::new(config, prompt.input_ids)?;
    let prompt_tokens = prompt.input_ids.len();
    if prompt_tokens == 0 {
        return Err(Error::EmptyPrompt);
    }
    config.check_prompt_tokens(prompt_tokens)?;
    if prompt_tokens >= context_tokens {
        return Err(Error::ContextExceeded { prompt_tokens, limit: context_tokens });
    }
    let limit = config.max_new_tokens.min(context_tokens - prompt_tokens);

    let started = Instant::now();
    let mut answer = Generation {
        token_ids: Vec::new(),
        finish_reason: FinishReason::Cancelled,
        prefill: Duration::ZERO,
        generate: Duration::ZERO,
        logprobs: config.logprobs.map(|_| Logprobs::default()),
    };
    if cancel.is_cancelled() {
        return Ok(answer);
    }
    let logits = session.prefill(prompt, cancel)?;
    answer.prefill = started.elapsed();
    let Some(mut logits) = logits else {
        return Ok(answer);
    };
    answer.finish_reason = loop {
        let step = answer.token_ids.len();
        let token = sampler.sample(logits)?;
        if config.stop_token_ids.contains(&token) {
            break FinishReason::Stop;
        }
        answer.token_ids.push(token);
        if on_token(token).is_break() {
            break FinishReason::Cancelled;
        }
        if answer.token_ids.len() == limit {
            break FinishReason::Length;
        }
        if cancel.is_cancelled() {
            break FinishReason::Cancelled;
        }
        let position = (prompt_tokens + step) as i64 + prompt.rope_delta;
        logits = session.decode(token, position)?;
    };
    answer.generate = started.elapsed() - answer.prefill;
    answer.logprobs = sampler.into_logprobs();
    if let Some(logprobs) = &mut answer.logprobs {
        // The stop token is not part of the answer.
        logprobs.truncate(answer.token_ids.len());
    }
    Ok(answer)
}
