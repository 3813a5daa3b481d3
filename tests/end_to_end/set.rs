//! The evaluation set, its goldens, and the two exports of the demo model.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use qwen2vl_package::{ModelPackage, cache_root};
use qwen2vl_pipeline::{Annotator, Precision, Request, VideoInput, library};
use qwen2vl_testkit::{evaluation, golden, read_jsonl};
use serde::Deserialize;

/// A question of the evaluation set.
#[derive(Deserialize)]
pub struct Item {
    pub id: u32,
    pub task: String,
    #[serde(default)]
    pub images: Vec<String>,
    #[serde(default)]
    pub video: Vec<String>,
    pub question: String,
    pub answer: String,
}

/// What the references answer to it.
#[derive(Deserialize)]
pub struct Golden {
    pub id: u32,
    pub prompt_tokens: usize,
    /// transformers, fp32.
    pub hf: Answer,
    /// optimum-intel on the INT4 export, f32 arithmetic.
    pub int4: Answer,
}

#[derive(Deserialize)]
pub struct Answer {
    pub ids: Vec<u32>,
    pub right: bool,
    /// Smallest distance of first and second logit over all steps.
    pub gap: f32,
    /// The first step's likeliest tokens with their logits.
    pub first: Vec<(u32, f32)>,
}

pub static SET: LazyLock<Vec<(Item, Golden)>> = LazyLock::new(|| {
    let items: Vec<Item> = read_jsonl(&evaluation("eval.jsonl"));
    let goldens: Vec<Golden> = read_jsonl(&golden("end_to_end/answers.jsonl"));
    assert_eq!(items.len(), goldens.len());
    assert!(items.len() >= 100);
    items.into_iter().zip(goldens).inspect(|(item, golden)| assert_eq!(item.id, golden.id)).collect()
});

impl Item {
    pub fn image_paths(&self) -> impl Iterator<Item = PathBuf> {
        self.images.iter().map(|name| evaluation(name))
    }

    pub fn request(&self) -> Request {
        let mut request = Request::question(&self.question);
        for path in self.image_paths() {
            request = request.image(path);
        }
        if !self.video.is_empty() {
            request = request.video(self.video.iter().map(|name| evaluation(name)).collect::<VideoInput>());
        }
        request
    }
}

/// Whether OpenVINO is there; where the tests must run in full, its absence fails them.
pub fn has_openvino() -> bool {
    let found = library::locate(None);
    if let Err(error) = &found {
        qwen2vl_testkit::skip(error);
    }
    found.is_ok()
}

/// A package, unpacked into the per-user cache if need be.
pub fn package(path: &Path) -> ModelPackage {
    ModelPackage::open(path, &cache_root().unwrap()).unwrap()
}

/// A package in f32 arithmetic.
pub fn annotator(package: ModelPackage) -> Annotator {
    Annotator::builder().package(package).precision(Precision::F32).build().unwrap()
}

/// The INT4 export in f32 arithmetic.
pub static INT4: LazyLock<Annotator> =
    LazyLock::new(|| annotator(package(&qwen2vl_testkit::demo_model_dir())));

/// The same with nothing shared between requests, so that what a conversation computes does not depend on other tests.
pub static ALONE: LazyLock<Annotator> = LazyLock::new(|| {
    let package = package(&qwen2vl_testkit::demo_model_dir());
    Annotator::builder().package(package).precision(Precision::F32).prefix_cache_bytes(0).build().unwrap()
});

/// The fp32 export.
pub static FP32: LazyLock<Annotator> =
    LazyLock::new(|| annotator(package(&qwen2vl_testkit::demo_model_fp32_dir())));
