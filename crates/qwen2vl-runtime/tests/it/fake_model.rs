//! The generation loop on a scripted model that records what it is asked.

use std::ops::ControlFlow;

use qwen2vl_runtime::{
    CancelToken, Constraint, Error, FinishReason, Generation, GenerationConfig, LanguageSession, Prompt,
    generate, generate_all,
};

const EOS: u32 = 9;
const PROMPT: [u32; 3] = [1, 2, 3];

/// Answers with `script`, one token a step, and records the tokens and positions that come back.
struct Scripted {
    script: Vec<u32>,
    logits: Vec<f32>,
    decoded: Vec<(u32, i64)>,
    prefills: usize,
    steps: usize,
    finite: bool,
}

impl Scripted {
    fn new(script: &[u32]) -> Self {
        Self {
            script: script.to_vec(),
            logits: Vec::new(),
            decoded: Vec::new(),
            prefills: 0,
            steps: 0,
            finite: true,
        }
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

    fn decode(&mut self, parents: &[usize], tokens: &[u32], position: i64) -> Result<&mut [f32], Error> {
        assert_eq!(parents, [0]);
        self.decoded.extend(tokens.iter().copied().zip(position..));
        self.steps += 1;
        Ok(self.next())
    }

    fn past_tokens(&self) -> usize {
        PROMPT.len() + self.decoded.len()
    }

    fn rewind(&mut self, past_tokens: usize) {
        self.decoded.truncate(past_tokens - PROMPT.len());
    }
}

fn config(max_new_tokens: usize) -> GenerationConfig {
    GenerationConfig { max_new_tokens, stop_token_ids: vec![EOS], ..GenerationConfig::default() }
}

fn with_prompt<R>(ask: impl FnOnce(&Prompt<'_>) -> R) -> R {
    let position_ids = [vec![0, 1, 2], vec![0, 1, 2], vec![0, 1, 2]];
    ask(&Prompt { input_ids: &PROMPT, position_ids: &position_ids, rope_delta: -2, images: &[], videos: &[] })
}

fn run(
    model: &mut Scripted,
    config: &GenerationConfig,
    context: usize,
    cancel: &CancelToken,
    on_token: &mut dyn FnMut(u32) -> ControlFlow<()>,
) -> Result<Generation, Error> {
    with_prompt(|prompt| generate(model, prompt, config, context, None, cancel, on_token))
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
        generate(&mut Scripted::new(&[4]), &prompt, &config(5), 100, None, &CancelToken::new(), &mut |_| {
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

/// What an option makes of the answer `script`, of at most 6 tokens. Every token but the scripted one is equal, so the
/// first that is allowed comes in its place.
fn effect(script: &[u32], set: fn(&mut GenerationConfig)) -> (Vec<u32>, FinishReason) {
    let mut config = config(6);
    set(&mut config);
    let answer = plain(&mut Scripted::new(script), &config, 100).unwrap();
    (answer.token_ids, answer.finish_reason)
}

#[test]
fn each_option_has_its_effect() {
    use FinishReason::{Length, Stop};
    assert_eq!(effect(&[4, 5, 6], |_| ()), (vec![4, 5, 6], Stop));
    assert_eq!(effect(&[4, 5, 6], |c| c.suppress_tokens = vec![5, 0]), (vec![4, 1, 6], Stop));
    assert_eq!(effect(&[4], |c| c.min_new_tokens = 3), (vec![4, 0, 0], Stop));
    assert_eq!(effect(&[4], |c| c.min_new_tokens = 1), (vec![4], Stop));
    assert_eq!(effect(&[4], |c| c.logit_bias = [(7, 6.0)].into()), (vec![7; 6], Length));
    assert_eq!(effect(&[4, 5], |c| c.logit_bias = [(5, -6.0)].into()), (vec![4, 0], Stop));
    // The prompt is 1 2 3: 3 does not follow 2 again, and 4 follows 4 once.
    assert_eq!(effect(&[2, 3, 4], |c| c.no_repeat_ngram_size = 2), (vec![2, 0, 4], Stop));
    assert_eq!(effect(&[4; 4], |c| c.no_repeat_ngram_size = 2), (vec![4, 4, 0, 4], Stop));
    // 5 less 2 for each that came is below 0 after three.
    assert_eq!(effect(&[4; 6], |c| c.frequency_penalty = 2.0), (vec![4, 4, 4, 0, 1, 2], Length));
    // 1 less 2 is below 0 after the first.
    let presence = |c: &mut GenerationConfig| {
        c.presence_penalty = 2.0;
        c.logit_bias = [(4, -4.0)].into();
    };
    assert_eq!(effect(&[4; 4], presence), (vec![4, 0, 1, 2], Stop));
}

#[test]
fn min_p_leaves_only_what_is_near_the_most_probable() {
    let draws = |min_p| {
        let config = GenerationConfig { do_sample: true, temperature: 3.0, min_p, ..config(40) };
        plain(&mut Scripted::new(&[4; 40]), &config, 100).unwrap().token_ids
    };
    // The others are exp(-5 / 3) = 0.19 times as probable.
    assert_eq!(draws(0.2), [4; 40]);
    assert_ne!(draws(0.18), [4; 40]);
}

#[test]
fn a_prompt_over_the_limit_is_an_error_before_anything_is_computed() {
    let mut model = Scripted::new(&[4]);
    let limited = |limit| GenerationConfig { max_input_tokens: Some(limit), ..config(5) };
    let error = plain(&mut model, &limited(2), 100).unwrap_err();
    assert!(matches!(error, Error::InputTooLong { prompt_tokens: 3, limit: 2 }), "{error}");
    assert_eq!(model.prefills, 0);
    assert_eq!(plain(&mut model, &limited(3), 100).unwrap().token_ids, [4]);
    let contradiction = GenerationConfig { min_new_tokens: 6, ..config(5) };
    assert!(matches!(plain(&mut model, &contradiction, 100), Err(Error::InvalidOption { .. })));
    assert_eq!(model.prefills, 1);
}

#[test]
fn options_that_leave_no_token_are_an_error_that_says_so() {
    let config = GenerationConfig { no_repeat_ngram_size: 1, ..config(50) };
    // Prompt 1 2 3; then 4, the six others, and EOS ends it.
    assert_eq!(plain(&mut Scripted::new(&[4]), &config, 100).unwrap().token_ids, [4]);
    let config = GenerationConfig { stop_token_ids: vec![], ..config };
    let error = plain(&mut Scripted::new(&[4]), &config, 100).unwrap_err();
    assert!(matches!(error, Error::NothingAllowed { step: 7 }), "{error}");
}

#[test]
fn logprobs_are_those_of_the_model_whatever_the_options() {
    let logprobs = |config: &GenerationConfig| {
        let answer = plain(&mut Scripted::new(&[4, 5]), config, 100).unwrap();
        let logprobs = answer.logprobs.unwrap();
        let rows: Vec<_> = logprobs.iter().map(|(chosen, top)| (chosen, top.to_vec())).collect();
        (answer.token_ids, rows)
    };
    let plain_config = GenerationConfig { logprobs: Some(2), ..config(6) };
    let (tokens, rows) = logprobs(&plain_config);
    assert_eq!((tokens, rows.len()), (vec![4, 5], 2));
    let sum = 5.0_f32.exp() + 9.0;
    for ((chosen, top), token) in rows.iter().zip([4, 5]) {
        assert!(chosen.token == token && (chosen.logprob - (5.0 - sum.ln())).abs() < 1e-6, "{chosen:?}");
        assert_eq!(top.iter().map(|t| t.token).collect::<Vec<_>>(), [token, 0]);
        assert_eq!(top[0], *chosen);
        assert!((top[1].logprob + sum.ln()).abs() < 1e-6, "{top:?}");
    }
    let other =
        GenerationConfig { suppress_tokens: vec![4], repetition_penalty: 3.0, ..plain_config.clone() };
    let (tokens, changed) = logprobs(&other);
    assert_eq!((tokens, &changed[0].1), (vec![0, 5], &rows[0].1));
    assert!((changed[0].0.logprob + sum.ln()).abs() < 1e-6, "{changed:?}");
    assert!(plain(&mut Scripted::new(&[4]), &config(6), 100).unwrap().logprobs.is_none());
}

#[test]
fn a_seed_gives_its_answer_whatever_runs_beside_it() {
    let config = |seed| GenerationConfig { do_sample: true, temperature: 3.0, seed, ..config(20) };
    let alone = |seed| plain(&mut Scripted::new(&[1; 30]), &config(seed), 100).unwrap().token_ids;
    let (first, second) = (alone(1), alone(2));
    assert_ne!(first, second);
    let mut beside = Vec::new();
    let answer = run(&mut Scripted::new(&[1; 30]), &config(1), 100, &CancelToken::new(), &mut |_| {
        beside.push(alone(2));
        ControlFlow::Continue(())
    });
    assert_eq!(answer.unwrap().token_ids, first);
    assert!(!beside.is_empty() && beside.iter().all(|b| *b == second));
}

/// Goes through groups of tokens: of each group one has to come, and a group of one is forced.
#[derive(Clone)]
struct Groups {
    groups: Vec<Vec<u32>>,
    next: usize,
    closed_early: bool,
}

impl Constraint for Groups {
    fn mask(&mut self, logits: &mut [f32], remaining: usize) -> Result<(), Error> {
        assert!(remaining >= self.groups.len() - self.next);
        let allowed = &self.groups[self.next];
        let others = logits.iter_mut().enumerate().filter(|(id, _)| !allowed.contains(&(*id as u32)));
        others.for_each(|(_, logit)| *logit = f32::NEG_INFINITY);
        Ok(())
    }

    fn commit(&mut self, token: u32) -> Result<(), Error> {
        assert!(self.groups[self.next].contains(&token));
        self.next += 1;
        Ok(())
    }

    fn forced(&mut self, remaining: usize) -> Result<Vec<u32>, Error> {
        let rest = self.groups[self.next..].iter();
        let forced: Vec<u32> = rest.take_while(|g| g.len() == 1).map(|g| g[0]).take(remaining).collect();
        self.next += forced.len();
        Ok(forced)
    }

    fn is_finished(&self) -> bool {
        self.next == self.groups.len()
    }

    fn closed_early(&self) -> bool {
        self.closed_early
    }

    fn fork(&self) -> Box<dyn Constraint> {
        Box::new(self.clone())
    }
}

/// An answer under groups of tokens, and the model.
fn constrained(config: &GenerationConfig, groups: &[&[u32]], closed_early: bool) -> (Generation, Scripted) {
    let groups = groups.iter().map(|group| group.to_vec()).collect();
    let constraint: Box<dyn Constraint> = Box::new(Groups { groups, next: 0, closed_early });
    let mut model = Scripted::new(&[8; 20]);
    let mut all = |_| ControlFlow::Continue(());
    let answer = with_prompt(|prompt| {
        generate(&mut model, prompt, config, 100, Some(constraint), &CancelToken::new(), &mut all)
    });
    (answer.unwrap(), model)
}

#[test]
fn forced_tokens_go_along_with_the_step_of_the_token_before() {
    let groups: &[&[u32]] = &[&[4], &[5], &[6, 7, 8], &[1], &[2], &[3, 8], &[7]];
    let (answer, model) = constrained(&config(10), groups, false);
    assert_eq!((answer.token_ids, answer.finish_reason), (vec![4, 5, 8, 1, 2, 8, 7], FinishReason::Stop));
    // The prompt's pass, 4 5 and 8 1 2: what comes after the last choice needs no step.
    assert_eq!((model.steps, &model.decoded[..]), (2, &[(4, 1), (5, 2), (8, 3), (1, 4), (2, 5)][..]));

    let one_by_one = GenerationConfig { logprobs: Some(0), ..config(10) };
    let (answer, model) = constrained(&one_by_one, groups, false);
    assert_eq!((answer.logprobs.unwrap().iter().count(), model.steps), (7, 6));
    assert_eq!(answer.token_ids, [4, 5, 8, 1, 2, 8, 7]);
}

#[test]
fn an_answer_that_is_whole_at_the_limit_stops_and_one_that_was_closed_is_cut() {
    let groups: &[&[u32]] = &[&[4, 5], &[6], &[7]];
    for (limit, closed_early, want) in
        [(3, false, FinishReason::Stop), (4, false, FinishReason::Stop), (3, true, FinishReason::Length)]
    {
        let (answer, _) = constrained(&config(limit), groups, closed_early);
        assert_eq!((answer.token_ids, answer.finish_reason), (vec![4, 6, 7], want), "{limit} {closed_early}");
    }
}

#[test]
fn several_answers_run_the_prompt_once_and_do_not_depend_on_each_other() {
    let all = |n| {
        let config =
            GenerationConfig { do_sample: true, temperature: 3.0, num_return_sequences: n, ..config(20) };
        let mut model = Scripted::new(&[1; 30]);
        let mut streamed = Vec::new();
        let answers = with_prompt(|prompt| {
            generate_all(&mut model, prompt, &config, 100, None, &CancelToken::new(), &mut |token| {
                streamed.push(token);
                ControlFlow::Continue(())
            })
        });
        let answers: Vec<_> = answers.unwrap().into_iter().map(|a| a.token_ids).collect();
        assert_eq!((model.prefills, &streamed), (1, &answers[0]));
        answers
    };
    let (one, three) = (all(1), all(3));
    assert_eq!(one[0], three[0]);
    assert!(three[0] != three[1] && three[1] != three[2]);
    assert_eq!(all(5)[..3], three);
}
