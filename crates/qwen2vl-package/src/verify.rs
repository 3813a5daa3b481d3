//! Whether every byte of a package is as it was written.

use std::fs::File;
use std::path::Path;

use serde::Serialize;

use crate::cache::FileList;
use crate::files::bytes::Bytes;
use crate::files::folder::Folder;
use crate::files::zip::Archive;
use crate::files::{CopyError, FileTree, copy_exact};
use crate::layout::{Layout, detect};
use crate::{Error, ModelPackage, TokenizerReport, export, spark};

/// One thing that was verified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at.
    pub check: String,
    /// Whether it is as it should be.
    pub ok: bool,
    /// What was found.
    pub detail: String,
}

impl Check {
    fn of(check: &str, result: Result<String, Error>) -> Self {
        let (ok, detail) = match result {
            Ok(detail) => (true, detail),
            Err(error) => (false, error.to_string()),
        };
        Self { check: check.to_owned(), ok, detail }
    }
}

impl ModelPackage {
    /// Reads every byte of what lies at `path`, and of its unpacked copy, and checks all that can be checked: the
    /// checksums of a zip, Hadoop's side files, those noted while unpacking, and that the package opens.
    pub fn verify(path: &Path, cache_root: &Path) -> Vec<Check> {
        let mut checks = Vec::new();
        match verify_source(path) {
            Ok(None) => {}
            Ok(Some((check, detail))) => checks.push(Check::of(check, Ok(detail))),
            Err(error) => checks.push(Check::of("source", Err(error))),
        }
        let package = match Self::open(path, cache_root) {
            Ok(package) => package,
            Err(error) => {
                checks.push(Check::of("package", Err(error)));
                return checks;
            }
        };
        checks.push(Check::of(
            "package",
            Ok(format!(
                "{}: four models with {} bytes of weights, shapes as configured",
                package.provenance.kind, package.weight_bytes
            )),
        ));
        if let Some(list) = FileList::read(&package.root) {
            checks.push(Check::of("unpacked files", verify_list(&package.root, &list)));
        }
        let tokenizer = TokenizerReport::read(&package.tokenizer_json)
            .map(|t| format!("{} tokens, {} added, {} merges", t.vocabulary, t.added_tokens, t.merges));
        checks.push(Check::of("tokenizer", tokenizer));
        checks
    }
}

/// Checks the bytes of what was given: what was done, and how it ended. `None` for an export folder, which carries no
/// checksums.
fn verify_source(path: &Path) -> Result<Option<(&'static str, String)>, Error> {
    let read = |source| Error::Read { path: path.to_owned(), source };
    if path.is_file() {
        let bytes = File::open(path).and_then(Bytes::of_file).map_err(read)?;
        let mut archive = Archive::open(path, bytes.window())?;
        let all = ReadAll::of(&mut archive)?;
        let detail = format!("{} files, {} bytes, checksums right{}", all.files, all.bytes, all.side_files());
        return Ok(Some(("zip", detail)));
    }
    if !path.is_dir() || export::is_at(path) {
        return Ok(None);
    }
    let mut folder = Folder::list(path)?;
    match detect(&mut folder)? {
        Layout::Export { .. } => Ok(None),
        Layout::Annotator(_) => {
            let all = ReadAll::of(&mut folder)?;
            Ok(Some(("saved annotator", format!("{} files{}", all.files, all.side_files()))))
        }
    }
}

/// What was read of a package, every file to its end.
struct ReadAll {
    files: usize,
    bytes: u64,
    /// Files that were compared with Hadoop's side files.
    with_sums: usize,
}

impl ReadAll {
    /// Reads everything once: at their ends a zip's checksums are compared, and side files on the way.
    fn of(tree: &mut dyn FileTree) -> Result<Self, Error> {
        let mut all = Self { files: tree.entries().len(), bytes: 0, with_sums: 0 };
        for index in 0..all.files {
            let size = tree.entries()[index].size;
            let is_side_file = tree.entries()[index].split().1.starts_with('.');
            let sums = if is_side_file { None } else { spark::checksums(tree, index)? };
            let read = match &sums {
                Some(sums) => copy_exact(&mut sums.verify(tree.read(index)?), size, &mut std::io::sink()),
                None => copy_exact(&mut tree.read(index)?, size, &mut std::io::sink()),
            };
            read.map_err(|error| match error {
                CopyError::Read(e) => spark::read_error(tree, index, e),
                other => other.of(tree, index, tree.path()),
            })?;
            all.bytes += size;
            all.with_sums += usize::from(sums.is_some());
        }
        Ok(all)
    }

    fn side_files(&self) -> String {
        match self.with_sums {
            0 => String::new(),
            n => format!(", {n} of them as their .crc files say"),
        }
    }
}

/// Checks unpacked files against what was noted of them.
fn verify_list(root: &Path, list: &FileList) -> Result<String, Error> {
    let mut total = 0;
    for (name, listed) in &list.files {
        let path = root.join(name);
        let wrong = |reason: String| Error::Unpacked { path: path.clone(), reason, root: root.to_owned() };
        let file = File::open(&path).map_err(|source| Error::Read { path: path.clone(), source })?;
        match copy_exact(&mut &file, listed.size, &mut std::io::sink()) {
            Ok(crc32) if crc32 == listed.crc32 => total += listed.size,
            Ok(_) => return Err(wrong("its checksum differs".to_owned())),
            Err(CopyError::Size(problem)) => return Err(wrong(format!("it {problem}"))),
            Err(CopyError::Read(source) | CopyError::Write(source)) => {
                return Err(Error::Read { path: path.clone(), source });
            }
        }
    }
    Ok(format!("{} files, {total} bytes, as they were unpacked", list.files.len()))
}
