//! Equal to the reference; tools/reference/tokenizer.py wrote the data.

use qwen2vl_testkit::{check_all, demo_model_dir, first_difference, golden, multilingual_lines, read_jsonl};
use qwen2vl_tokenizer::{ChatTemplate, Error, Message, RenderOptions, rope_index};
use qwen2vl_types::GridThw;
use serde::Deserialize;

use crate::TOKENIZER;

fn equal<T: PartialEq + std::fmt::Debug>(got: &[T], want: &[T]) -> Result<(), String> {
    first_difference(got, want).map_or(Ok(()), Err)
}

fn same_text(got: &str, want: &str) -> Result<(), String> {
    if got == want { Ok(()) } else { Err(format!("got {got:?}, want {want:?}")) }
}

/// Run lengths: value, count, value, count, …
fn unrun(runs: &[i64]) -> Vec<i64> {
    runs.chunks_exact(2).flat_map(|run| std::iter::repeat_n(run[0], run[1] as usize)).collect()
}

fn ids(runs: &[i64]) -> Vec<u32> {
    unrun(runs).into_iter().map(|id| id as u32).collect()
}

#[test]
fn templates_render_as_the_reference() {
    #[derive(Deserialize)]
    struct Case {
        messages: Vec<Message>,
        add_generation_prompt: bool,
        add_vision_id: bool,
        prompt: String,
    }
    let cases: Vec<Case> = read_jsonl(&golden("tokenizer/template.jsonl"));
    let source = std::fs::read_to_string(demo_model_dir().join("chat_template.jinja")).unwrap();
    let template = ChatTemplate::new(&source).unwrap();
    assert!(cases.len() >= 200);
    check_all(
        &cases,
        |c| format!("{:?}", c.messages),
        |case| {
            let options = RenderOptions {
                add_generation_prompt: case.add_generation_prompt,
                add_vision_id: case.add_vision_id,
            };
            same_text(&template.render(&case.messages, &options).map_err(|e| e.to_string())?, &case.prompt)
        },
    );
}

#[test]
fn texts_encode_and_decode_as_the_reference() {
    #[derive(Deserialize)]
    struct Case {
        text: String,
        ids: Vec<u32>,
        decoded: String,
        skipped: String,
    }
    let cases: Vec<Case> = read_jsonl(&golden("tokenizer/encode.jsonl"));
    assert!(cases.len() >= 200);
    check_all(
        &cases,
        |c| format!("{:?}", c.text),
        |case| {
            equal(&TOKENIZER.encode(&case.text).map_err(|e| e.to_string())?, &case.ids)?;
            same_text(&TOKENIZER.detokenize(&case.ids, false), &case.decoded)?;
            same_text(&TOKENIZER.detokenize(&case.ids, true), &case.skipped)
        },
    );
}

/// tools/reference/multilingual.py wrote the data: excerpts of 532 translations of one text, generated lines of marks,
/// controls, spaces and digits, and special tokens anywhere.
#[test]
fn text_of_many_languages_encodes_as_the_reference() {
    let lines = multilingual_lines();
    assert!(lines.len() >= 12_000);
    assert!(lines.iter().filter(|l| l.text.contains("<|image_pad|>")).count() >= 100);
    check_all(
        &lines,
        |line| format!("{:?}", line.text),
        |line| line.check_ids(&TOKENIZER.encode(&line.text).map_err(|e| e.to_string())?),
    );
    let swapped = lines[0].check_ids(&TOKENIZER.encode(&lines[1].text).unwrap());
    assert!(swapped.is_err(), "the comparison can fail");
}

#[test]
fn any_ids_decode_as_the_reference() {
    #[derive(Deserialize)]
    struct Case {
        ids: Vec<u32>,
        decoded: String,
        skipped: String,
    }
    let cases: Vec<Case> = read_jsonl(&golden("tokenizer/detokenize.jsonl"));
    check_all(
        &cases,
        |c| format!("{:?}", c.ids),
        |case| {
            same_text(&TOKENIZER.detokenize(&case.ids, false), &case.decoded)?;
            same_text(&TOKENIZER.detokenize(&case.ids, true), &case.skipped)
        },
    );
}

#[test]
fn placeholders_expand_as_the_reference() {
    #[derive(Deserialize)]
    struct Case {
        prompt: String,
        images: Vec<GridThw>,
        videos: Vec<GridThw>,
        ids: Vec<i64>,
    }
    let cases: Vec<Case> = read_jsonl(&golden("tokenizer/expand.jsonl"));
    check_all(
        &cases,
        |c| c.prompt.clone(),
        |case| {
            let prepared =
                TOKENIZER.prepare(&case.prompt, &case.images, &case.videos, 2).map_err(|e| e.to_string())?;
            equal(&prepared.input_ids, &ids(&case.ids))
        },
    );
}

#[test]
fn positions_equal_get_rope_index() {
    #[derive(Deserialize)]
    struct Case {
        ids: Vec<i64>,
        images: Vec<[u32; 3]>,
        videos: Vec<[u32; 3]>,
        delta: i64,
        positions: [Vec<i64>; 3],
    }
    let cases: Vec<Case> = read_jsonl(&golden("tokenizer/rope_index.jsonl"));
    assert!(cases.len() >= 300);
    check_all(
        &cases,
        |c| format!("images {:?} videos {:?}", c.images, c.videos),
        |case| {
            let index = rope_index(&ids(&case.ids), &case.images, &case.videos).map_err(|e| e.to_string())?;
            for (got, want) in index.position_ids.iter().zip(&case.positions) {
                let mut position = 0;
                let want: Vec<i64> = unrun(want)
                    .into_iter()
                    .map(|delta| {
                        position += delta;
                        position
                    })
                    .collect();
                equal(got, &want)?;
            }
            equal(&[index.rope_delta], &[case.delta])
        },
    );
}

#[test]
fn a_count_that_differs_is_an_error_that_names_both() {
    let grid = GridThw { t: 1, h: 4, w: 4 };
    for (prompt, images, videos, want) in [
        (
            "<|vision_start|><|image_pad|><|vision_end|>",
            vec![],
            vec![],
            "1 image placeholders, but there are 0 images",
        ),
        ("hello", vec![grid], vec![], "0 image placeholders, but there are 1 images"),
        ("<|image_pad|><|image_pad|>", vec![grid; 3], vec![], "2 image placeholders, but there are 3 images"),
        ("<|video_pad|>", vec![], vec![grid; 2], "1 video placeholders, but there are 2 videos"),
    ] {
        let error = TOKENIZER.prepare(prompt, &images, &videos, 2).unwrap_err().to_string();
        assert!(error.contains(want), "{error}");
    }
    let huge = GridThw { t: u32::MAX, h: u32::MAX, w: u32::MAX };
    let error =
        TOKENIZER.prepare("<|vision_start|><|image_pad|><|vision_end|>", &[huge], &[], 2).unwrap_err();
    assert!(matches!(error, Error::TooLong { .. }), "{error}");
}
