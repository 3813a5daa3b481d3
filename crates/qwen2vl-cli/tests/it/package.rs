//! `model info` and `model verify`: what is in a package, and whether it is whole.

use qwen2vl_testkit::{demo_model_dir, demo_spark_dir, demo_spark_zip};
use serde_json::Value;

use super::{run, text};

fn json(arguments: &[&str]) -> Value {
    let ran = run(arguments);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    serde_json::from_str(&ran.stdout).unwrap()
}

#[test]
fn info_says_what_spark_nlp_wrote() {
    let zip = text(&demo_spark_zip());
    let found = json(&["model", "info", &zip, "--json"]);
    assert_eq!((&found["kind"], &found["engine"]), (&"spark_annotator".into(), &"openvino".into()));
    assert_eq!(found["spark"]["spark_version"], "3.5.9");
    assert_eq!(found["spark"]["uid"], "Qwen2VLTransformer_70d70ad2ba8b");
    assert_eq!(found["tokenizer"]["vocabulary"], 151_643);
    assert_eq!(found["tokenizer"]["added_tokens"], 22);
    assert_eq!(found["config"]["text_config"]["num_hidden_layers"], 4);
    assert_eq!(found["preprocessor"]["max_pixels"], 12_845_056);
    let precision = |name: &str| {
        let models = found["models"].as_array().unwrap();
        models.iter().find(|m| m["name"] == name).unwrap()["precision"].clone()
    };
    assert_eq!(precision("openvino_text_embeddings_model"), "f16");
    assert_eq!(precision("openvino_vision_embeddings_merger_model"), "u4 + u8");
    assert_eq!(precision("openvino_language_model"), "u8 + u4");
    let parameters = found["parameters"].as_array().unwrap();
    let find = |name: &str| parameters.iter().find(|p| p["name"] == name).unwrap();
    assert_eq!((&find("imageMean")["honored"], &find("imageMean")["explicit"]), (&true.into(), &true.into()));
    assert_eq!(
        (&find("maxOutputLength")["value"], &find("maxOutputLength")["honored"]),
        (&20.into(), &false.into())
    );

    let ran = run(&["model", "info", &zip]);
    for part in [
        "Spark NLP annotator",
        "Spark 3.5.9, 2026-11-24 01:35 UTC",
        "u8 + u4",
        "4 layers of width 128",
        "151643 tokens, 22 added, 151387 merges",
        "* imageMean",
        "size                 = 224  (not used: Qwen2-VL keeps",
    ] {
        assert!(ran.stdout.contains(part), "{part:?} is not in {}", ran.stdout);
    }
}

#[test]
fn info_without_a_model_is_about_the_embedded_one() {
    let found = json(&["model", "info", "--json"]);
    assert_eq!(found["kind"], "openvino_export");
    assert_eq!(found["parameters"], Value::Array(Vec::new()));
    assert_eq!(found["config"], json(&["model", "info", &text(&demo_model_dir()), "--json"])["config"]);
}

#[test]
fn verify_reads_everything_and_names_what_is_damaged() {
    for whole in [demo_spark_zip(), demo_spark_dir(), demo_model_dir()] {
        let found = json(&["model", "verify", &text(&whole), "--json"]);
        assert_eq!(found["ok"], true, "{found}");
    }
    let ran = run(&["model", "verify", &text(&demo_spark_zip())]);
    assert_eq!(ran.code, 0);
    assert!(ran.stdout.contains("checksums right, 21 of them as their .crc files say"), "{}", ran.stdout);

    // One bit, in the middle of the largest model.
    let dir = tempfile::tempdir().unwrap();
    let damaged = dir.path().join("damaged.zip");
    let mut bytes = std::fs::read(demo_spark_zip()).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    std::fs::write(&damaged, bytes).unwrap();
    let ran = run(&["model", "verify", &text(&damaged), "--json"]);
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    let found: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(found["ok"], false);
    let detail = found["checks"][0]["detail"].as_str().unwrap();
    assert!(detail.contains("damaged.zip") && detail.contains("openvino_"), "{detail}");
    let ran = run(&["model", "verify", &text(&damaged)]);
    assert!(ran.stdout.starts_with("FAILED"), "{}", ran.stdout);
    let ran = run(&["model", "info", &text(&damaged)]);
    assert_eq!((ran.code, ran.stdout.as_str()), (2, ""));
    assert!(ran.stderr.contains("damaged.zip"), "{}", ran.stderr);
}

#[test]
fn a_warning_in_a_file_has_no_colors() {
    // A parameter that has no effect here is warned of.
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("model");
    copy(&demo_spark_dir(), &model);
    let metadata = model.join("metadata/part-00000");
    let text = std::fs::read_to_string(&metadata).unwrap();
    std::fs::write(&metadata, text.replace("\"size\":224,", "\"size\":224,\"someday\":4,")).unwrap();
    std::fs::remove_file(model.join("metadata/.part-00000.crc")).unwrap();
    let ran = run(&["model", "info", super::text(&model).as_str()]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(
        ran.stderr.contains("the parameter someday = 4 is not used: unknown to this project"),
        "{}",
        ran.stderr
    );
    assert!(!ran.stderr.contains('\u{1b}'), "{:?}", ran.stderr);
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() { copy(&path, &target) } else { std::fs::copy(&path, &target).map(drop).unwrap() }
    }
}
