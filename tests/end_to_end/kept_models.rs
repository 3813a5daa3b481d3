//! Compiled models that are kept on disk: read back, they answer as they did; damaged, they are compiled again.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use qwen2vl_pipeline::{Annotator, Request};
use qwen2vl_runtime::EngineOptions;
use qwen2vl_testkit::demo_model_dir;

use crate::set::{self, SET, has_openvino};

/// The language model and the merger of the vision tower, and when each was written.
fn kept(root: &Path) -> Vec<(PathBuf, SystemTime)> {
    let files = fs::read_dir(root.join("compiled")).unwrap().map(|file| file.unwrap().path());
    let ours = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        name.starts_with("openvino_") && name.ends_with(".blob")
    };
    let mut kept: Vec<_> = files
        .filter(ours)
        .map(|path| (path.clone(), fs::metadata(path).unwrap().modified().unwrap()))
        .collect();
    kept.sort();
    kept
}

/// Token ids and text of a fifth of the set.
fn answers(root: &Path) -> Vec<(Vec<u32>, String)> {
    let annotator =
        Annotator::builder().package(set::package(&demo_model_dir())).cache_root(root).build().unwrap();
    let ask = |request: Request| {
        let answer = annotator.run(&request).unwrap();
        (answer.token_ids, answer.result)
    };
    SET.iter().step_by(5).map(|(item, _)| ask(item.request())).collect()
}

#[test]
fn models_read_back_answer_as_they_did_and_damaged_ones_are_compiled_again() {
    if !has_openvino() || !EngineOptions::default().has_kernels() {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let want = answers(root.path());
    let first = kept(root.path());
    assert_eq!(first.len(), 2, "{first:?}");
    assert_eq!(answers(root.path()), want);
    // What could not be read back would have been written again.
    assert_eq!(kept(root.path()), first);

    // A bit of one, the end of the other.
    let mut bytes = fs::read(&first[0].0).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    fs::write(&first[0].0, bytes).unwrap();
    fs::File::options().write(true).open(&first[1].0).unwrap().set_len(1000).unwrap();
    let damaged = kept(root.path());
    assert_eq!(answers(root.path()), want);
    let again = kept(root.path());
    for ((path, written), (_, damaged)) in again.iter().zip(&damaged) {
        assert!(written > damaged, "{} was not written again", path.display());
    }
    assert_eq!(answers(root.path()), want);
    assert_eq!(kept(root.path()), again);
}
