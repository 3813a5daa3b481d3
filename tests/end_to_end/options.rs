//! Generation options through the whole pipeline: answers as transformers gives them under the same options, seeds,
//! stop strings, log-probabilities, what is refused.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use qwen2vl_pipeline::{Annotation, CancelToken, FinishReason, Request, RequestOptions, TokenId};
use qwen2vl_testkit::{check_all, first_difference, golden, read_jsonl};
use serde::Deserialize;

use crate::set::{FP32, INT4, Item, SET, has_openvino};

/// What tools/reference/generation_options.py allows an answer.
const MAX_NEW_TOKENS: usize = 24;

/// Logits of two implementations in f32 differ by up to 1e-3 (see `layers`), log-probabilities by twice that.
const LOGPROB_TOLERANCE: f32 = 2e-3;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    repetition_penalty: Option<f32>,
    no_repeat_ngram_size: Option<usize>,
    min_new_tokens: Option<usize>,
    suppress_tokens: Option<Vec<TokenId>>,
    logit_bias: Option<BTreeMap<TokenId, f32>>,
    stop_strings: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Golden {
    id: u32,
    options: Options,
    ids: Vec<TokenId>,
    /// So many of the ids come before any near-tie.
    sure: usize,
    /// No near-tie at all.
    whole: bool,
    logprobs: Vec<f32>,
}

fn options(set: impl FnOnce(&mut RequestOptions)) -> RequestOptions {
    let mut options = RequestOptions::default();
    set(&mut options);
    options
}

fn caption() -> &'static Item {
    &SET.iter().find(|(item, _)| item.task == "caption").unwrap().0
}

fn check_golden(golden: &Golden) -> Result<(), String> {
    let item = SET.iter().map(|(item, _)| item).find(|item| item.id == golden.id).ok_or("no such item")?;
    let given = &golden.options;
    let request = item.request().options(options(|o| {
        o.max_new_tokens = Some(MAX_NEW_TOKENS);
        o.repetition_penalty = given.repetition_penalty;
        o.no_repeat_ngram_size = given.no_repeat_ngram_size;
        o.min_new_tokens = given.min_new_tokens;
        o.suppress_tokens = given.suppress_tokens.clone();
        o.logit_bias = given.logit_bias.clone();
        o.stop_strings = given.stop_strings.clone();
        o.logprobs = Some(0);
    }));
    let got = FP32.run(&request).map_err(|e| e.to_string())?;
    let sure = if golden.whole { got.token_ids.len() } else { golden.sure };
    let compared = got.token_ids.get(..sure).unwrap_or(&got.token_ids);
    let want = if golden.whole { &golden.ids[..] } else { &golden.ids[..golden.sure] };
    if let Some(difference) = first_difference(compared, want) {
        return Err(difference);
    }
    if golden.whole && given.stop_strings.iter().flatten().any(|stop| got.result.contains(stop)) {
        return Err(format!("{:?} has a stop string", got.result));
    }
    let logprobs = got.logprobs.ok_or("no log-probabilities")?;
    let ours = logprobs.iter().map(|l| l.chosen.logprob).take(want.len());
    match ours.zip(&golden.logprobs).find(|(ours, want)| (ours - **want).abs() > LOGPROB_TOLERANCE) {
        Some((ours, want)) => Err(format!("log-probability {ours}, want {want}")),
        None => Ok(()),
    }
}

#[test]
fn answers_under_options_are_those_of_transformers() {
    if !has_openvino() {
        return;
    }
    let goldens: Vec<Golden> = read_jsonl(&golden("generation_options/answers.jsonl"));
    let whole = goldens.iter().filter(|g| g.whole).count();
    assert!(whole * 10 >= goldens.len() * 9, "{whole} of {} answers without near-ties", goldens.len());
    let name = |(index, golden): &(usize, &Golden)| format!("row {index}, item {}", golden.id);
    check_all(&goldens.iter().enumerate().collect::<Vec<_>>(), name, |(_, golden)| check_golden(golden));
}

/// Requests that draw, each with a seed of its own.
fn drawing() -> Vec<Request> {
    let items = SET.iter().step_by(17);
    let with_seed = |(seed, (item, _)): (usize, &(Item, _))| {
        item.request().options(options(|o| {
            o.do_sample = Some(true);
            o.temperature = Some(2.0);
            o.top_k = Some(0);
            o.top_p = Some(1.0);
            o.min_p = Some(0.001);
            o.seed = Some(seed as u64);
            o.max_new_tokens = Some(16);
        }))
    };
    items.enumerate().map(with_seed).collect()
}

#[test]
fn a_seed_gives_the_same_text_whatever_the_batch() {
    if !has_openvino() {
        return;
    }
    let alone: Vec<String> = drawing().iter().map(|r| INT4.run(r).unwrap().result).collect();
    assert!(alone.len() >= 7);
    let batch = |requests: Vec<Request>| {
        let mut texts = Vec::new();
        INT4.run_all(requests.into_iter().map(Ok), &CancelToken::new(), |_, result| {
            texts.push(result.unwrap().result);
            ControlFlow::Continue(())
        });
        texts
    };
    assert_eq!(batch(drawing()), alone);
    let mut backwards = batch(drawing().into_iter().rev().collect());
    backwards.reverse();
    assert_eq!(backwards, alone);
    // Each twice, and between two others of another seed.
    let doubled = batch(drawing().into_iter().flat_map(|r| [r.clone(), r]).collect());
    assert_eq!(doubled, alone.iter().flat_map(|t| [t.clone(), t.clone()]).collect::<Vec<_>>());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| assert_eq!(batch(drawing()), alone));
        }
    });
    let other: Vec<String> = drawing()
        .into_iter()
        .map(|mut request| {
            request.options.seed = request.options.seed.map(|seed| seed + 100);
            INT4.run(&request).unwrap().result
        })
        .collect();
    assert_ne!(other, alone, "draws do not depend on the seed");
}

fn streamed(request: &Request) -> (Annotation, Vec<String>) {
    let mut deltas = Vec::new();
    let annotation = INT4.run_stream(request, &CancelToken::new(), |delta| {
        deltas.push(delta.to_owned());
        ControlFlow::Continue(())
    });
    (annotation.unwrap(), deltas)
}

#[test]
fn stop_strings_end_an_answer_and_what_was_streamed_is_never_taken_back() {
    if !has_openvino() {
        return;
    }
    let whole = INT4.run(&caption().request()).unwrap();
    let text = whole.result.as_str();
    // Every part of the answer of 1 to 6 bytes, in every fourth place.
    for start in (0..text.len()).step_by(4) {
        for len in 1..=6 {
            let Some(stop) = text.get(start..start + len) else { continue };
            let request = caption().request().options(options(|o| {
                o.stop_strings = Some(vec!["not in it".to_owned(), stop.to_owned()]);
            }));
            let (got, deltas) = streamed(&request);
            let want = &text[..text.find(stop).unwrap()];
            assert_eq!((got.result.as_str(), got.finish_reason), (want, FinishReason::Stop), "{stop:?}");
            assert!(deltas.concat() == want && deltas.iter().all(|d| !d.is_empty()), "{stop:?}: {deltas:?}");
            assert!(whole.token_ids.starts_with(&got.token_ids), "{stop:?}");
        }
    }
    let request = caption().request().options(options(|o| {
        o.stop_strings = Some(vec!["not in it".to_owned(), format!("{text} and more")]);
    }));
    let (got, deltas) = streamed(&request);
    assert_eq!((&got.result, &got.token_ids), (&whole.result, &whole.token_ids));
    assert_eq!((deltas.concat(), got.finish_reason), (whole.result, FinishReason::Stop));
}

#[test]
fn options_hold_per_request_and_over_the_annotators_defaults() {
    if !has_openvino() {
        return;
    }
    let plain = INT4.run(&caption().request()).unwrap();
    let first = plain.token_ids[0];
    let defaults = options(|o| {
        o.suppress_tokens = Some(vec![first]);
        o.logprobs = Some(3);
    });
    let annotator = qwen2vl_pipeline::Annotator::builder()
        .model(qwen2vl_testkit::demo_model_dir())
        .precision(qwen2vl_pipeline::Precision::F32)
        .defaults(&defaults)
        .build()
        .unwrap();
    let without = annotator.run(&caption().request()).unwrap();
    assert!(!without.token_ids.contains(&first), "{}", without.result);
    let logprobs = without.logprobs.unwrap();
    assert_eq!((logprobs.len(), logprobs[0].top.len()), (without.token_ids.len(), 3));
    // The model's own distribution still has the suppressed token in front.
    assert_eq!(logprobs[0].top[0].id, first);
    let request = caption().request().options(options(|o| o.suppress_tokens = Some(Vec::new())));
    assert_eq!(annotator.run(&request).unwrap().token_ids, plain.token_ids);
    assert!(plain.logprobs.is_none());
}

#[test]
fn options_out_of_range_are_one_error_that_names_option_value_and_range() {
    if !has_openvino() {
        return;
    }
    let cases = [
        (options(|o| o.min_p = Some(-0.5)), "options", "min_p is -0.5, allowed is 0 to 1"),
        (
            options(|o| o.presence_penalty = Some(2.5)),
            "options",
            "presence_penalty is 2.5, allowed is -2 to 2",
        ),
        (
            options(|o| o.frequency_penalty = Some(f32::INFINITY)),
            "options",
            "frequency_penalty is inf, allowed is -2 to 2",
        ),
        (
            options(|o| (o.min_new_tokens, o.max_new_tokens) = (Some(5), Some(4))),
            "options",
            "min_new_tokens is 5, allowed is 0 to max_new_tokens, 4",
        ),
        (
            options(|o| o.suppress_tokens = Some(vec![200_000])),
            "options",
            "suppress_tokens is 200000, allowed is token ids below the vocabulary size, 151936",
        ),
        (
            options(|o| o.logit_bias = Some([(3, 2000.0)].into())),
            "options",
            "logit_bias is 2000 for token 3, allowed is -1000 to 1000",
        ),
        (
            options(|o| o.stop_strings = Some(vec!["a".to_owned(), String::new()])),
            "options",
            "stop_strings is \"\", allowed is texts of at least one character",
        ),
        (options(|o| o.logprobs = Some(1000)), "options", "logprobs is 1000, allowed is 0 to 100"),
        (options(|o| o.max_input_tokens = Some(0)), "options", "max_input_tokens is 0, allowed is 1 or more"),
        (options(|o| o.max_input_tokens = Some(30)), "context", "max_input_tokens allows 30"),
        (options(|o| o.max_input_tokens = Some(2)), "context", "max_input_tokens allows 2"),
        (
            options(|o| o.suppress_tokens = Some((0..151_936).collect())),
            "options",
            "the options leave no token to choose at token 0",
        ),
    ];
    check_all(
        &cases,
        |c| c.2.to_owned(),
        |(options, kind, says)| match INT4.run(&caption().request().options(options.clone())) {
            Err(error) if error.kind() == *kind && error.to_string().contains(says) => Ok(()),
            Err(error) => Err(format!("{}: {error}", error.kind())),
            Ok(annotation) => Err(format!("it answered {:?}", annotation.result)),
        },
    );
    let exactly = INT4.run(&caption().request()).unwrap().prompt_tokens;
    let at = |limit| caption().request().options(options(|o| o.max_input_tokens = Some(limit)));
    assert!(INT4.run(&at(exactly)).is_ok());
    let error = INT4.run(&at(exactly - 1)).unwrap_err().to_string();
    assert!(error.contains(&format!("the prompt has {exactly} tokens")), "{error}");
}
