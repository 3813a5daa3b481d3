//! Several answers to one prompt, of which the prompt is run once.

use std::ops::ControlFlow;
use std::time::Duration;

use qwen2vl_types::TokenId;

use crate::beam_search::BeamSearch;
use crate::generate::{Answering, Start, new_tokens};
use crate::{
    CancelToken, Constraint, Error, FinishReason, Generation, GenerationConfig, LanguageSession, OnToken,
    Prompt, Sampler,
};

/// Answers a prompt as often as `config.num_return_sequences` says. `on_token` sees the tokens of the first answer, and
/// may end all; those of beams come when the search has ended.
///
/// Drawn answers come one after the other, each from draws of its own: answer `i` does not depend on how many are
/// asked for. With `config.num_beams` over 1 the best beams are the answers, the best first; there are fewer where the
/// options exclude almost everything.
///
/// # Errors
///
/// As [`crate::generate`], and [`Error::InvalidOption`] for beams under a constraint.
pub fn generate_all(
    session: &mut dyn LanguageSession,
    prompt: &Prompt<'_>,
    config: &GenerationConfig,
    context_tokens: usize,
    constraint: Option<&dyn Constraint>,
    cancel: &CancelToken,
    on_token: &mut OnToken<'_>,
) -> Result<Vec<Generation>, Error> {
    let limit = new_tokens(prompt, config, context_tokens)?;
    if config.num_beams > 1 && constraint.is_some() {
        return Err(Error::InvalidOption {
            name: "num_beams",
            value: config.num_beams.to_string(),
            allowed: "1 with a constraint (a schema, a grammar, choices): beams do not keep to one".into(),
        });
    }
    let Some(start) = Start::run(session, prompt, cancel)? else {
        return Ok(vec![Generation::cancelled(config)]);
    };
    if config.num_beams > 1 {
        let mut answers = BeamSearch { prompt, config, limit, cancel }.run(session, start)?;
        if let Some(best) = answers.first_mut() {
            show(best, on_token);
        }
        return Ok(answers);
    }
    let mut ignore = |_: TokenId| ControlFlow::Continue(());
    let one = |index: usize| {
        // The prompt's pass is the first answer's.
        let prefill = if index == 0 { start.prefill } else { Duration::ZERO };
        session.rewind(prompt.input_ids.len());
        let answering = Answering {
            prompt,
            config,
            limit,
            sampler: Sampler::new(config, prompt.input_ids)?.for_sequence(index),
            constraint: constraint.map(Constraint::fork),
            cancel,
            on_token: if index == 0 { &mut *on_token } else { &mut ignore },
        };
        answering.run(session, Start { prefill, ..start.clone() })
    };
    (0..config.num_return_sequences).map(one).collect()
}

/// Hands a finished answer's tokens on, and cuts it where it is ended.
fn show(answer: &mut Generation, on_token: &mut OnToken<'_>) {
    let ends = answer.token_ids.iter().position(|token| on_token(*token).is_break());
    if let Some(last) = ends {
        answer.token_ids.truncate(last + 1);
        answer.finish_reason = FinishReason::Cancelled;
    }
}
