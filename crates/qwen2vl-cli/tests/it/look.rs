//! `qwen2vl inspect`, `plan`, `doctor`, `demo`: what is shown without annotating.

use serde_json::{Value, json};

use crate::{evaluation, has_openvino, qwen2vl, run, text};

#[test]
fn inspect_shows_what_the_model_would_be_given() {
    let dir = tempfile::tempdir().unwrap();
    let image = evaluation("caption_00.png");
    let ran = run(&["inspect", &image, "--prompt", "What?", "--npy", &text(dir.path())]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let object = &ran.rows()[0];
    let shown = &object["images"][0];
    let pixels = image::image_dimensions(&image).unwrap();
    assert_eq!((&shown["path"], &shown["size"]), (&image.into(), &json!([pixels.1, pixels.0])));
    let number = |value: &Value| value.as_u64().unwrap();
    let (grid, tokens) = (&shown["grid_thw"], number(&shown["tokens"]));
    assert_eq!(shown["resized"], json!([number(&grid[1]) * 14, number(&grid[2]) * 14]));
    assert_eq!(tokens, number(&grid[1]) * number(&grid[2]) / 4);
    assert!(object["prompt"].as_str().unwrap().contains("<|vision_start|><|image_pad|><|vision_end|>What?"));
    let ids: Vec<u64> = object["input_ids"].as_array().unwrap().iter().map(number).collect();
    assert_eq!(ids.iter().filter(|&&id| id == 151_655).count() as u64, tokens);
    for axis in 0..3 {
        assert_eq!(object["position_ids"][axis].as_array().unwrap().len(), ids.len());
    }
    assert!(object["rope_delta"].as_i64().unwrap() < 0);
    let npy = std::fs::read(dir.path().join("image_0.npy")).unwrap();
    let n_patches = number(&grid[1]) * number(&grid[2]);
    assert!(String::from_utf8_lossy(&npy[..128]).contains(&format!("({n_patches}, 1176)")));
}

#[test]
fn inspect_works_without_images() {
    let ran = run(&["inspect", "--prompt", "Hi"]);
    let object = &ran.rows()[0];
    assert_eq!((ran.code, &object["images"], &object["rope_delta"]), (0, &json!([]), &json!(0)));
    assert!(object["prompt"].as_str().unwrap().ends_with("Hi<|im_end|>\n<|im_start|>assistant\n"));
    let ran = run(&["inspect", "--raw", "--prompt", "just this"]);
    assert_eq!(ran.rows()[0]["prompt"], "just this");

    let image = evaluation("caption_00.png");
    let ran = run(&["inspect", &image, "--prompt", "What?", "--text-first"]);
    let prompt = ran.rows()[0]["prompt"].clone();
    assert!(prompt.as_str().unwrap().contains("What?<|vision_start|><|image_pad|><|vision_end|><|im_end|>"));

    let ran = run(&["inspect", "nowhere.png"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (2, ""));
    assert!(ran.stderr.contains("nowhere.png"), "{}", ran.stderr);
}

#[test]
fn columns_of_a_table_are_put_into_the_prompt() {
    let dir = tempfile::tempdir().unwrap();
    let table = dir.path().join("t.jsonl");
    let image = evaluation("caption_00.png");
    let rows = [
        json!({ "image": image, "category": "star", "n": 2 }),
        json!({ "image": image, "category": "cross", "prompt": "{category}: yes or no, as {{category}}?" }),
        json!({ "image": image, "kind": "circle" }),
    ];
    std::fs::write(&table, rows.map(|row| row.to_string() + "\n").concat()).unwrap();
    let ran = run(&["inspect", &text(&table), "--prompt", "Is this a {category}?"]);
    assert_eq!(ran.code, 1);
    let prompts: Vec<Value> = ran.rows().iter().map(|row| row["prompt"].clone()).collect();
    assert_eq!(prompts.len(), 2);
    assert!(prompts[0].as_str().unwrap().contains("Is this a star?<|im_end|>"));
    assert!(prompts[1].as_str().unwrap().contains("cross: yes or no, as {category}?<|im_end|>"));
    assert!(ran.stderr.contains("the column {category}, the row has kind"), "{}", ran.stderr);
    // Elsewhere braces mean nothing.
    let ran = run(&["inspect", "--prompt", "Is this a {category}?"]);
    assert!(ran.rows()[0]["prompt"].as_str().unwrap().contains("a {category}?"));
}

#[test]
fn plan_needs_no_image() {
    let ran = run(&["plan", "1920x1080", "640x480", "--max-pixels", "12845056"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let rows = ran.rows();
    assert_eq!(rows[0]["resized"], json!([1092, 1932]));
    assert_eq!((&rows[0]["grid_thw"], &rows[0]["tokens"]), (&json!([1, 78, 138]), &json!(2691)));
    assert!(rows[0]["peak_bytes"].as_u64().unwrap() > rows[1]["peak_bytes"].as_u64().unwrap());

    let ran = run(&["plan", "640x480", "1x500"]);
    assert_eq!((ran.code, ran.rows().len()), (1, 1));
    assert!(ran.stderr.contains("1x500") && ran.stderr.contains("200"), "{}", ran.stderr);
}

#[test]
fn environment_variables_stand_for_options() {
    let ran = crate::finished(
        &qwen2vl(&["plan", "4000x3000"]).env("QWEN2VL_MAX_PIXELS", "50176").output().unwrap(),
    );
    let resized = &ran.rows()[0]["resized"];
    assert!(resized[0].as_u64().unwrap() * resized[1].as_u64().unwrap() <= 50_176, "{resized}");
}

#[test]
fn doctor_finds_what_is_there_and_says_what_is_not() {
    let ran = run(&["doctor", "--json", "--model", "no-such-model"]);
    assert_eq!(ran.code, 1);
    let found = &ran.rows()[0];
    assert!(found["model"]["error"].as_str().unwrap().contains("no-such-model"));
    assert!(found["cache"]["error"].is_null() && found["cpu"]["cores"].as_u64().unwrap() > 0);

    let missing = qwen2vl(&["doctor"]).env("QWEN2VL_OPENVINO", "no-such-library").output().unwrap();
    let ran = crate::finished(&missing);
    assert_eq!(ran.code, 1);
    assert!(ran.stdout.contains("FAIL OpenVINO") && ran.stdout.contains("no-such-library"), "{}", ran.stdout);

    if has_openvino() {
        let ran = run(&["doctor", "--json"]);
        let found = &ran.rows()[0];
        assert_eq!(ran.code, 0, "{found}");
        assert!(found["openvino"]["devices"].as_array().unwrap().contains(&json!("CPU")));
    }
}

#[cfg(target_os = "linux")]
#[test]
fn doctor_counts_cores_and_nodes_that_may_be_used() {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
    let first = allowed.trim().split([',', '-']).next().unwrap();
    let exe = qwen2vl(&["doctor", "--json"]).get_program().to_owned();
    let mut taskset = std::process::Command::new("taskset");
    let output = taskset.args(["-c", first]).arg(exe).args(["doctor", "--json"]).output().unwrap();
    let found = &crate::finished(&output).rows()[0];
    assert_eq!(found["cpu"]["cores"], 1);
    // Nothing where the system does not tell of nodes.
    assert!(found["cpu"]["numa_nodes"].as_u64().is_none_or(|nodes| nodes == 1), "{found}");
}

#[test]
fn demo_answers_its_samples() {
    if !has_openvino() {
        return;
    }
    let ran = run(&["demo", "--precision", "f32"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let questions = ran.stdout.lines().filter(|l| l.starts_with("  question ")).count();
    let wrong = ran.stdout.lines().filter(|l| l.contains("<- differs")).count();
    assert!(questions >= 5, "{}", ran.stdout);
    assert!(ran.stdout.contains(&format!("{} of {questions} right", questions - wrong)), "{}", ran.stdout);
    assert!(wrong <= 1, "{}", ran.stdout);
}
