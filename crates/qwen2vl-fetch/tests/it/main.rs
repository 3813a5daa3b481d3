//! Fetching, against servers that misbehave. Everything is on this machine; nothing sleeps for longer than a time-out
//! under test.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod cache;
mod catalogue;
mod child;
mod download;
mod hub;
mod server;
mod tls;
mod trouble;

use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use qwen2vl_fetch::{Error, FetchOptions, Fetched, Fetcher, Progress, Reference, RetryPolicy, TimeOuts};
use zip::write::SimpleFileOptions;

/// A published name, and what it is a name of.
const NAME: &str = "qwen2_vl_2b_instruct_int4";
const FULL: &str = "qwen2_vl_2b_instruct_int4_en_5.5.1_3.0_1739495409030";
const ZIP_PATH: &str = "/qwen2_vl_2b_instruct_int4_en_5.5.1_3.0_1739495409030.zip";

/// Folders of one test.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn models(&self) -> PathBuf {
        self.dir.path().join("models")
    }

    fn model(&self) -> PathBuf {
        self.models().join(FULL)
    }

    fn options(&self, base_url: &str) -> FetchOptions {
        let mut options = FetchOptions::from_env().unwrap();
        options.models_dir = self.models();
        options.state_dir = self.dir.path().join("state");
        options.hub_cache = self.dir.path().join("hub");
        options.hub_token = None;
        options.base_url = base_url.to_owned();
        options.hub_endpoint = base_url.to_owned();
        options.offline = false;
        let [first_wait, longest_wait] = [1, 20].map(Duration::from_millis);
        options.retry = RetryPolicy { attempts: 4, first_wait, longest_wait };
        options.time_outs = TimeOuts {
            connect: Duration::from_secs(5),
            response: Duration::from_secs(20),
            read: Duration::from_secs(20),
        };
        options
    }

    /// Names in the models folder, those of locks left out.
    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.models())
            .into_iter()
            .flatten()
            .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
            .filter(|n| !n.ends_with(".lock"))
            .collect();
        names.sort();
        names
    }
}

fn fetch(options: FetchOptions, reference: &str) -> Result<Fetched, Error> {
    fetch_told(options, reference).0
}

/// The result, and the notes on the way.
fn fetch_told(options: FetchOptions, reference: &str) -> (Result<Fetched, Error>, Vec<String>) {
    let mut notes = Vec::new();
    let result = Fetcher::new(options).and_then(|fetcher| {
        fetcher.fetch(&Reference::parse(reference)?, &mut |progress| match progress {
            Progress::Note(text) => notes.push(text),
            Progress::Retrying { reason, .. } => notes.push(format!("again: {reason}")),
            _ => {}
        })
    });
    (result, notes)
}

/// What makes a saved annotator, and a megabyte that does not compress.
fn annotator(seed: u32) -> Vec<(&'static str, Vec<u8>)> {
    let mut state = seed.max(1);
    let noise = (0..1 << 20).map(|_| {
        // Xorshift.
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[1]
    });
    let metadata = "{\"class\":\"com.johnsnowlabs.nlp.annotators.cv.Qwen2VLTransformer\"}\n";
    vec![
        ("metadata/part-00000", metadata.as_bytes().to_vec()),
        ("fields/vocabulary/part-00000", b"SEQ vocabulary".to_vec()),
        ("fields/merges/part-00000", b"SEQ merges".to_vec()),
        ("openvino_patch_reshape_model.xml", b"model".to_vec()),
        ("openvino_language_model.xml", noise.collect()),
        ("openvino_vision_embeddings_model.xml", b"model".to_vec()),
        ("openvino_vision_embeddings_merger_model.xml", b"model".to_vec()),
        ("openvino_text_embeddings_model.xml", b"model".to_vec()),
        ("openvino_multimodal_merge_model.xml", b"model".to_vec()),
        ("openvino_rotary_embeddings_model.xml", b"model".to_vec()),
    ]
}

fn zipped(files: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let stored = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (name, bytes) in files {
        zip.start_file(*name, stored).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn model_zip(seed: u32) -> Vec<u8> {
    zipped(&annotator(seed))
}

/// Every file of the folder is the annotator's, to the byte, and there are no others.
fn assert_is_annotator(folder: &Path, seed: u32) {
    let want = annotator(seed);
    for (name, bytes) in &want {
        assert!(std::fs::read(folder.join(name)).unwrap() == *bytes, "{name} differs");
    }
    let n_files = walk(folder);
    assert_eq!(n_files, want.len());
}

fn walk(folder: &Path) -> usize {
    let entries = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
    entries.map(|path| if path.is_dir() { walk(&path) } else { 1 }).sum()
}
