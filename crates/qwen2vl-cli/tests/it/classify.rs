//! `qwen2vl classify`, and beams of `qwen2vl annotate`.

use crate::{evaluation, has_openvino, mixed_folder, run, text};

const STAR: &str = "A purple star left of an orange triangle.";
const TRIANGLE: &str = "A green triangle left of a blue cross.";
const PROMPT: &[&str] = &["--prompt", "Describe the image."];

fn classify(arguments: &[&str]) -> crate::Ran {
    run(&[&["classify"], arguments, PROMPT].concat())
}

#[test]
fn each_input_gets_the_most_probable_label_and_a_bad_one_its_error() {
    if !has_openvino() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let [a, b, c] = mixed_folder(dir.path());
    let file = dir.path().join("labels.txt");
    std::fs::write(&file, format!("{TRIANGLE}\n\n{STAR}\r\nA purple star\n")).unwrap();
    let folder = text(dir.path());
    let ran = classify(&[&folder, "--labels-file", &text(&file), "--format", "jsonl"]);
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    let rows = ran.rows();
    let inputs: Vec<&str> = rows.iter().map(|row| row["input"].as_str().unwrap()).collect();
    assert_eq!(inputs, [text(&a), text(&b), text(&c)]);
    assert_eq!((rows[0]["result"].as_str(), rows[2]["result"].as_str()), (Some(STAR), Some(TRIANGLE)));
    assert_eq!((rows[1]["error"]["kind"].as_str(), rows[1]["labels"].is_null()), (Some("image"), true));
    let labels = rows[0]["labels"].as_array().unwrap();
    let sum: f64 = labels.iter().map(|label| label["probability"].as_f64().unwrap()).sum();
    assert!(labels.len() == 3 && (sum - 1.0).abs() < 1e-5, "{labels:?}");
    assert!(rows[0]["probability"].as_f64().unwrap() > 0.9 && labels[0]["label"] == STAR);
    assert!(rows[0]["time_ms"]["prefill"].as_f64().unwrap() > 0.0);

    let ran = classify(&[&text(&a), "--labels", "A blue circle.,A purple star left of an orange triangle."]);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    assert_eq!(ran.stdout, format!("{STAR} 1.000, A blue circle. 0.000\n"));
}

#[test]
fn without_a_prompt_the_labels_are_asked_for() {
    if !has_openvino() {
        return;
    }
    let image = evaluation("caption_00.png");
    let ran = run(&["classify", &image, "--labels", "star, digit", "--format", "jsonl"]);
    let prompt = ran.rows()[0]["prompt"].as_str().unwrap().to_owned();
    assert_eq!(prompt, "Which of these is in this image: star, digit? Answer with one of them only.");
}

#[test]
fn bad_labels_end_the_command_with_a_message() {
    if !has_openvino() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let empty = dir.path().join("empty.txt");
    std::fs::write(&empty, "\n \n").unwrap();
    let image = evaluation("caption_00.png");
    let (empty, missing) = (text(&empty), text(&dir.path().join("missing.txt")));
    for (arguments, says) in [
        (vec![], "--labels"),
        (vec!["--labels", "a,b,a"], "labels is \"a\" twice, allowed is labels that differ"),
        (vec!["--labels", "a,,b"], "labels is \"\", allowed is labels of one character or more"),
        (vec!["--labels-file", &empty], "labels is an empty list, allowed is one label or more"),
        (vec!["--labels-file", &missing], "missing.txt"),
        (vec!["--labels", "a", "--labels-file", &empty], "cannot be used with"),
    ] {
        let ran = classify(&[&[image.as_str()], &arguments[..]].concat());
        assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{arguments:?}");
        assert!(ran.stderr.contains(says), "{arguments:?}: {}", ran.stderr);
    }
}

#[test]
fn beams_stand_in_rows_and_what_contradicts_is_refused_before_the_model_is_loaded() {
    if !has_openvino() {
        return;
    }
    let image = evaluation("caption_00.png");
    let annotate = |arguments: &[&str]| run(&[&["annotate", &image], PROMPT, arguments].concat());
    let ran = annotate(&["--beam-size", "3", "--n-return-sequences", "2", "--format", "jsonl"]);
    let rows = ran.rows();
    assert_eq!((ran.code, rows[0]["result"].as_str()), (0, Some(STAR)), "{}", ran.stderr);
    let alternatives = rows[0]["alternatives"].as_array().unwrap();
    assert!(alternatives.len() == 1 && alternatives[0]["result"] != STAR, "{alternatives:?}");
    assert!(alternatives[0]["score"].as_f64() < rows[0]["score"].as_f64(), "{}", rows[0]);
    for (arguments, says) in [
        (&["--num-beams", "2", "--do-sample"][..], "num_beams is 2, allowed is 1 with do_sample"),
        (
            &["--num-beams", "2", "--num-return-sequences", "3", "--format", "jsonl"],
            "num_return_sequences is 3, allowed is 1 to num_beams, 2",
        ),
        (&["--num-return-sequences", "2", "--do-sample"], "--num-return-sequences needs --format jsonl"),
    ] {
        let ran = annotate(arguments);
        assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{arguments:?}");
        assert!(ran.stderr.contains(says), "{arguments:?}: {}", ran.stderr);
    }
}
