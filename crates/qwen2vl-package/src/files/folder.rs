//! A folder as a [`FileTree`].

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::{Entry, FileTree};
use crate::Error;

/// A pipeline in a pipeline in a folder has its features' parts this deep.
const MAX_DEPTH: usize = 9;
/// A saved annotator has a few files for each core of its writer. Whoever names a home folder by mistake is told soon.
const MAX_FILES: usize = 20_000;

/// The files of a folder, with those of its subfolders. Links count as what they lead to, as in the snapshots of
/// Hugging Face's cache.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    entries: Vec<Entry>,
    /// Nanoseconds since 1970, for each entry.
    modified: Vec<u64>,
}

impl Folder {
    /// Lists a folder.
    pub fn list(path: &Path) -> Result<Self, Error> {
        let mut folder = Self { path: path.to_owned(), entries: Vec::new(), modified: Vec::new() };
        folder.add(path, "", 0)?;
        Ok(folder)
    }

    fn add(&mut self, path: &Path, prefix: &str, depth: usize) -> Result<(), Error> {
        let failed = |source| Error::Read { path: path.to_owned(), source };
        for entry in std::fs::read_dir(path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            // A link that leads nowhere is no file.
            let Ok(metadata) = std::fs::metadata(entry.path()) else { continue };
            if metadata.is_dir() && depth < MAX_DEPTH {
                self.add(&entry.path(), &format!("{name}/"), depth + 1)?;
            } else if metadata.is_file() {
                if self.entries.len() >= MAX_FILES {
                    return Err(Error::TooManyFiles { path: self.path.clone(), limit: MAX_FILES });
                }
                self.entries.push(Entry { name, size: metadata.len() });
                self.modified.push(metadata.modified().map_or(0, nanoseconds));
            }
        }
        Ok(())
    }

    /// When a file was last changed, in nanoseconds since 1970.
    pub fn modified(&self, index: usize) -> u64 {
        self.modified[index]
    }
}

impl FileTree for Folder {
    fn path(&self) -> &Path {
        &self.path
    }

    fn entries(&self) -> &[Entry] {
        &self.entries
    }

    fn read(&mut self, index: usize) -> Result<Box<dyn Read + '_>, Error> {
        let path = self.location(index);
        File::open(path).map(|f| Box::new(f) as _).map_err(|e| self.read_error(index, e))
    }

    fn read_error(&self, index: usize, source: std::io::Error) -> Error {
        Error::Read { path: self.location(index), source }
    }

    fn stored_bytes(&self) -> u64 {
        self.entries.iter().fold(0, |sum, e| sum.saturating_add(e.size))
    }
}

/// Since 1970; 64 bits last until 2554.
pub(crate) fn nanoseconds(time: SystemTime) -> u64 {
    u64::try_from(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos()).unwrap_or(u64::MAX)
}
