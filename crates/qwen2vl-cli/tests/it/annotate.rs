//! `qwen2vl annotate`.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use crate::{evaluation, finished, has_openvino, mixed_folder, qwen2vl, run, text};

const STAR: &str = "A purple star left of an orange triangle.";
const TRIANGLE: &str = "A green triangle left of a blue cross.";

#[test]
fn one_image_gives_its_answer_and_nothing_else() {
    if !has_openvino() {
        return;
    }
    let ran = run(&["annotate", &evaluation("caption_00.png"), "--prompt", "Describe the image."]);
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (0, format!("{STAR}\n").as_str(), ""));
}

#[test]
fn a_bad_file_gets_its_row_and_the_rest_is_done() {
    if !has_openvino() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let [a, b, c] = mixed_folder(dir.path());
    let ran = run(&["annotate", &text(dir.path()), "--prompt", "Describe the image.", "--format", "jsonl"]);
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    let rows = ran.rows();
    let inputs: Vec<&str> = rows.iter().map(|row| row["input"].as_str().unwrap()).collect();
    assert_eq!(inputs, [text(&a), text(&b), text(&c)]);
    assert_eq!((rows[0]["result"].as_str(), rows[2]["result"].as_str()), (Some(STAR), Some(TRIANGLE)));
    assert!(rows[0]["error"].is_null() && rows[1]["result"].is_null());
    assert_eq!(rows[1]["error"]["kind"], "image");
    assert!(rows[1]["error"]["message"].as_str().unwrap().contains("b.jpg"));
    assert_eq!((&rows[0]["finish_reason"], &rows[0]["model"]), (&"stop".into(), &rows[1]["model"]));
    assert!(rows[0]["time_ms"]["vision"].as_f64().unwrap() > 0.0);

    let ran = run(&["annotate", &text(dir.path()), "--prompt", "Describe the image."]);
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!((lines.len(), lines[0]), (3, format!("{}: {STAR}", text(&a)).as_str()));
    assert!(lines[1].contains("error: "), "{}", lines[1]);
}

#[test]
fn globs_tables_and_missing_files_are_inputs() {
    if !has_openvino() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let [a, _, c] = mixed_folder(dir.path());
    let rows = [
        serde_json::json!({ "image": "a.png", "prompt": "Describe the image." }),
        serde_json::json!({ "image": [a, c], "prompt": "Do both images show the same shape?" }),
        serde_json::json!({ "prompt": "Who are you?" }),
    ];
    let lines: Vec<String> = rows.iter().map(ToString::to_string).chain(["{broken".to_owned()]).collect();
    let table = dir.path().join("table.jsonl");
    std::fs::write(&table, lines.join("\n")).unwrap();
    let pattern = text(&dir.path().join("*.png"));
    let ran = run(&["annotate", &pattern, &text(&table), "nowhere.png", "--format", "jsonl"]);
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    let rows = ran.rows();
    assert_eq!(rows.len(), 6);
    assert_eq!(rows[0]["prompt"], "Describe this image.");
    assert_eq!(rows[1]["result"], STAR);
    assert_eq!(rows[2]["grid_thw"].as_array().unwrap().len(), 2);
    assert_eq!(rows[3]["result"], "I am a small vision model.");
    assert!(rows[4]["error"]["message"].as_str().unwrap().contains("not a row"));
    assert_eq!(rows[4]["input"], format!("{}:4", text(&table)));
    assert_eq!(rows[5]["error"]["kind"], "io");
}

#[test]
fn results_can_go_to_a_file() {
    if !has_openvino() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("out.jsonl");
    let image = evaluation("caption_00.png");
    let ran = run(&["annotate", &image, "--format", "jsonl", "-o", &text(&file), "--max-new-tokens", "2"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (0, ""), "{}", ran.stderr);
    let row: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    assert_eq!((&row["finish_reason"], &row["output_tokens"]), (&"length".into(), &2.into()));

    let ran = run(&["annotate", &image, "-o", "/no/such/folder/out.txt"]);
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("/no/such/folder/out.txt"), "{}", ran.stderr);
}

#[test]
fn generation_flags_change_the_answer() {
    if !has_openvino() {
        return;
    }
    let image = evaluation("caption_00.png");
    let ask = |flags: &[&str]| {
        let ran = run(&[&["annotate", &image, "--prompt", "Describe the image."], flags].concat());
        assert_eq!(ran.code, 0, "{flags:?}: {}", ran.stderr);
        ran.stdout.trim_end_matches('\n').to_owned()
    };
    assert_eq!(ask(&["--stop-strings", " left"]), "A purple star");
    assert_eq!(ask(&["--stop-strings", "nowhere", "--stop-strings", "urple"]), "A p");
    let rows =
        run(&["annotate", &image, "--prompt", "Describe the image.", "--format", "jsonl", "--logprobs", "2"]);
    let row = &rows.rows()[0];
    let logprobs = row["logprobs"].as_array().unwrap();
    assert_eq!(logprobs.len(), row["output_tokens"].as_u64().unwrap() as usize);
    let text: String = logprobs.iter().map(|l| l["token"].as_str().unwrap()).collect();
    assert_eq!(text, STAR);
    for one in logprobs {
        // Greedy takes the most probable one.
        assert_eq!(
            (one["top"][0]["id"].as_u64(), one["top"].as_array().unwrap().len()),
            (one["id"].as_u64(), 2)
        );
        assert!(one["logprob"].as_f64().unwrap() <= 0.0);
    }
    let purple = logprobs[1]["id"].to_string();
    // The model finds "purple" without a space instead.
    assert!(!ask(&["--suppress-tokens", &purple]).contains(" purple"));
    assert!(!ask(&["--logit-bias", &format!("{purple}=-100")]).contains(" purple"));
    let always = ask(&["--logit-bias", &format!("{purple}=900"), "--max-new-tokens", "3"]);
    assert_eq!(always.trim(), "purple purple purple");
    let repeated = format!("{purple}=900");
    let once = ask(&["--logit-bias", &repeated, "--max-new-tokens", "3", "--no-repeat-ngram-size", "1"]);
    assert_eq!(once.matches(" purple").count(), 1, "{once}");
    assert!(ask(&["--min-new-tokens", "20"]).len() > STAR.len());

    let mut by_variable = qwen2vl(&["annotate", &image, "--prompt", "Describe the image."]);
    by_variable
        .env("QWEN2VL_STOP_STRINGS", "star, left")
        .env("QWEN2VL_SUPPRESS_TOKENS", format!("1,{purple}"));
    let ran = finished(&by_variable.output().unwrap());
    assert!(ran.code == 0 && !ran.stdout.contains(" purple"), "{}{}", ran.stdout, ran.stderr);
}

#[test]
fn generation_flags_out_of_range_are_named() {
    if !has_openvino() {
        return;
    }
    let image = evaluation("caption_00.png");
    let ran = run(&["annotate", &image, "--format", "jsonl", "--max-input-tokens", "20"]);
    let row = &ran.rows()[0]["error"];
    assert_eq!((ran.code, row["kind"].as_str()), (1, Some("context")), "{row}");
    assert!(row["message"].as_str().unwrap().contains("max_input_tokens allows 20"), "{row}");
    // What no input can change is said once.
    for (flags, says) in [
        (&["--min-p", "2"][..], "min_p is 2, allowed is 0 to 1"),
        (&["--temperature", "-1"], "temperature is -1, allowed is a number above 0"),
        (&["--presence-penalty", "-3"], "presence_penalty is -3, allowed is -2 to 2"),
        (&["--min-new-tokens", "9", "--max-new-tokens", "8"], "allowed is 0 to max_new_tokens, 8"),
        (&["--suppress-tokens", "151936"], "suppress_tokens is 151936, allowed is token ids below"),
        (&["--stop-token-ids", "151936"], "stop_token_ids is 151936"),
        (&["--stop-strings", ""], "stop_strings is \"\""),
        (&["--logprobs", "101"], "logprobs is 101, allowed is 0 to 100"),
    ] {
        let ran = run(&[&["annotate", &image, &image, "--format", "jsonl"], flags].concat());
        assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{flags:?}");
        assert!(ran.stderr.contains(says), "{flags:?}: {}", ran.stderr);
    }
    let ran = run(&["annotate", &image, "--logprobs", "1"]);
    assert!(ran.code == 2 && ran.stderr.contains("--logprobs needs --format jsonl"), "{}", ran.stderr);
}

#[test]
fn messages_and_raw_prompts_are_asked_as_they_are() {
    if !has_openvino() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("messages.json");
    let content = serde_json::json!([{ "role": "user", "content": [
        { "type": "image", "image": evaluation("caption_00.png") },
        { "type": "text", "text": "Describe the image." },
    ]}]);
    std::fs::write(&file, content.to_string()).unwrap();
    let ran = run(&["annotate", "--messages", &text(&file)]);
    assert_eq!((ran.code, ran.stdout.trim()), (0, STAR), "{}", ran.stderr);

    let prompt = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<|vision_start|>\
                  <|image_pad|><|vision_end|>Describe the image.<|im_end|>\n<|im_start|>assistant\n";
    let image = evaluation("caption_00.png");
    // A prompt with its template is recognized, with --raw or without.
    for raw in [&["--raw"][..], &[]] {
        let ran = run(&[&["annotate", &image, "--prompt", prompt], raw].concat());
        assert_eq!((ran.code, ran.stdout.trim(), ran.stderr.as_str()), (0, STAR, ""));
    }

    // Without its placeholder it is put right, with a word, or refused.
    let lacking = prompt.replace("<|vision_start|><|image_pad|><|vision_end|>", "");
    let ran = run(&["annotate", &image, "--prompt", &lacking, "--format", "jsonl"]);
    assert_eq!((ran.code, &ran.rows()[0]["result"]), (0, &STAR.into()));
    assert!(ran.stderr.contains("warning: the prompt has no <|image_pad|>"), "{}", ran.stderr);
    assert!(ran.rows()[0]["warnings"][0].as_str().unwrap().contains("put in front"));
    let ran = run(&["annotate", &image, "--prompt", &lacking, "--format", "jsonl", "--strict-prompt"]);
    assert_eq!((ran.code, &ran.rows()[0]["error"]["kind"]), (1, &"prompt".into()));
    assert!(
        ran.stdout.contains("the prompt has no <|image_pad|>, but the request has 1 images"),
        "{}",
        ran.stdout
    );

    let two = format!("{prompt}<|image_pad|>");
    let ran = run(&["annotate", &image, "--raw", "--prompt", &two]);
    assert_eq!(ran.code, 1);
    assert!(ran.stdout.contains("2 image placeholders, but there are 1 images"), "{}", ran.stdout);
}

#[test]
fn the_cap_is_said_once_and_can_be_lifted() {
    if !has_openvino() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    // The demo model's own limit is below the cap: a copy with the 2B's limit shows the cap.
    let model = dir.path().join("model");
    std::fs::create_dir(&model).unwrap();
    for entry in std::fs::read_dir(qwen2vl_testkit::demo_model_dir()).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), model.join(entry.file_name())).unwrap();
    }
    let config = model.join("preprocessor_config.json");
    let mut json: serde_json::Value = qwen2vl_testkit::read_json(&config);
    json["max_pixels"] = 12_845_056.into();
    json["size"] = serde_json::json!({ "shortest_edge": 3136, "longest_edge": 12_845_056 });
    std::fs::write(&config, json.to_string()).unwrap();
    for name in ["a.png", "b.png"] {
        image::RgbImage::new(1400, 1100).save(dir.path().join(name)).unwrap();
    }
    let (model, pattern) = (text(&model), text(&dir.path().join("*.png")));
    let common = ["annotate", &pattern, "--model", &model, "--format", "jsonl", "--max-new-tokens", "1"];
    let ran = run(&common);
    assert_eq!((ran.code, ran.stderr.lines().count()), (0, 1), "{}", ran.stderr);
    assert!(ran.stderr.contains("1003520") && ran.stderr.contains("--max-pixels model"), "{}", ran.stderr);
    assert_eq!(ran.rows()[0]["grid_thw"], serde_json::json!([[1, 62, 80]]));

    let ran = run(&[&common[..], &["--max-pixels", "model"]].concat());
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    assert_eq!(ran.rows()[0]["grid_thw"], serde_json::json!([[1, 78, 100]]));
}

#[test]
fn nothing_to_do_is_exit_2() {
    for (arguments, says) in [
        (&["annotate"][..], "<INPUT>"),
        (&["annotate", "x.png", "--model", "no-such-model"], "no-such-model"),
        (&["annotate", "x.png", "--threads", "0"], "threads"),
        (&["annotate", "x.png", "--max-pixels", "lots"], "lots"),
        (&["annotate", "x.png", "--format", "xml"], "xml"),
        (&["annotate", "--messages", "no-such-messages.json"], "no-such-messages.json"),
        (&["plan", "12"], "1920x1080"),
    ] {
        let ran = run(arguments);
        assert!(ran.code == 2 && ran.stdout.is_empty(), "{arguments:?}: {} {}", ran.code, ran.stdout);
        assert!(ran.stderr.contains(says), "{arguments:?}: {}", ran.stderr);
    }
}

/// Ctrl-C after the second row: the rows are whole, the rest is not begun, the exit code is the shell's for it.
#[cfg(unix)]
#[test]
fn an_interrupt_ends_after_the_rows_already_printed() {
    if !has_openvino() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for i in 0..2000 {
        std::fs::hard_link(evaluation("caption_00.png"), dir.path().join(format!("{i:04}.png")))
            .or_else(|_| {
                std::fs::copy(evaluation("caption_00.png"), dir.path().join(format!("{i:04}.png"))).map(drop)
            })
            .unwrap();
    }
    let mut command = qwen2vl(&["annotate", &text(dir.path()), "--format", "jsonl"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut rows: Vec<String> = lines.by_ref().take(2).map(Result::unwrap).collect();
    let kill = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    rows.extend(lines.map(Result::unwrap));
    let ran = finished(&child.wait_with_output().unwrap());
    assert_eq!(ran.code, 130, "{}", ran.stderr);
    assert!(rows.len() < 2000);
    for row in rows {
        let row: serde_json::Value = serde_json::from_str(&row).expect("a whole row");
        assert_eq!(row["finish_reason"], "stop");
    }
}

#[test]
fn rows_of_a_table_have_options_of_their_own() {
    if !has_openvino() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let table = dir.path().join("rows.jsonl");
    let image = evaluation("caption_00.png");
    let row = |options: serde_json::Value| {
        serde_json::json!({ "image": image, "prompt": "Describe the image.", "options": options }).to_string()
    };
    let rows = [
        row(serde_json::json!({})),
        row(serde_json::json!({ "maxOutputLength": 2 })),
        row(serde_json::json!({ "temprature": 2 })),
        row(serde_json::json!({ "top_p": 2.0 })),
        row(serde_json::json!({ "stop": "left", "max_new_tokens": 50 })),
    ];
    std::fs::write(&table, rows.join("\n")).unwrap();
    let ran = run(&["annotate", &text(&table), "--format", "jsonl", "--max-new-tokens", "4"]);
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    let rows = ran.rows();
    let tokens: Vec<_> = rows.iter().map(|row| row["output_tokens"].as_u64()).collect();
    assert_eq!(tokens[..4], [Some(4), Some(2), None, None]);
    assert_eq!(
        (rows[4]["result"].as_str(), &rows[4]["finish_reason"]),
        (Some("A purple star "), &"stop".into())
    );
    for (row, part) in [(&rows[2], "did you mean temperature"), (&rows[3], "top_p is 2")] {
        assert_eq!(row["error"]["kind"], "options");
        assert!(row["error"]["message"].as_str().unwrap().contains(part), "{row}");
    }
}
