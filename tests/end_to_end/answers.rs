//! Greedy answers token for token, and the accuracy table.

use std::collections::BTreeMap;

use qwen2vl_pipeline::Annotator;
use qwen2vl_testkit::{check_all, first_difference};

use crate::set::{Answer, FP32, Golden, INT4, Item, SET, has_openvino};

/// Logits of two implementations in f32 differ by up to 1e-3 (see `layers`): below this gap of first and second logit
/// the choice between them is arbitrary.
pub const NEAR_TIE: f32 = 0.01;

/// At most so many of the 133 items may be left out as near-ties.
const MAX_NEAR_TIES: usize = 5;

fn equals_reference(annotator: &Annotator, name: &str, reference: impl Fn(&Golden) -> &Answer) {
    let near_ties = SET.iter().filter(|(_, golden)| reference(golden).gap < NEAR_TIE).count();
    println!("{name}: {near_ties} near-ties of {}", SET.len());
    assert!(near_ties <= MAX_NEAR_TIES, "{near_ties} near-ties prove too little");
    check_all(
        &SET,
        |(item, _)| format!("{name}, item {} ({})", item.id, item.task),
        |(item, golden)| {
            let got = annotator.run(&item.request()).map_err(|e| e.to_string())?;
            if got.prompt_tokens != golden.prompt_tokens {
                return Err(format!("{} prompt tokens, want {}", got.prompt_tokens, golden.prompt_tokens));
            }
            let want = reference(golden);
            if want.gap < NEAR_TIE {
                return Ok(());
            }
            first_difference(&got.token_ids, &want.ids).map_or(Ok(()), Err)
        },
    );
}

#[test]
fn the_fp32_export_answers_as_transformers() {
    if has_openvino() {
        equals_reference(&FP32, "transformers fp32", |golden| &golden.hf);
    }
}

#[test]
fn the_int4_export_answers_as_optimum_intel() {
    if has_openvino() {
        equals_reference(&INT4, "optimum-intel INT4", |golden| &golden.int4);
    }
}

/// Right answers per task of the set: ours, the reference's.
fn accuracy(annotator: &Annotator, reference: impl Fn(&Golden) -> &Answer) -> BTreeMap<&str, [usize; 3]> {
    let mut table = BTreeMap::new();
    for (item, golden) in SET.iter() {
        let got = annotator.run(&item.request()).unwrap().result;
        let row: &mut [usize; 3] = table.entry(item.task.as_str()).or_default();
        row[0] += usize::from(is_right(item, &got));
        row[1] += usize::from(reference(golden).right);
        row[2] += 1;
    }
    table
}

#[test]
fn the_accuracy_table_is_the_references() {
    if !has_openvino() {
        return;
    }
    let int4 = accuracy(&INT4, |golden| &golden.int4);
    let fp32 = accuracy(&FP32, |golden| &golden.hf);
    for (name, table) in [("INT4", &int4), ("fp32", &fp32)] {
        println!("{name}: {table:?}");
        // A near-tie can go either way; it is one of the tasks with boxes or places then.
        let differ: usize = table.values().map(|[ours, reference, _]| ours.abs_diff(*reference)).sum();
        assert!(differ <= 1, "{name}: {table:?}");
        let right: usize = table.values().map(|row| row[0]).sum();
        assert!(right * 100 >= SET.len() * 80, "{name}: {right} right");
    }
}

/// Equal to the truth; a box needs the right name and an overlap of at least one half.
pub fn is_right(item: &Item, got: &str) -> bool {
    if item.task != "box" {
        return got == item.answer;
    }
    let name = |text: &str| text.split("<|box_start|>").next().map(str::to_owned);
    name(got) == name(&item.answer) && overlap(got, &item.answer) >= 0.5
}

/// Intersection over union of the boxes in two answers; 0 where one has none.
fn overlap(a: &str, b: &str) -> f64 {
    let (Some(a), Some(b)) = (corners(a), corners(b)) else { return 0.0 };
    let area = |[x1, y1, x2, y2]: [f64; 4]| (x2 - x1).max(0.0) * (y2 - y1).max(0.0);
    let both = area([a[0].max(b[0]), a[1].max(b[1]), a[2].min(b[2]), a[3].min(b[3])]);
    let union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both;
    if union > 0.0 { both / union } else { 0.0 }
}

/// `(x1,y1),(x2,y2)` behind `<|box_start|>`.
fn corners(text: &str) -> Option<[f64; 4]> {
    let inside = text.split("<|box_start|>").nth(1)?.split("<|box_end|>").next()?;
    let numbers: Vec<f64> =
        inside.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok()).collect();
    numbers.try_into().ok()
}
