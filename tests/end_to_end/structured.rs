//! Answers of the demo model in a format: it knows none, so the format is all that makes them right.

use qwen2vl_pipeline::schemars::{self, JsonSchema};
use qwen2vl_pipeline::{Annotation, AnswerFormat, CancelToken, Error, FinishReason, Request, RequestOptions};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::set::{INT4, Item, SET, has_openvino};

fn caption() -> &'static Item {
    &SET.iter().find(|(item, _)| item.task == "caption").unwrap().0
}

fn request(format: AnswerFormat, max_new_tokens: usize) -> Request {
    let mut options = RequestOptions::default();
    options.format = Some(format);
    options.max_new_tokens = Some(max_new_tokens);
    caption().request().options(options)
}

fn ask(format: AnswerFormat, max_new_tokens: usize) -> Result<Annotation, Error> {
    INT4.run(&request(format, max_new_tokens))
}

fn choice(choices: &[&str]) -> AnswerFormat {
    AnswerFormat::Choice(choices.iter().map(|&c| c.to_owned()).collect())
}

#[test]
fn the_model_answers_as_without_a_format_where_the_format_allows_it() {
    if !has_openvino() {
        return;
    }
    let mut free = RequestOptions::default();
    free.max_new_tokens = Some(40);
    let plain = INT4.run(&caption().request().options(free)).unwrap();
    assert_eq!(plain.complete, None);
    for format in [
        choice(&["Nothing at all.", &plain.result, "A dog."]),
        AnswerFormat::Regex("[A-Z][a-z ]+\\.".to_owned()),
    ] {
        let answer = ask(format, 40).unwrap();
        assert_eq!(answer.result, plain.result);
        assert_eq!((answer.finish_reason, answer.complete), (FinishReason::Stop, Some(true)));
    }
}

#[test]
fn json_is_valid_within_any_number_of_tokens_and_flagged_where_it_was_closed() {
    if !has_openvino() {
        return;
    }
    let schema = json!({
        "type": "object",
        "properties": {
            "shapes": { "type": "array", "minItems": 1, "items": { "enum": ["star", "circle", "triangle"] } },
            "text": { "type": "string" },
        },
        "required": ["shapes", "text"],
        "additionalProperties": false,
    });
    let mut closed = 0;
    for max_new_tokens in (16..40).chain([200]) {
        let answer = ask(AnswerFormat::JsonSchema(schema.clone()), max_new_tokens).unwrap();
        let value: Value = serde_json::from_str(&answer.result).unwrap();
        assert!(!value["shapes"].as_array().unwrap().is_empty() && value["text"].is_string(), "{value}");
        assert!(answer.token_ids.len() <= max_new_tokens);
        assert_eq!(answer.complete, Some(answer.finish_reason == FinishReason::Stop));
        closed += usize::from(answer.complete == Some(false));
    }
    assert!(closed > 0, "no answer was closed: the limits prove nothing");
    let error = ask(AnswerFormat::JsonSchema(schema), 5).unwrap_err();
    assert!(error.kind() == "format" && error.to_string().contains("max_new_tokens is 5"), "{error}");
}

#[derive(Debug, Deserialize, JsonSchema, PartialEq)]
struct Scene {
    shape: Shape,
    count: u8,
    #[serde(default)]
    note: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Shape {
    Star,
    Circle,
}

#[test]
fn answers_are_values_of_a_type() {
    if !has_openvino() {
        return;
    }
    let mut asked = caption().request();
    asked.options.max_new_tokens = Some(60);
    let scene = INT4.run_as::<Scene>(&asked, &CancelToken::new()).unwrap();
    assert_eq!(scene.annotation.complete, Some(scene.is_complete()));
    let again: Scene = serde_json::from_str(&scene.annotation.result).unwrap();
    assert_eq!(again, scene.value);
}

#[test]
fn impossible_formats_are_refused_before_an_image_is_read() {
    if !has_openvino() {
        return;
    }
    let impossible = json!({ "type": "string", "minLength": 5, "maxLength": 2 });
    for (format, names) in [
        (AnswerFormat::JsonSchema(impossible), "minLength is 5"),
        (choice(&[]), "at least one"),
        (AnswerFormat::Regex("(".to_owned()), "the regex"),
        (AnswerFormat::Lark("start: missing".to_owned()), "missing"),
    ] {
        let mut options = RequestOptions::default();
        options.format = Some(format);
        let request = Request::question("What?").image("there/is/no.png").options(options);
        let error = INT4.run(&request).unwrap_err();
        assert!(error.kind() == "format" && error.to_string().contains(names), "{error}");
    }
}
