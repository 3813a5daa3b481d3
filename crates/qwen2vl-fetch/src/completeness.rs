//! Whether a folder holds a whole model, told without reading it: Spark NLP unpacks into the final folder without a
//! mark at the end, so what an interrupted unpacking left looks like a model.
//!
//! What a saved annotator or an export must have is there; each `.crc` side file agrees with its file's length; each
//! zip inside ends as a zip does. Contents are checked when the model is opened.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// What Spark NLP's class needs beside its metadata.
const QWEN2_VL_MODELS: &[&str] = &[
    "openvino_patch_reshape_model.xml",
    "openvino_language_model.xml",
    "openvino_vision_embeddings_model.xml",
    "openvino_vision_embeddings_merger_model.xml",
    "openvino_text_embeddings_model.xml",
    "openvino_multimodal_merge_model.xml",
    "openvino_rotary_embeddings_model.xml",
];
const QWEN2_VL_FEATURES: &[&str] = &["vocabulary", "merges"];
const QWEN2_VL_CLASS: &str = "Qwen2VLTransformer";
/// The four of an export.
const EXPORT_MODELS: &[&str] = &[
    "openvino_language_model",
    "openvino_text_embeddings_model",
    "openvino_vision_embeddings_model",
    "openvino_vision_embeddings_merger_model",
];
/// The end of a zip's directory, and the farthest that it may stand from the file's end.
const ZIP_START: &[u8; 4] = b"PK\x03\x04";
const ZIP_END: &[u8; 4] = b"PK\x05\x06";
const ZIP_END_BYTES: u64 = 22 + 65_535;
/// One line of JSON.
const METADATA_BYTES: u64 = 4 << 20;

/// What a folder's model lacks or has damaged; empty for a whole one.
pub(crate) fn missing(folder: &Path) -> Vec<String> {
    let mut missing =
        if is_export(folder) { missing_in_export(folder) } else { missing_in_annotator(folder) };
    for path in files(folder) {
        let name = || path.strip_prefix(folder).unwrap_or(&path).display().to_string();
        if disagrees_with_checksums(&path) {
            missing.push(format!("{} (its length is not that of its .crc file)", name()));
        } else if is_cut_zip(&path).unwrap_or(true) {
            missing.push(format!("{} (cut short)", name()));
        }
    }
    missing
}

/// Whether it is an OpenVINO export and no saved annotator.
fn is_export(folder: &Path) -> bool {
    let ir = ["openvino_language_model.xml", "openvino_language_model.bin"];
    let saved = folder.join("metadata").exists() || folder.join("fields").exists();
    !saved && (folder.join("config.json").is_file() || ir.iter().all(|name| folder.join(name).is_file()))
}

fn missing_in_export(folder: &Path) -> Vec<String> {
    let all = EXPORT_MODELS.iter().flat_map(|m| [format!("{m}.xml"), format!("{m}.bin")]);
    all.filter(|name| !has_bytes(&folder.join(name))).collect()
}

fn missing_in_annotator(folder: &Path) -> Vec<String> {
    let Some(metadata) = metadata(folder) else { return vec!["metadata/part-00000".to_owned()] };
    if !metadata.contains(QWEN2_VL_CLASS) {
        return Vec::new();
    }
    let models = QWEN2_VL_MODELS.iter().map(|m| (*m).to_owned()).filter(|m| !has_bytes(&folder.join(m)));
    let features = QWEN2_VL_FEATURES.iter().map(|f| format!("fields/{f}"));
    models.chain(features.filter(|f| parts(&folder.join(f)).is_empty())).collect()
}

/// The metadata of a saved Spark stage.
fn metadata(folder: &Path) -> Option<String> {
    let part = parts(&folder.join("metadata")).into_iter().next()?;
    let mut text = String::new();
    File::open(part).ok()?.take(METADATA_BYTES).read_to_string(&mut text).ok()?;
    // An interrupted write leaves a line without its end.
    text.trim_end().ends_with('}').then_some(text)
}

/// Whether a folder holds a Qwen2-VL, whole or not.
pub(crate) fn is_qwen2_vl(folder: &Path) -> bool {
    if let Some(metadata) = metadata(folder) {
        return metadata.contains(QWEN2_VL_CLASS);
    }
    let language_model = folder.join("openvino_language_model.xml");
    language_model.exists() && folder.join("openvino_vision_embeddings_merger_model.xml").exists()
}

/// The `part-*` files of a folder that hold something.
fn parts(folder: &Path) -> Vec<PathBuf> {
    let mut parts: Vec<PathBuf> =
        std::fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path()).collect();
    parts.retain(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("part-")) && has_bytes(p));
    parts.sort();
    parts
}

fn has_bytes(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|m| m.is_file() && m.len() > 0)
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = walkdir::WalkDir::new(folder).sort_by_file_name().into_iter().flatten();
    entries.filter(|e| e.path().is_file()).map(walkdir::DirEntry::into_path).collect()
}

/// A side file has a word of marks, the bytes per sum, and four bytes for each run of so many bytes.
fn disagrees_with_checksums(path: &Path) -> bool {
    let Some(name) = path.file_name().map(|n| n.to_string_lossy().into_owned()) else { return false };
    let side = path.with_file_name(format!(".{name}.crc"));
    let read = || -> io::Result<Option<bool>> {
        let mut file = File::open(&side)?;
        let mut start = [0; 8];
        file.read_exact(&mut start)?;
        let per_sum = u64::from(u32::from_be_bytes([start[4], start[5], start[6], start[7]]));
        if start[..4] != *b"crc\0" || per_sum == 0 {
            return Ok(None);
        }
        let n_sums = (file.metadata()?.len() - 8) / 4;
        Ok(Some(std::fs::metadata(path)?.len().div_ceil(per_sum) != n_sums))
    };
    // A side file that cannot be read proves nothing about its file.
    read().ok().flatten().unwrap_or(false)
}

/// Whether a file begins as a zip and does not end as one.
fn is_cut_zip(path: &Path) -> io::Result<bool> {
    let mut file = File::open(path)?;
    let mut start = [0; 4];
    if file.read_exact(&mut start).is_err() || start != *ZIP_START {
        return Ok(false);
    }
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(ZIP_END_BYTES)))?;
    let mut end = Vec::new();
    file.take(ZIP_END_BYTES).read_to_end(&mut end)?;
    Ok(!end.windows(ZIP_END.len()).any(|w| w == ZIP_END))
}

#[cfg(test)]
mod tests {
    use super::*;

    const METADATA: &str = "{\"class\":\"com.johnsnowlabs.nlp.annotators.cv.Qwen2VLTransformer\"}";
    const ZIP: &[u8] = b"PK\x03\x04....PK\x05\x06..................";

    fn annotator() -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a folder");
        let write = |name: &str, bytes: &[u8]| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            std::fs::write(path, bytes).expect("written");
        };
        write("metadata/part-00000", METADATA.as_bytes());
        write("metadata/_SUCCESS", b"");
        for model in QWEN2_VL_MODELS {
            write(model, ZIP);
        }
        for feature in QWEN2_VL_FEATURES {
            write(&format!("fields/{feature}/part-00000"), b"SEQ");
        }
        // 513 bytes have two sums.
        write("fields/vocabulary/part-00001", &[0; 513]);
        write("fields/vocabulary/.part-00001.crc", b"crc\0\0\0\x02\0AAAABBBB");
        dir
    }

    #[test]
    fn what_an_interrupted_unpacking_leaves_is_told_from_a_whole_model() {
        assert_eq!(missing(annotator().path()), Vec::<String>::new());
        let cases: [(&str, Option<&[u8]>); 6] = [
            ("metadata/part-00000", None),
            ("metadata/part-00000", Some(b"{\"class\":\"com.johnsnow")),
            ("openvino_language_model.xml", None),
            ("openvino_language_model.xml", Some(b"PK\x03\x04....")),
            ("fields/merges/part-00000", None),
            ("fields/vocabulary/part-00001", Some(&[0; 512])),
        ];
        for (name, left) in cases {
            let dir = annotator();
            let path = dir.path().join(name);
            match left {
                None => std::fs::remove_file(path).expect("removed"),
                Some(bytes) => std::fs::write(path, bytes).expect("written"),
            }
            let missing = missing(dir.path());
            let stem = name.strip_suffix("/part-00000").unwrap_or(name);
            assert!(missing.len() == 1 && missing[0].starts_with(stem), "{name}: {missing:?}");
            assert!(is_qwen2_vl(dir.path()), "{name}");
        }
        let empty = tempfile::tempdir().expect("a folder");
        assert_eq!(missing(empty.path()), ["metadata/part-00000"]);
    }

    #[test]
    fn other_annotators_and_exports_have_their_own_needs() {
        let dir = annotator();
        std::fs::write(dir.path().join("metadata/part-00000"), "{\"class\":\"Other\"}").expect("written");
        std::fs::remove_file(dir.path().join(QWEN2_VL_MODELS[0])).expect("removed");
        assert_eq!(missing(dir.path()), Vec::<String>::new());

        let export = tempfile::tempdir().expect("a folder");
        std::fs::write(export.path().join("config.json"), "{}").expect("written");
        assert_eq!(missing(export.path()).len(), 8);
    }
}
