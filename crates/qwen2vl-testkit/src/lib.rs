//! What the workspace's tests share: where the goldens lie, comparing with the first difference shown, and the demo
//! model unpacked once for all tests.
//!
//! Unpublished. It knows no layer; tests of every layer may use it.

#![forbid(unsafe_code)]

use std::fmt::Debug;
use std::io::Read;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

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
    unpacked("demo-model", &[demo_model_zip()])
}

/// The same with the four models exported in fp32.
pub fn demo_model_fp32_dir() -> PathBuf {
    let fp32 = existing(repository_root().join("tests/models/demo-model-fp32-ov.zip"));
    unpacked("demo-model-fp32", &[demo_model_zip(), fp32])
}

/// A file or folder of the demo model's evaluation set.
pub fn evaluation(relative: &str) -> PathBuf {
    existing(repository_root().join("demo-model/eval").join(relative))
}

/// Zips unpacked over each other, once for all test processes.
fn unpacked(name: &str, zips: &[PathBuf]) -> PathBuf {
    let contents: Vec<Vec<u8>> =
        zips.iter().map(|zip| std::fs::read(zip).expect("the zip is readable")).collect();
    let hash = &sha256_hex(&contents.concat())[..16];
    let base =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| repository_root().join("target"), PathBuf::from);
    let dir = base.join("testkit").join(format!("{name}-{hash}"));
    if dir.is_dir() {
        return dir;
    }
    let partial =
        dir.with_extension(format!("partial-{}-{:?}", std::process::id(), std::thread::current().id()));
    std::fs::create_dir_all(&partial).expect("the target folder is writable");
    for bytes in contents {
        let mut archive = zip::ZipArchive::new(std::io::Cursor::new(bytes)).expect("it is a zip");
        for i in 0..archive.len() {
            let mut entry = archive.by_index(i).expect("entry is readable");
            let name = entry.enclosed_name().expect("entry name is safe");
            let mut content = Vec::new();
            entry.read_to_end(&mut content).expect("entry inflates");
            std::fs::write(partial.join(name), content).expect("the target folder is writable");
        }
    }
    // Another test process may have been faster: its copy is as good.
    if std::fs::rename(&partial, &dir).is_err() {
        std::fs::remove_dir_all(&partial).ok();
    }
    existing(dir)
}
