//! What the workspace's tests share: where the goldens lie, comparing with the first difference shown, and the demo
//! model unpacked once for all tests.
//!
//! Unpublished. It knows no layer; tests of every layer may use it.

#![forbid(unsafe_code)]

mod java_zip;
mod multilingual;
mod spark_writer;
pub mod video;

use std::fmt::Debug;
use std::io::{BufReader, Cursor, Read, Seek};
use std::path::{Path, PathBuf};
use std::slice;

use ruzstd::decoding::StreamingDecoder;
use sha2::{Digest, Sha256};

pub use java_zip::java_zip;
pub use multilingual::{MultilingualLine, multilingual_lines};
pub use spark_writer::{JavaValue, object_file};

/// The root of the repository.
pub fn repository_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .expect("crates/NAME lies two levels down")
        .to_owned()
}

/// A file or folder below `tests/golden`.
pub fn golden(relative: &str) -> PathBuf {
    existing(repository_root().join("tests/golden").join(relative))
}

/// A file or folder below `tests/images`.
pub fn image(relative: &str) -> PathBuf {
    existing(repository_root().join("tests/images").join(relative))
}

fn existing(path: PathBuf) -> PathBuf {
    assert!(path.exists(), "{} is missing: test data must be complete", path.display());
    path
}

/// Reads a whole JSON file.
///
/// # Panics
///
/// If the file is missing or does not fit `T`; the path is in the message.
pub fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> T {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Reads a JSON-lines file.
///
/// # Panics
///
/// If the file is missing or a line does not fit `T`; path and line are in the message.
pub fn read_jsonl<T: serde::de::DeserializeOwned>(path: &Path) -> Vec<T> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.lines()
        .enumerate()
        .map(|(i, line)| {
            serde_json::from_str(line).unwrap_or_else(|e| panic!("{}:{}: {e}", path.display(), i + 1))
        })
        .collect()
}

/// Lower-case hexadecimal SHA-256.
pub fn sha256_hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// SHA-256 of f32 values as little-endian bytes: how large arrays are kept as goldens.
pub fn sha256_f32(values: &[f32]) -> String {
    let mut hasher = Sha256::new();
    for chunk in values.chunks(16 * 1024) {
        let bytes: Vec<u8> = chunk.iter().flat_map(|v| v.to_le_bytes()).collect();
        hasher.update(&bytes);
    }
    hasher.finalize().iter().map(|b| format!("{b:02x}")).collect()
}

/// Describes the first difference of two sequences, element before length; `None` when they are equal.
///
/// Floats compare by `PartialEq`: pass their bits to compare to the bit.
pub fn first_difference<T: PartialEq + Debug>(got: &[T], want: &[T]) -> Option<String> {
    if let Some(i) = got.iter().zip(want).position(|(g, w)| g != w) {
        return Some(format!("element {i}: got {:?}, want {:?}", got[i], want[i]));
    }
    (got.len() != want.len()).then(|| format!("length: got {}, want {}", got.len(), want.len()))
}

/// Runs every case and reports all failures together.
///
/// # Panics
///
/// If any case failed, or if there was none.
pub fn check_all<C>(cases: &[C], name: impl Fn(&C) -> String, check: impl Fn(&C) -> Result<(), String>) {
    assert!(!cases.is_empty(), "no cases");
    let failures: Vec<String> =
        cases.iter().filter_map(|c| check(c).err().map(|e| format!("{}: {e}", name(c)))).collect();
    assert!(
        failures.is_empty(),
        "{} of {} cases failed:\n{}",
        failures.len(),
        cases.len(),
        failures.join("\n")
    );
}

/// Environment variable that turns a skipped test into a failed one.
pub const ENV_REQUIRE: &str = "QWEN2VL_REQUIRE_OPENVINO";

/// Says that a test is skipped and why.
///
/// # Panics
///
/// Where [`ENV_REQUIRE`] is set: there the tests must run in full.
pub fn skip(reason: &dyn std::fmt::Display) {
    assert!(std::env::var_os(ENV_REQUIRE).is_none(), "{reason}");
    println!("skipped: {reason}");
}

/// The demo model's zip.
pub fn demo_model_zip() -> PathBuf {
    existing(repository_root().join("demo-model/demo-model-int4-ov.zip"))
}

/// Folder of the unpacked demo model (INT4) below cargo's target folder.
pub fn demo_model_dir() -> PathBuf {
    let zip = demo_model_zip();
    made("demo-model", slice::from_ref(&zip), |partial| unzip(open(&zip), partial))
}

/// The same with the four models exported in fp32.
pub fn demo_model_fp32_dir() -> PathBuf {
    let (zip, fp32) = (demo_model_zip(), model("demo-model-fp32-ov"));
    made("demo-model-fp32", &[zip.clone(), fp32.clone()], |partial| {
        unzip(open(&zip), partial);
        unzip(Cursor::new(unzstd(&fp32)), partial);
    })
}

/// IR pairs of single models of the demo model in other precisions, as `tools/reference/precisions.py` wrote them.
pub fn precisions_dir() -> PathBuf {
    let source = model("precisions");
    made("precisions", slice::from_ref(&source), |partial| unzip(Cursor::new(unzstd(&source)), partial))
}

/// The demo model as a package that Spark NLP wrote, byte for byte, below cargo's target folder.
pub fn demo_spark_zip() -> PathBuf {
    let source = model("demo-spark-nlp");
    made("demo-spark-nlp.zip", slice::from_ref(&source), |partial| {
        std::fs::write(partial, unzstd(&source)).expect("the target folder is writable");
    })
}

/// The annotator's folder in that package: `metadata/`, `fields/` and seven zips named `.xml`.
pub fn demo_spark_dir() -> PathBuf {
    made("demo-spark-nlp", &[model("demo-spark-nlp")], |partial| unzip(open(&demo_spark_zip()), partial))
}

/// The seven IR pairs out of the zips in that folder.
pub fn demo_spark_models_dir() -> PathBuf {
    made("demo-spark-models", &[model("demo-spark-nlp")], |partial| {
        for entry in std::fs::read_dir(demo_spark_dir()).expect("the folder is readable") {
            let path = entry.expect("the entry is readable").path();
            if path.extension().is_some_and(|e| e == "xml") {
                unzip(open(&path), partial);
            }
        }
    })
}

/// A model for tests: a zip of little compression, and zstd over all of it.
fn model(name: &str) -> PathBuf {
    existing(repository_root().join("tests/models").join(format!("{name}.zip.zst")))
}

/// A file or folder of the demo model's evaluation set.
pub fn evaluation(relative: &str) -> PathBuf {
    existing(repository_root().join("demo-model/eval").join(relative))
}

/// A file or folder below cargo's target folder that `make` makes from the sources, once for all test processes.
fn made(name: &str, sources: &[PathBuf], make: impl FnOnce(&Path)) -> PathBuf {
    let mut hasher = Sha256::new();
    for source in sources {
        hasher.update(std::fs::read(source).expect("the source is readable"));
    }
    let hash: String = hasher.finalize().iter().take(8).map(|b| format!("{b:02x}")).collect();
    let base =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| repository_root().join("target"), PathBuf::from);
    let base = base.join("testkit");
    let (stem, end) = name.rsplit_once('.').map_or((name, String::new()), |(s, e)| (s, format!(".{e}")));
    let target = base.join(format!("{stem}-{hash}{end}"));
    if target.exists() {
        return target;
    }
    std::fs::create_dir_all(&base).expect("the target folder is writable");
    let partial =
        target.with_extension(format!("partial-{}-{:?}", std::process::id(), std::thread::current().id()));
    make(&partial);
    // Another test process may have been faster: its copy is as good.
    if std::fs::rename(&partial, &target).is_err() {
        std::fs::remove_dir_all(&partial).or_else(|_| std::fs::remove_file(&partial)).ok();
    }
    existing(target)
}

fn open(path: &Path) -> BufReader<std::fs::File> {
    BufReader::new(std::fs::File::open(path).expect("the file is readable"))
}

fn unzstd(path: &Path) -> Vec<u8> {
    let mut content = Vec::new();
    let mut decoder = StreamingDecoder::new(open(path)).expect("it is a zstd file");
    decoder.read_to_end(&mut content).expect("it is a whole zstd file");
    content
}

fn unzip(zip: impl Read + Seek, target: &Path) {
    let mut archive = zip::ZipArchive::new(zip).expect("it is a zip");
    std::fs::create_dir_all(target).expect("the target folder is writable");
    for i in 0..archive.len() {
        let mut entry = archive.by_index(i).expect("entry is readable");
        let path = target.join(entry.enclosed_name().expect("entry name is safe"));
        std::fs::create_dir_all(path.parent().expect("it lies in the target")).expect("it is writable");
        let mut content = Vec::new();
        entry.read_to_end(&mut content).expect("entry inflates");
        std::fs::write(path, content).expect("the target folder is writable");
    }
}
