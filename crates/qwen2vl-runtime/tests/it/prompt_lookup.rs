//! Prompt lookup on a scripted model: the same answers in fewer steps, whatever the options.

use std::ops::ControlFlow;

use qwen2vl_runtime::{
    CancelToken, Constraint, Error, FinishReason, Generation, GenerationConfig, LanguageSession, Prompt,
    generate,
};

use crate::scripted::{Hashed, VOCAB};

/// Allows one half of the tokens, by turns; after every fifth chosen one three are forced.
#[derive(Clone, Default)]
struct Halves {
    n: u32,
    forced: bool,
}

impl Constraint for Halves {
    fn mask(&mut self, logits: &mut [f32], remaining: usize) -> Result<(), Error> {
        assert!(remaining > 0);
        let others = logits.iter_mut().enumerate().filter(|(id, _)| *id as u32 % 2 != self.n % 2);
        others.for_each(|(_, logit)| *logit = f32::NEG_INFINITY);
        Ok(())
    }

    fn commit(&mut self, token: u32) -> Result<(), Error> {
        assert_eq!(token % 2, self.n % 2);
        self.n += 1;
        self.forced = self.n.is_multiple_of(5);
        Ok(())
    }

    fn forced(&mut self, remaining: usize) -> Result<Vec<u32>, Error> {
        let forced = if std::mem::take(&mut self.forced) { vec![1, 2, 3] } else { Vec::new() };
        Ok(forced.into_iter().take(remaining).collect())
    }

    fn is_finished(&self) -> bool {
        false
    }

    fn closed_early(&self) -> bool {
        false
    }

    fn fork(&self) -> Box<dyn Constraint> {
        Box::new(self.clone())
    }
}

/// The answer, the tokens as they came, the model's steps and how many tokens it holds at the end.
fn ask(
    seed: u64,
    config: &GenerationConfig,
    constrained: bool,
    until: usize,
) -> (Generation, Vec<u32>, usize, usize) {
    let ids: Vec<u32> = (0..40).map(|i| (i * i + seed as u32) % VOCAB as u32).collect();
    let positions: Vec<i64> = (0..40).collect();
    let position_ids = [positions.clone(), positions.clone(), positions];
    let prompt =
        Prompt { input_ids: &ids, position_ids: &position_ids, rope_delta: -3, images: &[], videos: &[] };
    let constraint = constrained.then(|| Box::new(Halves::default()) as Box<dyn Constraint>);
    let (mut model, mut streamed) = (Hashed::new(seed, -3), Vec::new());
    let answer = generate(&mut model, &prompt, config, 500, constraint, &CancelToken::new(), &mut |token| {
        streamed.push(token);
        if streamed.len() < until { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    (answer.unwrap(), streamed, model.steps, model.past_tokens() - ids.len())
}

/// Without the times.
fn parts(answer: &Generation) -> (&[u32], FinishReason, Option<Vec<String>>) {
    let logprobs = answer.logprobs.as_ref().map(|list| list.iter().map(|at| format!("{at:?}")).collect());
    (&answer.token_ids, answer.finish_reason, logprobs)
}

#[test]
fn answers_do_not_change_and_take_fewer_steps() {
    let greedy = GenerationConfig { max_new_tokens: 150, stop_token_ids: vec![7], ..Default::default() };
    let drawn = GenerationConfig { do_sample: true, temperature: 0.25, top_k: 9, ..greedy.clone() };
    let reported = GenerationConfig { logprobs: Some(2), ..drawn.clone() };
    let penalized = GenerationConfig { repetition_penalty: 1.2, frequency_penalty: 0.5, ..drawn.clone() };
    let mut stopped = 0;
    for (name, config) in
        [("greedy", greedy), ("drawn", drawn), ("reported", reported), ("penalized", penalized)]
    {
        let (mut plain_steps, mut lookup_steps) = (0, 0);
        for seed in 0..60 {
            for (constrained, until) in [(false, 999), (true, 999), (false, 1 + seed as usize)] {
                let config = GenerationConfig { seed, prompt_lookup_num_tokens: Some(0), ..config.clone() };
                let with_lookup = GenerationConfig {
                    // Every ninth as many as cost nothing.
                    prompt_lookup_num_tokens: (seed % 9 > 0).then_some(seed as usize % 9),
                    max_matching_ngram_size: 1 + seed as usize % 3,
                    ..config.clone()
                };
                let (want, streamed, steps, _) = ask(seed, &config, constrained, until);
                let (got, got_streamed, got_steps, held) = ask(seed, &with_lookup, constrained, until);
                assert_eq!(parts(&got), parts(&want), "{name} {seed} {constrained} {until}");
                assert_eq!(got_streamed, streamed);
                // What was guessed wrongly is forgotten.
                assert!(held <= got.token_ids.len(), "{held} of {}", got.token_ids.len());
                plain_steps += steps;
                lookup_steps += got_steps;
                stopped += usize::from(want.finish_reason == FinishReason::Stop);
            }
        }
        assert!(lookup_steps < plain_steps, "{name}: {lookup_steps} of {plain_steps}");
    }
    assert!(stopped > 100, "{stopped}");
}
