//! Scoring labels on a scripted model: equal to scoring each alone, one prompt pass, what is refused.

use qwen2vl_runtime::{CancelToken, Error, LabelScore, LanguageSession, Prompt, ScoreOptions, score};
use qwen2vl_testkit::check_all;

use crate::scripted::{Hashed, VOCAB, logits};

const SEED: u64 = 11;
const PROMPT: [u32; 4] = [5, 6, 7, 8];
const STOPS: [u32; 2] = [90, 91];

fn options(max_rows: usize) -> ScoreOptions<'static> {
    ScoreOptions { stop_token_ids: &STOPS, context_tokens: 100, max_rows }
}

fn run(
    model: &mut Hashed,
    labels: &[Vec<u32>],
    options: &ScoreOptions<'_>,
    cancel: &CancelToken,
) -> Result<Option<Vec<LabelScore>>, Error> {
    let axis: Vec<i64> = (0..4).collect();
    let position_ids = [axis.clone(), axis.clone(), axis];
    let prompt =
        Prompt { input_ids: &PROMPT, position_ids: &position_ids, rope_delta: 3, images: &[], videos: &[] };
    Ok(score(model, &prompt, labels, options, cancel)?.map(|scores| scores.scores))
}

fn scores(labels: &[Vec<u32>], max_rows: usize) -> (Vec<LabelScore>, Hashed) {
    let mut model = Hashed::new(SEED, 3);
    let scores = run(&mut model, labels, &options(max_rows), &CancelToken::new()).unwrap().unwrap();
    (scores, model)
}

/// Labels of 1 to 5 tokens out of few, so that they begin alike; some begin others.
fn labels(n: usize) -> Vec<Vec<u32>> {
    let mut state: u32 = 7;
    let mut below = |limit: u32| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 16) % limit
    };
    let mut labels: Vec<Vec<u32>> = Vec::new();
    while labels.len() < n {
        let label: Vec<u32> = (0..1 + below(5)).map(|_| 20 + below(4)).collect();
        if !labels.contains(&label) {
            labels.push(label);
        }
    }
    labels
}

/// From the definition.
fn logprob(label: &[u32]) -> f32 {
    let mut tokens = PROMPT.to_vec();
    let mut sum = 0.0;
    for next in label.iter().map(|token| vec![*token]).chain([STOPS.to_vec()]) {
        let row: Vec<f64> = logits(SEED, &tokens).iter().map(|l| f64::from(*l).exp()).collect();
        let some: f64 = next.iter().map(|token| row[*token as usize]).sum();
        sum += (some / row.iter().sum::<f64>()).ln();
        tokens.push(next[0]);
    }
    sum as f32
}

#[test]
fn scores_are_those_of_each_label_alone_from_one_prompt_pass() {
    let labels = labels(60);
    let begins_another = |label: &Vec<u32>| labels.iter().any(|l| l != label && l.starts_with(label));
    assert!(labels.iter().filter(|label| begins_another(label)).count() > 10);
    for max_rows in [1, 2, 7, 32, 1000] {
        let (together, model) = scores(&labels, max_rows);
        assert!(model.prefills == 1 && model.most_rows <= max_rows && model.past_tokens() == PROMPT.len());
        for (label, together) in labels.iter().zip(&together) {
            let alone = scores(std::slice::from_ref(label), max_rows).0[0];
            assert_eq!((alone.logprob, alone.probability), (together.logprob, 1.0), "{label:?}");
            assert!((together.logprob - logprob(label)).abs() < 1e-4, "{label:?} {together:?}");
        }
        let sum: f64 = together.iter().map(|s| f64::from(s.logprob).exp()).sum();
        for score in &together {
            let want = f64::from(score.logprob).exp() / sum;
            assert!((f64::from(score.probability) - want).abs() < 1e-5, "{score:?}");
        }
    }
}

#[test]
fn what_labels_begin_with_is_computed_once() {
    let labels = labels(60);
    let mut nodes: Vec<&[u32]> = labels.iter().flat_map(|l| (1..=l.len()).map(|n| &l[..n])).collect();
    nodes.sort_unstable();
    nodes.dedup();
    for max_rows in [1, 2, 7, 32, 1000] {
        let (_, model) = scores(&labels, max_rows);
        assert_eq!(model.all_rows, nodes.len(), "{max_rows}");
        assert_eq!(model.steps == 5, max_rows == 1000, "{max_rows}");
    }
    let tokens: usize = labels.iter().map(Vec::len).sum();
    assert!(nodes.len() * 2 < tokens, "{} nodes of {tokens} tokens", nodes.len());
}

#[test]
fn the_order_of_labels_does_not_matter() {
    let labels = labels(20);
    let reversed: Vec<Vec<u32>> = labels.iter().rev().cloned().collect();
    let mut backwards = scores(&reversed, 8).0;
    backwards.reverse();
    assert_eq!(scores(&labels, 8).0, backwards);
}

#[test]
fn labels_that_begin_other_labels_are_told_apart_by_their_end() {
    let (got, _) = scores(&[vec![1, 2], vec![1], vec![1, 2, 3]], 8);
    let sum: f32 = got.iter().map(|score| score.probability).sum();
    assert!((sum - 1.0).abs() < 1e-6);
    // All continuations of a label and its end are less probable together than its tokens are.
    let open = |label: &[u32]| {
        let mut tokens = PROMPT.to_vec();
        label.iter().fold(0.0, |sum: f64, token| {
            let row: Vec<f64> = logits(SEED, &tokens).iter().map(|l| f64::from(*l).exp()).collect();
            tokens.push(*token);
            sum + (row[*token as usize] / row.iter().sum::<f64>()).ln()
        })
    };
    assert!(got.iter().map(|s| f64::from(s.logprob).exp()).sum::<f64>() < open(&[1]).exp());
    assert!(got[2].logprob < open(&[1, 2, 3]) as f32);
}

#[test]
fn what_cannot_be_scored_is_refused_before_the_prompt_is_run() {
    let no_stops = ScoreOptions { stop_token_ids: &[], ..options(8) };
    let short = ScoreOptions { context_tokens: 6, ..options(8) };
    let cases: &[(&[&[u32]], ScoreOptions<'_>, &str)] = &[
        (&[], options(8), "labels is an empty list, allowed is one label or more"),
        (&[&[1], &[]], options(8), "labels is without tokens at index 1"),
        (&[&[1, 2], &[3], &[1, 2]], options(8), "labels is the same tokens at indices 0 and 2"),
        (&[&[1]], no_stops, "stop_token_ids is an empty list, allowed is one token or more"),
        (&[&[1]], options(0), "max_rows is 0"),
        (&[&[1], &[1, 2, 3]], short, "the prompt has 4 tokens and the longest label 3"),
    ];
    check_all(
        cases,
        |case| case.2.to_owned(),
        |(labels, options, says)| {
            let labels: Vec<Vec<u32>> = labels.iter().map(|l| l.to_vec()).collect();
            let mut model = Hashed::new(SEED, 3);
            let error = run(&mut model, &labels, options, &CancelToken::new()).unwrap_err().to_string();
            if error.contains(says) && model.prefills == 0 { Ok(()) } else { Err(error) }
        },
    );
    let unknown = run(&mut Hashed::new(SEED, 3), &[vec![VOCAB as u32]], &options(8), &CancelToken::new());
    assert!(matches!(unknown, Err(Error::TokenId { id: 120, vocab_size: 120 })));
    let exactly = ScoreOptions { context_tokens: 6, ..options(8) };
    assert!(run(&mut Hashed::new(SEED, 3), &[vec![1, 2]], &exactly, &CancelToken::new()).is_ok());
}

#[test]
fn a_cancellation_ends_scoring_within_a_step() {
    let cancel = CancelToken::new();
    let mut model = Hashed::new(SEED, 3);
    model.cancel_after = Some((2, cancel.clone()));
    assert_eq!(run(&mut model, &labels(60), &options(4), &cancel).unwrap(), None);
    assert_eq!(model.steps, 2);
    assert_eq!(run(&mut Hashed::new(SEED, 3), &labels(3), &options(4), &cancel).unwrap(), None);
}
