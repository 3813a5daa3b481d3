//! Packages in Spark NLP's layout: the same tokens and answers as the export that they were made of.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use qwen2vl_package::{ModelPackage, PackageKind};
use qwen2vl_pipeline::Annotator;
use qwen2vl_testkit::{
    demo_model_dir, demo_spark_dir, demo_spark_models_dir, demo_spark_zip, java_zip, multilingual_lines,
};
use qwen2vl_tokenizer::Tokenizer;
use serde_json::{Value, json};

use crate::set::{INT4, SET, annotator, has_openvino, package};

const NEEDED: [&str; 4] = [
    "openvino_language_model",
    "openvino_text_embeddings_model",
    "openvino_vision_embeddings_model",
    "openvino_vision_embeddings_merger_model",
];

/// The package that Spark NLP wrote, with the pixel limit that the demo model was trained with: Spark NLP keeps none.
static SPARK: LazyLock<Annotator> = LazyLock::new(|| annotator(limited(package(&demo_spark_zip()))));

fn limited(mut package: ModelPackage) -> ModelPackage {
    package.preprocess.pixel_limits.max_pixels = 200_704;
    package.video_preprocess.pixel_limits.max_pixels = 200_704;
    package
}

/// Answers to every third question: all tasks are among them.
fn answers(annotator: &Annotator) -> Vec<String> {
    SET.iter().step_by(3).map(|(item, _)| annotator.run(&item.request()).unwrap().result).collect()
}

#[test]
fn its_tokenizer_is_that_of_tokenizer_json() {
    let ours = Tokenizer::from_file(package(&demo_spark_zip()).tokenizer_json).unwrap();
    let theirs = Tokenizer::from_file(package(&demo_model_dir()).tokenizer_json).unwrap();
    let lines = multilingual_lines();
    assert!(lines.len() >= 10_000);
    let mut different = Vec::new();
    for line in &lines {
        let (a, b) = (ours.encode(&line.text).unwrap(), theirs.encode(&line.text).unwrap());
        if a != b || ours.detokenize(&a, true) != theirs.detokenize(&b, true) {
            different.push(&line.text);
        }
    }
    assert!(
        different.is_empty(),
        "{} of {} lines differ: {:?}",
        different.len(),
        lines.len(),
        &different[..3]
    );
}

#[test]
fn it_answers_as_well_as_other_exports_of_the_model() {
    if !has_openvino() {
        return;
    }
    let right =
        SET.iter().filter(|(item, _)| SPARK.run(&item.request()).unwrap().result == item.answer).count();
    let of_export = SET.iter().filter(|(_, golden)| golden.int4.right).count();
    // Its vision tower has 4 bits where optimum-intel's has 8.
    assert!(right + 8 >= of_export, "{right} of {} right, optimum-intel's export {of_export}", SET.len());
}

#[test]
fn it_answers_as_its_models_in_a_folder() {
    if !has_openvino() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let package = package(&export_for_spark(dir.path()));
    assert_eq!(package.provenance.kind, PackageKind::SparkExport);
    assert_eq!(answers(&annotator(package)), answers(&SPARK));
}

/// The seven models with `assets/`, as Spark NLP's import takes them.
fn export_for_spark(dir: &Path) -> PathBuf {
    let copy = |from: &Path, to: &Path| {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let path = entry.unwrap().path();
            std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
        }
    };
    copy(&demo_spark_models_dir(), dir);
    let assets = dir.join("assets");
    std::fs::create_dir(&assets).unwrap();
    for file in ["config.json", "tokenizer.json", "generation_config.json", "chat_template.jinja"] {
        std::fs::copy(demo_model_dir().join(file), assets.join(file)).unwrap();
    }
    let text = std::fs::read(demo_model_dir().join("preprocessor_config.json")).unwrap();
    let mut preprocessor: Value = serde_json::from_slice(&text).unwrap();
    preprocessor["size"] = 224.into();
    std::fs::write(assets.join("preprocessor_config.json"), preprocessor.to_string()).unwrap();
    dir.to_owned()
}

#[test]
fn an_export_packed_as_spark_nlp_packs_answers_as_its_folder() {
    if !has_openvino() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let zip = dir.path().join("packed.zip");
    std::fs::write(&zip, packed()).unwrap();
    let package = ModelPackage::open(&zip, dir.path()).unwrap();
    assert_eq!(package.preprocess.pixel_limits.max_pixels, 200_704);
    let ours = answers(&annotator(package));
    let theirs = answers(&INT4);
    assert_eq!(ours, theirs);
}

/// The demo export's models in the package that Spark NLP wrote.
fn packed() -> Vec<u8> {
    let mut files = Vec::new();
    add_files(&demo_spark_dir(), "", &mut files);
    for (name, content) in &mut files {
        if let Some(model) = NEEDED.iter().find(|model| *name == format!("{model}.xml")) {
            let read = |end: &str| std::fs::read(demo_model_dir().join(format!("{model}.{end}"))).unwrap();
            let (xml, bin) = (read("xml"), read("bin"));
            let inner = [(format!("{model}.bin"), &bin), (format!("{model}.xml"), &xml)];
            *content = java_zip(inner.iter().map(|(n, c)| (n.as_str(), c.as_slice())));
        } else if name == "metadata/part-00000" {
            let mut metadata: Value = serde_json::from_slice(content).unwrap();
            metadata["paramMap"]["maxPixelValue"] = json!(200_704);
            *content = metadata.to_string().into_bytes();
        }
    }
    // Hadoop's checksums are of the files before.
    files.retain(|(name, _)| !name.ends_with(".crc"));
    java_zip(files.iter().map(|(name, content)| (name.as_str(), content.as_slice())))
}

fn add_files(folder: &Path, prefix: &str, files: &mut Vec<(String, Vec<u8>)>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = format!("{prefix}{}", path.file_name().unwrap().to_str().unwrap());
        if path.is_dir() {
            add_files(&path, &format!("{name}/"), files);
        } else {
            files.push((name, std::fs::read(&path).unwrap()));
        }
    }
}
