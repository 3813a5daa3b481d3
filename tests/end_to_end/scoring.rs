//! Label scoring through the whole pipeline: transformers' log-probabilities, equal to each label alone, bad labels.

use std::ops::ControlFlow;

use qwen2vl_pipeline::{CancelToken, Labels, Request, Scores};
use qwen2vl_testkit::{check_all, golden, read_jsonl};
use serde::Deserialize;

use crate::set::{FP32, INT4, SET, has_openvino};

/// Log-probabilities of single tokens differ by up to 1e-3 where they are near 0; a label of many unlikely tokens is a
/// sum of many.
const TOLERANCE: f32 = 1e-3;
const RELATIVE_TOLERANCE: f32 = 1e-4;

/// Sums in another order: rows and single tokens take other paths through matrix products.
const ALONE_TOLERANCE: f32 = 1e-4;

#[derive(Deserialize)]
struct Golden {
    id: u32,
    labels: Vec<String>,
    logprobs: Vec<f32>,
}

fn goldens() -> Vec<(Golden, Request)> {
    let goldens: Vec<Golden> = read_jsonl(&golden("score/labels.jsonl"));
    let request = |id| SET.iter().find(|(item, _)| item.id == id).unwrap().0.request();
    goldens.into_iter().map(|golden| (request(golden.id), golden)).map(|(r, g)| (g, r)).collect()
}

fn score(annotator: &qwen2vl_pipeline::Annotator, request: &Request, labels: &[String]) -> Scores {
    let labels = Labels::new(annotator.processor().tokenizer(), labels).unwrap();
    annotator.score_request(request, &labels, &CancelToken::new()).unwrap().expect("nobody cancelled")
}

fn logprob(scores: &Scores, label: &str) -> f32 {
    scores.labels.iter().find(|scored| scored.label == label).unwrap().logprob
}

#[test]
fn the_fp32_exports_scores_are_those_of_transformers() {
    if !has_openvino() {
        return;
    }
    let goldens = goldens();
    assert!(goldens.len() >= 20);
    check_all(
        &goldens,
        |(golden, _)| format!("item {}", golden.id),
        |(golden, request)| {
            let scores = score(&FP32, request, &golden.labels);
            for (label, want) in golden.labels.iter().zip(&golden.logprobs) {
                let got = logprob(&scores, label);
                if (got - want).abs() > TOLERANCE + RELATIVE_TOLERANCE * want.abs() {
                    return Err(format!("{label:?}: {got}, want {want}"));
                }
            }
            let sum: f32 = scores.labels.iter().map(|scored| scored.probability).sum();
            let sorted = scores.labels.is_sorted_by(|a, b| a.logprob >= b.logprob);
            if (sum - 1.0).abs() < 1e-5 && sorted { Ok(()) } else { Err(format!("{:?}", scores.labels)) }
        },
    );
}

#[test]
fn scores_are_those_of_each_label_alone_whatever_the_order() {
    if !has_openvino() {
        return;
    }
    for (golden, request) in goldens().into_iter().step_by(5) {
        let together = score(&INT4, &request, &golden.labels);
        let mut reversed = golden.labels.clone();
        reversed.reverse();
        let backwards = score(&INT4, &request, &reversed);
        for label in &golden.labels {
            let alone = score(&INT4, &request, std::slice::from_ref(label));
            assert_eq!(alone.labels[0].probability, 1.0);
            let others = [alone.labels[0].logprob, logprob(&backwards, label)];
            let far = |got: f32| (got - logprob(&together, label)).abs() / got.abs().max(1.0);
            assert!(
                others.iter().all(|got| far(*got) < ALONE_TOLERANCE),
                "{label:?}: {others:?} {together:?}"
            );
        }
    }
}

#[test]
fn more_labels_than_rows_are_scored_in_several_passes() {
    if !has_openvino() {
        return;
    }
    let (item, _) = SET.iter().find(|(item, _)| item.task == "digit").unwrap_or(&SET[0]);
    let numbers: Vec<String> = (0..100).map(|n: u32| format!("{n}")).collect();
    let scores = score(&INT4, &item.request(), &numbers);
    for label in ["0", "7", "42", "99"] {
        let alone = score(&INT4, &item.request(), &[label.to_owned()]);
        let (got, want) = (logprob(&scores, label), alone.labels[0].logprob);
        assert!((got - want).abs() < ALONE_TOLERANCE * want.abs().max(1.0), "{label}: {got} {want}");
    }
    assert!(
        (scores.labels.iter().map(|scored| f64::from(scored.probability)).sum::<f64>() - 1.0).abs() < 1e-5
    );
}

#[test]
fn labels_that_begin_others_are_told_apart() {
    if !has_openvino() {
        return;
    }
    let (item, _) = SET.iter().find(|(item, _)| item.task == "caption").unwrap();
    let answer = INT4.run(&item.request()).unwrap().result;
    let (begins, _) = answer.rsplit_once(' ').unwrap();
    let scores = score(&INT4, &item.request(), &[begins.to_owned(), answer.clone(), format!("{answer}!")]);
    assert_eq!(scores.labels[0].label, answer);
    assert!(scores.labels[0].probability > 0.9, "{:?}", scores.labels);
    let image = item.image_paths().next().unwrap();
    let same = INT4.score(image.as_path(), &item.question, &[&answer, begins]).unwrap();
    assert!((same.labels[0].logprob - scores.labels[0].logprob).abs() < ALONE_TOLERANCE);
}

#[test]
fn bad_labels_are_one_error_that_names_them() {
    if !has_openvino() {
        return;
    }
    let long = "cat ".repeat(40_000);
    let cases: Vec<(Vec<&str>, &str, &str)> = vec![
        (vec![], "options", "labels is an empty list, allowed is one label or more"),
        (vec!["cat", ""], "options", "labels is \"\", allowed is labels of one character or more"),
        (vec!["cat", "dog", "cat"], "options", "labels is \"cat\" twice, allowed is labels that differ"),
        // One text in two forms of Unicode, which the tokenizer makes one.
        (vec!["caf\u{e9}", "cafe\u{301}"], "options", "labels that differ"),
        (vec!["cat", &long], "context", "the longest label"),
    ];
    let (item, _) = &SET[0];
    let image = item.image_paths().next().unwrap();
    check_all(
        &cases,
        |case| case.2.to_owned(),
        |(labels, kind, says)| match INT4.score(image.as_path(), &item.question, labels) {
            Err(error) if error.kind() == *kind && error.to_string().contains(says) => Ok(()),
            other => Err(format!("{other:?}")),
        },
    );
}

#[test]
fn bulk_scores_are_single_ones_and_a_cancellation_leaves_the_rest_out() {
    if !has_openvino() {
        return;
    }
    let (first, request) = goldens().remove(0);
    let labels = Labels::new(INT4.processor().tokenizer(), &first.labels).unwrap();
    let requests =
        || [Ok(request.clone()), Ok(Request::question("?").image("missing.png")), Ok(request.clone())];
    let mut results = Vec::new();
    INT4.score_all(requests(), &labels, &CancelToken::new(), |index, result| {
        assert_eq!(index, results.len());
        results.push(result);
        ControlFlow::Continue(())
    });
    let single = score(&INT4, &request, &first.labels);
    assert_eq!(results.len(), 3);
    assert_eq!(results[0].as_ref().unwrap().labels, single.labels);
    assert_eq!(results[1].as_ref().unwrap_err().kind(), "io");
    assert_eq!(results[2].as_ref().unwrap().labels, single.labels);

    let cancel = CancelToken::new();
    let mut seen = 0;
    INT4.score_all(requests(), &labels, &cancel, |_, _| {
        seen += 1;
        cancel.cancel();
        ControlFlow::Continue(())
    });
    assert_eq!(seen, 1);
    assert_eq!(INT4.score_request(&request, &labels, &cancel).unwrap(), None);
}
