//! Answers in a form: flags, rows, and what is refused.

use serde_json::Value;

use crate::{evaluation, finished, has_openvino, qwen2vl, run, text};

fn annotate(flags: &[&str]) -> crate::Ran {
    let image = evaluation("caption_00.png");
    run(&[&["annotate", &image, "--prompt", "Describe the image."], flags].concat())
}

#[test]
fn answers_have_the_form_that_flags_or_variables_ask_for() {
    if !has_openvino() {
        return;
    }
    let ran = annotate(&["--choices", "A red circle,A purple star,Nothing"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "A purple star\n"), "{}", ran.stderr);
    let ran = annotate(&["--regex", "An? [a-z]+ star"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "A purple star\n"), "{}", ran.stderr);
    let ran = annotate(&["--json", "--max-new-tokens", "30"]);
    assert!(serde_json::from_str::<Value>(&ran.stdout).unwrap().is_object(), "{}", ran.stdout);
    let dir = tempfile::tempdir().unwrap();
    let grammar = dir.path().join("a.lark");
    std::fs::write(&grammar, "start: \"<\" /[a-z]{3,9}/ \">\"").unwrap();
    let ran = annotate(&["--grammar", &text(&grammar)]);
    assert!(ran.stdout.starts_with('<') && ran.stdout.ends_with(">\n"), "{}", ran.stdout);
    let image = evaluation("caption_00.png");
    let mut command = qwen2vl(&["annotate", &image, "--prompt", "Describe the image."]);
    let ran = finished(&command.env("QWEN2VL_CHOICES", "A purple star,Nothing").output().unwrap());
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "A purple star\n"), "{}", ran.stderr);
}

#[test]
fn rows_say_whether_an_answer_is_complete() {
    if !has_openvino() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let schema = dir.path().join("schema.json");
    let content = "{\"type\": \"object\", \"properties\": {\"words\": {\"type\": \"array\", \"items\": {\"type\": \"string\"}, \
                   \"minItems\": 2}}, \"required\": [\"words\"], \"additionalProperties\": false}";
    std::fs::write(&schema, content).unwrap();
    let ran = annotate(&["--json-schema", &text(&schema), "--max-new-tokens", "20", "--format", "jsonl"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let row = &ran.rows()[0];
    let answer: Value = serde_json::from_str(row["result"].as_str().unwrap()).unwrap();
    assert!(answer["words"].as_array().unwrap().len() >= 2, "{answer}");
    assert_eq!(row["complete"], row["finish_reason"] == "stop", "{row}");
    let ran = annotate(&["--choices", "A purple star,Nothing", "--format", "jsonl"]);
    assert_eq!((&ran.rows()[0]["complete"], &ran.rows()[0]["finish_reason"]), (&true.into(), &"stop".into()));
    assert!(annotate(&["--format", "jsonl"]).rows()[0].get("complete").is_none());
}

#[test]
fn what_cannot_be_answered_is_refused_once_with_its_reason() {
    if !has_openvino() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let schema = dir.path().join("schema.json");
    std::fs::write(&schema, "{\"type\": \"string\", \"minLength\": 5, \"maxLength\": 2}").unwrap();
    let schema = text(&schema);
    for (flags, names) in [
        (&["--json-schema", &schema][..], "minLength is 5"),
        (&["--regex", "("], "the regex"),
        (&["--choices", "a,b,a"], "choice 3"),
        (&["--choices", "a whole sentence of many words", "--max-new-tokens", "2"], "max_new_tokens is 2"),
        (&["--json", "--num-beams", "2"], "num_beams"),
        (&["--json", "--min-new-tokens", "2"], "min_new_tokens"),
        (&["--json", "--stop-strings", "}"], "stop_strings"),
        (&["--json", "--regex", "a"], "cannot be used with"),
    ] {
        let ran = annotate(flags);
        assert!(ran.code != 0 && ran.stdout.is_empty(), "{flags:?}: {}", ran.stdout);
        assert!(ran.stderr.contains(names), "{flags:?}: {}", ran.stderr);
    }
}
