//! What entries on disk depend on beside the image: the model's weights, and what computes with them.

use std::fs::{File, Metadata};
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use qwen2vl_runtime::ModelFiles;
use serde::{Deserialize, Serialize};

/// A file whose last change is younger may change again without its time changing.
const SETTLING: Duration = Duration::from_secs(2);

/// What a file of weights was when it was hashed.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    path: String,
    size: u64,
    /// Nanoseconds since 1970.
    modified: u64,
    blake3: String,
}

/// The hash of the contents of a model's vision files. That of a file is noted in `notes`, so that it is read again only
/// when its size or time has changed.
pub(super) fn model_fingerprint(files: &ModelFiles, notes: &Path) -> io::Result<blake3::Hash> {
    let mut hasher = blake3::Hasher::new();
    for xml in [&files.vision_embeddings, &files.vision_embeddings_merger] {
        for path in [xml.clone(), xml.with_extension("bin")] {
            hasher.update(file_hash(&path, notes)?.as_bytes());
        }
    }
    Ok(hasher.finalize())
}

fn file_hash(path: &Path, notes: &Path) -> io::Result<blake3::Hash> {
    let canonical = std::fs::canonicalize(path)?;
    let file = File::open(&canonical)?;
    let metadata = file.metadata()?;
    let name = canonical.to_string_lossy().into_owned();
    let note_path = notes.join(&blake3::hash(name.as_bytes()).to_hex()[..16]).with_extension("json");
    let mut note =
        Note { path: name, size: metadata.len(), modified: modified(&metadata), blake3: String::new() };
    if let Some(hash) = noted(&note_path, &note) {
        return Ok(hash);
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(&file)?;
    let hash = hasher.finalize();
    let age = u128::from(nanoseconds(SystemTime::now()).saturating_sub(note.modified));
    if age > SETTLING.as_nanos() && modified(&file.metadata()?) == note.modified {
        note.blake3 = hash.to_hex().to_string();
        if let Err(error) = write(&note_path, &note) {
            tracing::debug!("the hash of {} is not noted: {error}", path.display());
        }
    }
    Ok(hash)
}

fn noted(note_path: &Path, now: &Note) -> Option<blake3::Hash> {
    let note: Note = serde_json::from_slice(&std::fs::read(note_path).ok()?).ok()?;
    let is_same = (&note.path, note.size, note.modified) == (&now.path, now.size, now.modified);
    is_same.then(|| blake3::Hash::from_hex(&note.blake3).ok())?
}

fn write(path: &Path, note: &Note) -> io::Result<()> {
    let folder = path.parent().unwrap_or(path);
    std::fs::create_dir_all(folder)?;
    let partial = tempfile::NamedTempFile::new_in(folder)?;
    std::fs::write(&partial, serde_json::to_vec(note)?)?;
    partial.persist(path)?;
    Ok(())
}

fn modified(metadata: &Metadata) -> u64 {
    metadata.modified().map_or(0, nanoseconds)
}

fn nanoseconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX))
}

/// What decides which kernels compute on this machine: in fast precision their results differ.
pub(super) fn cpu() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = |name: &str| info.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
    // The model alone does not tell what a virtual machine hides.
    let (model, flags) = (line("model name"), line("flags"));
    let kernels = ["avx", "amx", "fma"];
    let flags: Vec<&str> =
        flags.split_whitespace().filter(|flag| kernels.iter().any(|k| flag.starts_with(k))).collect();
    format!("{} {model} {}", std::env::consts::ARCH, flags.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_of_the_content_and_is_noted_once_the_file_has_settled() {
        let dir = tempfile::tempdir().unwrap();
        let (notes, xml) = (dir.path().join("notes"), dir.path().join("a.xml"));
        let files = |xml: &Path| ModelFiles {
            vision_embeddings: xml.to_owned(),
            vision_embeddings_merger: xml.to_owned(),
            text_embeddings: xml.to_owned(),
            language_model: xml.to_owned(),
        };
        let set = |name: &str, text: &str, age: u64| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            let time = SystemTime::now() - Duration::from_secs(age);
            File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
        };
        assert!(model_fingerprint(&files(&xml), &notes).is_err(), "nothing there");
        set("a.xml", "graph", 0);
        set("a.bin", "weights", 0);
        let first = model_fingerprint(&files(&xml), &notes).unwrap();
        assert!(!notes.exists(), "the files may still change");
        // The same content elsewhere is the same model.
        set("b.xml", "graph", 100);
        set("b.bin", "weights", 100);
        let other = dir.path().join("b.xml");
        assert_eq!(model_fingerprint(&files(&other), &notes).unwrap(), first);
        assert_eq!(std::fs::read_dir(&notes).unwrap().count(), 2);
        // From the notes now: a change that keeps size and time is not seen, and any other is.
        let time = std::fs::metadata(dir.path().join("b.bin")).unwrap().modified().unwrap();
        std::fs::write(dir.path().join("b.bin"), "WEIGHTS").unwrap();
        let file = File::options().write(true).open(dir.path().join("b.bin")).unwrap();
        file.set_modified(time).unwrap();
        assert_eq!(model_fingerprint(&files(&other), &notes).unwrap(), first);
        file.set_modified(time + Duration::from_secs(1)).unwrap();
        assert_ne!(model_fingerprint(&files(&other), &notes).unwrap(), first);
        // Damaged notes count as none.
        for note in std::fs::read_dir(&notes).unwrap() {
            std::fs::write(note.unwrap().path(), "{").unwrap();
        }
        set("b.bin", "weights", 50);
        assert_eq!(model_fingerprint(&files(&other), &notes).unwrap(), first);
    }
}
