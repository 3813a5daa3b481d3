//! The generation loop on a scripted model that records what it is asked.

use std::ops::ControlFlow;

use qwen2vl_runtime::{
    CancelToken, Error, FinishReason, Generation, GenerationConfig, LanguageSession, Prompt, generate,
};

const EOS: u32 = 9;

/// Answers with `script`, one token a step, and records the tokens and positions that come back.
struct Scripted {
    script: Vec<u32>,
    logits: Vec<f32>,
    decoded: Vec<(u32, i64)>,
    prefills: usize,
    finite: bool,
}

impl Scripted {
    fn new(script: &[u32]) -> Self {
        Self { script: script.to_vec(), logits: Vec::new(), decoded: Vec::new(), prefills: 0, finite: true }
    }

    fn next(&mut self) -> &mut [f32] {
        let token = self.script.get(self.decoded.len()).copied().unwrap_or(EOS);
        self.logits = vec![if self.finite { 0.0 } else { f32::NAN }; 10];
        if self.finite {
            self.logits[token as usize] = 5.0;
        }
        &mut self.logits
    }
}

impl LanguageSession for Scripted {
    fn prefill(&mut self, _: &Prompt<'_>, cancel: &CancelToken) -> Result<Option<&mut [f32]>, Error> {
        self.prefills += 1;
        Ok(if cancel.is_cancelled() { None } else { Some(self.next()) })
    }

    fn decode(&mut self, token: u32, position: i64) -> Result<&mut [f32], Error> {
        self.decoded.push((token, position));
        Ok(self.next())
    }
}

fn config(max_new_tokens: usize) -> GenerationConfig {
    GenerationConfig { max_new_tokens, stop_token_ids: vec![EOS], ..GenerationConfig::default() }
}

fn run(
    model: &mut Scripted,
    config: &GenerationConfig,
    context: usize,
    cancel: &CancelToken,
    on_token: &mut dyn FnMut(u32) -> ControlFlow<()>,
) -> Result<Generation, Error> {
    let position_ids = [vec![0, 1, 2], vec![0, 1, 2], vec![0, 1, 2]];
    let prompt = Prompt {
        input_ids: &[1, 2, 3],
        position_ids: &position_ids,
        rope_delta: -2,
        images: &[],
        videos: &[],
    };
    generate(model, &prompt, config, context, cancel, on_token)
}

fn plain(model: &mut Scripted, config: &GenerationConfig, context: usize) -> Result<Generation, Error> {
    run(model, config, context, &CancelToken::new(), &mut |_| ControlFlow::Continue(()))
}

#[test]
fn positions_continue_at_the_number_of_tokens_plus_rope_delta() {
    let mut model = Scripted::new(&[4, 5, 6]);
    let answer = plain(&mut model, &config(10), 100).unwrap();
    assert_eq!((answer.token_ids, answer.finish_reason), (vec![4, 5, 6], FinishReason::Stop));
    // Three prompt tokens, delta -2: the first generated token stands at 1.
    assert_eq!(model.decoded, [(4, 1), (5, 2), (6, 3)]);
    assert_eq!(model.prefills, 1);
}

#[test]
fn the_limit_ends_an_answer_without_computing_a_step_more() {
    let mut model = Scripted::new(&[4, 5, 6]);
    let answer = plain(&mut model, &config(2), 100).unwrap();
    assert_eq!((answer.token_ids, answer.finish_reason), (vec![4, 5], FinishReason::Length));
    assert_eq!(model.decoded.len(), 1);
}

#[test]
fn the_context_bounds_prompt_and_answer() {
    let answer = plain(&mut Scripted::new(&[4, 5, 6, 7]), &config(50), 5).unwrap();
    assert_eq!((answer.token_ids, answer.finish_reason), (vec![4, 5], FinishReason::Length));
    let error = plain(&mut Scripted::new(&[4]), &config(50), 3).unwrap_err().to_string();
    assert!(error.contains("has 3 tokens") && error.contains("holds 3"), "{error}");
}

#[test]
fn a_stop_token_at_once_gives_an_empty_answer() {
    let answer = plain(&mut Scripted::new(&[]), &config(5), 100).unwrap();
    assert_eq!((answer.token_ids, answer.finish_reason), (vec![], FinishReason::Stop));
}

#[test]
fn the_caller_and_the_token_cancel_within_one_step() {
    let mut model = Scripted::new(&[4; 50]);
    let mut seen = 0;
    let answer = run(&mut model, &config(50), 100, &CancelToken::new(), &mut |_| {
        seen += 1;
        if seen == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let answer = answer.unwrap();
    assert_eq!((answer.token_ids.len(), answer.finish_reason), (3, FinishReason::Cancelled));

    let cancel = CancelToken::new();
    let other = cancel.clone();
    let answer = run(&mut Scripted::new(&[4; 50]), &config(50), 100, &cancel, &mut |_| {
        other.cancel();
        ControlFlow::Continue(())
    });
    assert_eq!(
        (answer.as_ref().unwrap().token_ids.len(), answer.unwrap().finish_reason),
        (1, FinishReason::Cancelled)
    );

    let mut model = Scripted::new(&[4]);
    let answer = run(&mut model, &config(5), 100, &cancel, &mut |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(
        (answer.token_ids, answer.finish_reason, model.prefills),
        (vec![], FinishReason::Cancelled, 0)
    );
}

#[test]
fn damaged_logits_are_an_error_not_a_token() {
    let mut model = Scripted::new(&[4]);
    model.finite = false;
    assert!(matches!(plain(&mut model, &config(5), 100), Err(Error::Numerical { step: 0 })));
}

#[test]
fn an_empty_prompt_is_an_error() {
    let prompt = Prompt {
        input_ids: &[],
        position_ids: &[vec![], vec![], vec![]],
        rope_delta: 0,
        images: &[],
        videos: &[],
    };
    let result =
        generate(&mut Scripted::new(&[4]), &prompt, &config(5), 100, &CancelToken::new(), &mut |_| {
            ControlFlow::Continue(())
        });
    assert!(matches!(result, Err(Error::EmptyPrompt)));
}

#[test]
fn one_seed_gives_one_answer() {
    let sample = |seed| {
        let config = GenerationConfig { do_sample: true, temperature: 3.0, seed, ..config(40) };
        plain(&mut Scripted::new(&[1; 60]), &config, 100).unwrap().token_ids
    };
    assert_eq!(sample(1), sample(1));
    assert!((2..12).any(|seed| sample(seed) != sample(1)));
}
