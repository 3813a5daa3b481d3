//! Beam search on scripted models: transformers' results under random options, and what must not change them.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use qwen2vl_runtime::{
    CancelToken, Constraint, EarlyStopping, Error, FinishReason, Generation, GenerationConfig,
    LanguageSession, Prompt, generate_all,
};
use qwen2vl_testkit::{check_all, golden, read_jsonl};
use serde::Deserialize;

use crate::scripted::Hashed;

/// Some 20 additions in f32 of log-probabilities that two implementations compute.
const SCORE_TOLERANCE: f32 = 1e-5;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    num_beams: usize,
    num_return_sequences: usize,
    max_new_tokens: usize,
    length_penalty: f32,
    early_stopping: EarlyStopping,
    min_new_tokens: Option<usize>,
    repetition_penalty: Option<f32>,
    no_repeat_ngram_size: Option<usize>,
    #[serde(default)]
    suppress_tokens: Vec<u32>,
    #[serde(default)]
    logit_bias: BTreeMap<u32, f32>,
}

#[derive(Debug, Deserialize)]
struct Case {
    seed: u64,
    prompt: Vec<u32>,
    stop_token_ids: Vec<u32>,
    options: Options,
    want: Vec<Beam>,
}

#[derive(Debug, Deserialize)]
struct Beam {
    ids: Vec<u32>,
    stopped: bool,
    score: f32,
}

impl Case {
    fn config(&self) -> GenerationConfig {
        let (options, default) = (&self.options, GenerationConfig::default());
        GenerationConfig {
            num_beams: options.num_beams,
            num_return_sequences: options.num_return_sequences,
            max_new_tokens: options.max_new_tokens,
            length_penalty: options.length_penalty,
            early_stopping: options.early_stopping,
            min_new_tokens: options.min_new_tokens.unwrap_or(default.min_new_tokens),
            repetition_penalty: options.repetition_penalty.unwrap_or(default.repetition_penalty),
            no_repeat_ngram_size: options.no_repeat_ngram_size.unwrap_or(default.no_repeat_ngram_size),
            suppress_tokens: options.suppress_tokens.clone(),
            logit_bias: options.logit_bias.clone(),
            stop_token_ids: self.stop_token_ids.clone(),
            ..default
        }
    }
}

fn search(
    model: &mut Hashed,
    ids: &[u32],
    config: &GenerationConfig,
    cancel: &CancelToken,
) -> Result<Vec<Generation>, Error> {
    search_and_watch(model, ids, config, None, cancel, &mut |_| ControlFlow::Continue(()))
}

fn search_and_watch(
    model: &mut Hashed,
    ids: &[u32],
    config: &GenerationConfig,
    constraint: Option<&dyn Constraint>,
    cancel: &CancelToken,
    on_token: &mut dyn FnMut(u32) -> ControlFlow<()>,
) -> Result<Vec<Generation>, Error> {
    let axis: Vec<i64> = (0..ids.len() as i64).collect();
    let position_ids = [axis.clone(), axis.clone(), axis];
    let prompt =
        Prompt { input_ids: ids, position_ids: &position_ids, rope_delta: -1, images: &[], videos: &[] };
    generate_all(model, &prompt, config, 1000, constraint, cancel, on_token)
}

fn check(case: &Case) -> Result<(), String> {
    let mut model = Hashed::new(case.seed, -1);
    let answers = search(&mut model, &case.prompt, &case.config(), &CancelToken::new());
    let answers = answers.map_err(|e| e.to_string())?;
    if answers.len() != case.want.len() {
        return Err(format!("{} answers, want {}", answers.len(), case.want.len()));
    }
    for (rank, (got, want)) in answers.iter().zip(&case.want).enumerate() {
        let reason = if want.stopped { FinishReason::Stop } else { FinishReason::Length };
        if got.token_ids != want.ids || got.finish_reason != reason {
            return Err(format!("answer {rank}: got {got:?}, want {want:?}"));
        }
        let score = got.score.ok_or("no score")?;
        if (score - want.score).abs() > SCORE_TOLERANCE * want.score.abs().max(1.0) {
            return Err(format!("answer {rank}: score {score}, want {}", want.score));
        }
    }
    // One call for all beams a step, and the session holds the prompt in the end.
    if model.steps >= case.options.max_new_tokens || model.past_tokens() != case.prompt.len() {
        return Err(format!("{} steps, {} tokens left", model.steps, model.past_tokens()));
    }
    Ok(())
}

#[test]
fn beams_are_those_of_transformers() {
    let cases: Vec<Case> = read_jsonl(&golden("beams/scripted.jsonl"));
    assert!(cases.len() >= 200, "{} cases", cases.len());
    check_all(&cases, |case| format!("seed {} {:?}", case.seed, case.options), check);
}

fn config() -> GenerationConfig {
    GenerationConfig {
        num_beams: 4,
        max_new_tokens: 12,
        stop_token_ids: vec![7, 8],
        early_stopping: EarlyStopping::Never,
        ..GenerationConfig::default()
    }
}

#[test]
fn fewer_answers_are_the_first_of_more_and_scores_fall() {
    let run = |config: &GenerationConfig| {
        search(&mut Hashed::new(5, -1), &[1, 2, 3], config, &CancelToken::new()).unwrap()
    };
    let four = run(&GenerationConfig { num_return_sequences: 4, ..config() });
    let two = run(&GenerationConfig { num_return_sequences: 2, ..config() });
    assert_eq!((two.len(), four.len()), (2, 4));
    for (a, b) in two.iter().zip(&four) {
        assert_eq!((&a.token_ids, a.score), (&b.token_ids, b.score));
    }
    assert!(four.is_sorted_by(|a, b| a.score >= b.score));
    let greedy = run(&GenerationConfig { num_beams: 1, ..config() });
    assert_eq!((greedy.len(), greedy[0].score), (1, None));
}

#[test]
fn a_cancellation_ends_the_search_within_a_step() {
    let cancel = CancelToken::new();
    let mut model = Hashed::new(5, -1);
    model.cancel_after = Some((3, cancel.clone()));
    let config = GenerationConfig { stop_token_ids: Vec::new(), num_return_sequences: 2, ..config() };
    let answers = search(&mut model, &[1, 2, 3], &config, &cancel).unwrap();
    assert_eq!((answers.len(), model.steps), (1, 3));
    assert_eq!((answers[0].finish_reason, answers[0].token_ids.len()), (FinishReason::Cancelled, 3));
    assert_eq!(model.past_tokens(), 3);

    let answers = search(&mut Hashed::new(5, -1), &[1, 2, 3], &config, &cancel).unwrap();
    assert_eq!((answers[0].finish_reason, answers[0].token_ids.len()), (FinishReason::Cancelled, 0));
}

#[test]
fn the_best_answer_is_handed_on_when_it_is_found_and_may_be_cut() {
    let whole = search(&mut Hashed::new(5, -1), &[1, 2, 3], &config(), &CancelToken::new()).unwrap();
    let mut seen = Vec::new();
    let cut = search_and_watch(
        &mut Hashed::new(5, -1),
        &[1, 2, 3],
        &config(),
        None,
        &CancelToken::new(),
        &mut |token| {
            seen.push(token);
            if seen.len() == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        },
    );
    let cut = &cut.unwrap()[0];
    assert!(whole[0].token_ids.len() > 2);
    assert_eq!((&seen[..], &cut.token_ids[..]), (&whole[0].token_ids[..2], &whole[0].token_ids[..2]));
    assert_eq!(cut.finish_reason, FinishReason::Cancelled);
}

struct Anything;

impl Constraint for Anything {
    fn mask(&mut self, _: &mut [f32], _: usize) -> Result<(), Error> {
        Ok(())
    }

    fn commit(&mut self, _: u32) -> Result<(), Error> {
        Ok(())
    }

    fn forced(&mut self, _: usize) -> Result<Vec<u32>, Error> {
        Ok(Vec::new())
    }

    fn is_finished(&self) -> bool {
        false
    }

    fn closed_early(&self) -> bool {
        false
    }

    fn fork(&self) -> Box<dyn Constraint> {
        Box::new(Self)
    }
}

#[test]
fn what_beams_cannot_do_is_an_error_before_the_prompt_is_run() {
    let mut model = Hashed::new(5, -1);
    let mut ignore = |_| ControlFlow::Continue(());
    let token = CancelToken::new();
    let error =
        search_and_watch(&mut model, &[1, 2], &config(), Some(&Anything), &token, &mut ignore).unwrap_err();
    let says = error.to_string();
    assert!(
        matches!(error, Error::InvalidOption { name: "num_beams", .. }) && says.contains("constraint"),
        "{says}"
    );
    assert_eq!(model.past_tokens(), 0);
}

#[test]
fn options_that_exclude_almost_everything_leave_fewer_beams_and_all_an_error() {
    let run = |allowed: &[u32]| {
        let suppress_tokens = (0..120).filter(|id| !allowed.contains(id)).collect();
        let config = GenerationConfig {
            suppress_tokens,
            max_new_tokens: 2,
            num_return_sequences: 4,
            stop_token_ids: Vec::new(),
            ..config()
        };
        search(&mut Hashed::new(5, -1), &[1, 2], &config, &CancelToken::new())
    };
    let mut answers: Vec<_> = run(&[3]).unwrap().into_iter().map(|a| a.token_ids).collect();
    assert_eq!(answers, [[3, 3]]);
    answers = run(&[3, 4]).unwrap().into_iter().map(|a| a.token_ids).collect();
    answers.sort();
    assert_eq!(answers, [[3, 3], [3, 4], [4, 3], [4, 4]]);
    assert!(matches!(run(&[]), Err(Error::NothingAllowed { step: 0 })));
}
