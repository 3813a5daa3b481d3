//! The samples against the evaluation set, and the set against itself.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::path::{Path, PathBuf};

use qwen2vl_demo_model::{INT4_ZIP, SAMPLES, Sample};
use qwen2vl_testkit::{check_all, demo_model_zip, read_jsonl};
use serde::Deserialize;

/// A row of `eval/eval.jsonl`.
#[derive(Debug, Deserialize)]
struct Row {
    id: usize,
    task: String,
    #[serde(default)]
    images: Vec<String>,
    #[serde(default)]
    video: Vec<String>,
    question: String,
    answer: String,
    hf_ids: Vec<u32>,
    hf_right: bool,
    int4_ids: Vec<u32>,
    int4_right: bool,
}

fn eval_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("eval")
}

fn rows() -> Vec<Row> {
    read_jsonl(&eval_folder().join("eval.jsonl"))
}

/// The task of a sample: its name without the number.
fn task(sample: &Sample) -> &'static str {
    sample.name.rsplit_once('_').unwrap().0
}

fn check_pictures(got: &[(&str, &[u8])], want: &[String]) -> Result<(), String> {
    let names: Vec<&str> = got.iter().map(|(name, _)| *name).collect();
    if names != want {
        return Err(format!("pictures {names:?}, want {want:?}"));
    }
    let differs = |(name, bytes): &&(&str, &[u8])| std::fs::read(eval_folder().join(name)).unwrap() != *bytes;
    got.iter().find(differs).map_or(Ok(()), |(name, _)| Err(format!("{name} is not the set's")))
}

#[test]
fn samples_are_the_sets_items_that_the_rule_picks() {
    let rows = rows();
    check_all(
        SAMPLES,
        |s| s.name.to_owned(),
        |sample| {
            let mut of_task = rows.iter().filter(|row| row.task == task(sample));
            let (want, right) = match task(sample) {
                "where" => (of_task.next().unwrap(), false),
                _ => (of_task.find(|row| row.int4_right).unwrap(), true),
            };
            if want.int4_right != right {
                return Err(format!("item {} is answered right: {}", want.id, want.int4_right));
            }
            if (sample.question, sample.answer) != (&want.question, &want.answer) {
                return Err(format!("item {} is {:?} {:?}", want.id, want.question, want.answer));
            }
            check_pictures(sample.images, &want.images)?;
            check_pictures(sample.frames, &want.video)
        },
    );
}

#[test]
fn samples_are_of_different_kinds() {
    let mut tasks: Vec<&str> = SAMPLES.iter().map(task).collect();
    tasks.dedup();
    assert_eq!(tasks, ["caption", "vqa", "count", "where", "json", "digits", "two", "video"]);
}

#[test]
fn the_embedded_zip_is_the_one_that_is_tested() {
    assert!(INT4_ZIP == std::fs::read(demo_model_zip()).unwrap());
}

#[test]
fn the_set_has_the_counts_that_the_readme_names() {
    let rows = rows();
    let count = |test: fn(&Row) -> bool| rows.iter().filter(|row| test(row)).count();
    let same = count(|row| row.hf_ids == row.int4_ids);
    assert_eq!((rows.len(), count(|r| r.hf_right), count(|r| r.int4_right), same), (133, 115, 113, 117));
    for (i, row) in rows.iter().enumerate() {
        assert_eq!(row.id, i + 1);
        for file in row.images.iter().chain(&row.video) {
            assert!(eval_folder().join(file).is_file(), "{file}");
        }
    }
    let readme = include_str!("../../README.md");
    for part in ["133 questions", "115", "113", "117"] {
        assert!(readme.contains(part), "{part}");
    }
}
