//! Zips: everything is checked on the central directory before a byte is written, and every byte again on the way.
//!
//! The zip may come from anywhere. Refused are names that lead out of the folder, links, names that meet on a file
//! system without upper and lower case, encrypted entries, entries over one another's bytes, and sizes that no model
//! has.

use std::collections::HashSet;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use zip::ZipArchive;
use zip::result::ZipError;

use super::{Entry, FileTree};
use crate::Error;

/// What a zip may hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// An export has about 25 files, a saved annotator some more for each core of its writer.
    max_entries: usize,
    /// Twice the 72B at 4 bits.
    max_total_bytes: u64,
    /// Unpacked bytes per byte of the zip; weights hardly compress, the demo model's unused rows reach 15 in all.
    max_ratio: u64,
}

impl Limits {
    /// The most bytes that may come out of `packed_bytes`.
    pub fn allowed_bytes(&self, packed_bytes: u64) -> u64 {
        packed_bytes.saturating_mul(self.max_ratio).saturating_add(RATIO_FREE_BYTES).min(self.max_total_bytes)
    }
}

pub(crate) const LIMITS: Limits = Limits { max_entries: 10_000, max_total_bytes: 96 << 30, max_ratio: 100 };

/// No deflate stream gives more bytes per byte: what claims more lies.
const MAX_DEFLATE_RATIO: u64 = 1032;

/// Small zips may exceed the ratio by this much: JSON full of blanks is no bomb.
const RATIO_FREE_BYTES: u64 = 1 << 20;

/// Whether a file starts as a zip does; an empty zip starts with the directory's end.
pub(crate) fn is_zip(start: &[u8]) -> bool {
    start.starts_with(b"PK\x03\x04") || start.starts_with(b"PK\x05\x06")
}

/// A checked zip.
pub(crate) struct Archive<R> {
    path: PathBuf,
    zip: ZipArchive<R>,
    packed_bytes: u64,
    entries: Vec<Entry>,
    /// The index in the zip of each entry.
    indices: Vec<usize>,
}

impl<R: Read + Seek> Archive<R> {
    /// Reads the central directory and checks it. `path` is for messages.
    pub fn open(path: &Path, mut reader: R) -> Result<Self, Error> {
        let failed = |source| Error::Read { path: path.to_owned(), source };
        reader.seek(SeekFrom::Start(0)).map_err(failed)?;
        let mut start = Vec::new();
        reader.by_ref().take(4).read_to_end(&mut start).map_err(failed)?;
        if !is_zip(&start) {
            return Err(Error::NotAPackage { path: path.to_owned() });
        }
        let packed_bytes = reader.seek(SeekFrom::End(0)).map_err(failed)?;
        let zip = ZipArchive::new(reader).map_err(|e| zip_error(path, None, e))?;
        let mut archive =
            Self { path: path.to_owned(), zip, packed_bytes, entries: Vec::new(), indices: Vec::new() };
        archive.check(LIMITS)?;
        Ok(archive)
    }

    /// Checks every entry.
    fn check(&mut self, limits: Limits) -> Result<(), Error> {
        let path = self.path.clone();
        let refused = |reason: String| Error::UnsafeZip { path: path.clone(), reason };
        let count = self.zip.len();
        if count > limits.max_entries {
            return Err(refused(format!("it has {count} entries, more than {}", limits.max_entries)));
        }
        if self.zip.has_duplicate_names() {
            return Err(refused("it has two entries of the same name".to_owned()));
        }
        let mut seen = HashSet::new();
        for index in 0..count {
            let entry = self.zip.by_index_raw(index).map_err(|e| zip_error(&path, None, e))?;
            let name = entry.name().map_err(|e| zip_error(&path, None, e))?.into_owned();
            let parts = safe_parts(&name)
                .ok_or_else(|| refused(format!("the entry {name:?} leads out of the folder")))?;
            if !seen.insert(parts.join("/").to_lowercase()) {
                return Err(refused(format!("two entries meet at the name {name:?}")));
            }
            check_kind(&entry, &name).map_err(&refused)?;
            if !entry.is_dir() {
                self.entries.push(Entry { size: entry.size(), name });
                self.indices.push(index);
            }
        }
        let (total, allowed) = (self.total_bytes(), limits.allowed_bytes(self.packed_bytes));
        if total > allowed {
            return Err(refused(format!(
                "it would unpack to {total} bytes, at most {allowed} are allowed for its size"
            )));
        }
        if self.zip.has_overlapping_files().map_err(|e| zip_error(&path, None, e))? {
            return Err(refused("entries share the same bytes".to_owned()));
        }
        Ok(())
    }

    /// Bytes of all files.
    pub fn total_bytes(&self) -> u64 {
        self.entries.iter().fold(0, |sum, e| sum.saturating_add(e.size))
    }
}

impl<R: Read + Seek> FileTree for Archive<R> {
    fn path(&self) -> &Path {
        &self.path
    }

    fn entries(&self) -> &[Entry] {
        &self.entries
    }

    fn read(&mut self, index: usize) -> Result<Box<dyn Read + '_>, Error> {
        let (path, name) = (&self.path, &self.entries[index].name);
        let file = self.zip.by_index(self.indices[index]);
        file.map(|f| Box::new(f) as _).map_err(|e| zip_error(path, Some(name), e))
    }

    fn read_error(&self, index: usize, error: io::Error) -> Error {
        let name = &self.entries[index].name;
        Error::DamagedZip { path: self.path.clone(), reason: format!("{name}: {error}") }
    }

    fn stored_bytes(&self) -> u64 {
        self.packed_bytes
    }
}

/// Kinds and sizes that no model has.
fn check_kind<R: Read>(entry: &zip::read::ZipFile<'_, R>, name: &str) -> Result<(), String> {
    const S_IFMT: u32 = 0o170_000;
    const PLAIN: [u32; 3] = [0, 0o100_000, 0o040_000];
    if entry.unix_mode().is_some_and(|mode| !PLAIN.contains(&(mode & S_IFMT))) {
        return Err(format!("the entry {name:?} is a link or a device"));
    }
    if entry.encrypted() {
        return Err(format!("the entry {name:?} is encrypted"));
    }
    let (size, packed) = (entry.size(), entry.compressed_size());
    if size > packed.saturating_mul(MAX_DEFLATE_RATIO).saturating_add(1024) {
        return Err(format!(
            "the entry {name:?} (at byte {}) claims {size} bytes from {packed}, more than any can hold",
            entry.header_start()
        ));
    }
    Ok(())
}

/// The parts of a name that stays within its folder on every system; `None` for any other.
pub(crate) fn safe_parts(name: &str) -> Option<Vec<&str>> {
    let trimmed = name.strip_suffix('/').unwrap_or(name);
    let parts: Vec<&str> = trimmed.split('/').collect();
    let safe = |part: &&str| {
        !matches!(*part, "" | "." | "..") && !part.contains(['\\', ':']) && !part.contains(char::is_control)
    };
    parts.iter().all(safe).then_some(parts)
}

fn zip_error(path: &Path, entry: Option<&str>, error: ZipError) -> Error {
    match error {
        ZipError::Io(source) if source.kind() != io::ErrorKind::UnexpectedEof && entry.is_none() => {
            Error::Read { path: path.to_owned(), source }
        }
        other => {
            let at = entry.map(|e| format!("{e}: ")).unwrap_or_default();
            Error::DamagedZip { path: path.to_owned(), reason: format!("{at}{other}") }
        }
    }
}

#[cfg(test)]
mod tests;
