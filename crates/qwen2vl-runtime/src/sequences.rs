//! Several answers to one prompt, of which the prompt is run once.

use std::ops::ControlFlow;
use std::time::Duration;

use qwen2vl_types::TokenId;

use crate::generate::{Answering, Start, new_tokens};
use crate::{
    CancelToken, Constraint, Error, Generation, GenerationConfig, LanguageSession, OnToken, Prompt, Sampler,
};

/// Answers a prompt as often as `config.num_return_sequences` says. `on_token` sees the tokens of the first answer, and
/// may end all; those of beams are nobody's until the end.
///
/// Drawn answers come one after the other, each from draws of its own: answer `i` does not depend on how many are
/// asked for. Beams come best first.
///
/// # Errors
///
/// As [`crate::generate`].
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
    let Some(start) = Start::run(session, prompt, cancel)? else {
        return Ok(vec![Generation::cancelled(config)]);
    };
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
