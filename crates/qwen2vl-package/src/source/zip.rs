//! Zips of an export: everything is checked on the central directory before a byte is written, and every byte again
//! while unpacking.
//!
//! The zip may come from anywhere. Refused are names that lead out of the folder, links, names that meet on a file
//! system without upper and lower case, encrypted entries, entries over one another's bytes, and sizes that no model
//! has. Only the files beside the IRs are unpacked.

use std::collections::HashSet;
use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use zip::ZipArchive;
use zip::result::ZipError;

use super::export;
use crate::Error;

/// What a zip may hold.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// An export has about 25 files.
    max_entries: usize,
    /// Twice the 72B at 4 bits.
    max_total_bytes: u64,
    /// Unpacked bytes per byte of the zip; weights hardly compress, the demo model's unused rows reach 15 in all.
    max_ratio: u64,
}

const LIMITS: Limits = Limits { max_entries: 10_000, max_total_bytes: 96 << 30, max_ratio: 100 };

/// No deflate stream gives more bytes per byte: what claims more lies.
const MAX_DEFLATE_RATIO: u64 = 1032;

/// Small zips may exceed the ratio by this much: JSON full of blanks is no bomb.
const RATIO_FREE_BYTES: u64 = 1 << 20;

/// A file to unpack.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    index: usize,
    /// Name within the export's folder.
    name: String,
    size: u64,
}

/// A checked zip.
pub(crate) struct Archive<R> {
    path: PathBuf,
    zip: ZipArchive<R>,
    entries: Vec<Entry>,
}

/// SHA-256 of everything in `reader`, lower-case hexadecimal. `path` is for messages.
pub(crate) fn sha256(path: &Path, mut reader: impl Read + Seek) -> Result<String, Error> {
    let failed = |source| Error::Read { path: path.to_owned(), source };
    reader.seek(SeekFrom::Start(0)).map_err(failed)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => hasher.update(&buffer[..n]),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(failed(e)),
        }
    }
    Ok(hasher.finalize().iter().map(|b| format!("{b:02x}")).collect())
}

impl<R: Read + Seek> Archive<R> {
    /// Reads the central directory and checks it. `path` is for messages.
    pub fn open(path: &Path, mut reader: R) -> Result<Self, Error> {
        let failed = |source| Error::Read { path: path.to_owned(), source };
        reader.seek(SeekFrom::Start(0)).map_err(failed)?;
        let mut magic = Vec::new();
        reader.by_ref().take(4).read_to_end(&mut magic).map_err(failed)?;
        // An empty zip has no entry and starts with the directory's end.
        if !matches!(magic.as_slice(), b"PK\x03\x04" | b"PK\x05\x06") {
            return Err(Error::NotAPackage { path: path.to_owned() });
        }
        let zip_bytes = reader.seek(SeekFrom::End(0)).map_err(failed)?;
        let mut zip = ZipArchive::new(reader).map_err(|e| zip_error(path, None, e))?;
        let entries = check_entries(path, &mut zip, zip_bytes, LIMITS)?;
        Ok(Self { path: path.to_owned(), zip, entries })
    }

    /// Bytes of the files that [`Archive::unpack`] writes.
    pub fn total_bytes(&self) -> u64 {
        self.entries.iter().map(|e| e.size).sum()
    }

    /// Writes the export's files into `target`, an empty folder, down to the disk; their names and sizes.
    pub fn unpack(mut self, target: &Path) -> Result<Vec<(String, u64)>, Error> {
        for entry in &self.entries {
            let mut reader =
                self.zip.by_index(entry.index).map_err(|e| zip_error(&self.path, Some(&entry.name), e))?;
            let path = target.join(&entry.name);
            let write_failed = |source| Error::Cache { path: path.clone(), source };
            let mut file = File::create_new(&path).map_err(write_failed)?;
            copy_entry(&self.path, entry, &mut reader, &mut file, &path)?;
            file.sync_all().map_err(write_failed)?;
        }
        Ok(self.entries.into_iter().map(|e| (e.name, e.size)).collect())
    }
}

/// Copies one entry; exactly the bytes that the directory promised, with the CRC checked by the reader at their end.
fn copy_entry(
    zip: &Path,
    entry: &Entry,
    reader: &mut impl Read,
    writer: &mut impl Write,
    target: &Path,
) -> Result<(), Error> {
    let damaged = |reason: String| Error::DamagedZip {
        path: zip.to_owned(),
        reason: format!("{}: {reason}", entry.name),
    };
    let mut buffer = vec![0; 256 << 10];
    let mut left = entry.size;
    loop {
        let n = match reader.read(&mut buffer) {
            Ok(n) => n,
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            Err(e) => return Err(damaged(e.to_string())),
        };
        if n == 0 {
            break;
        }
        left = left
            .checked_sub(n as u64)
            .ok_or_else(|| damaged(format!("holds more than its {} bytes", entry.size)))?;
        writer.write_all(&buffer[..n]).map_err(|source| Error::Cache { path: target.to_owned(), source })?;
    }
    if left > 0 {
        return Err(damaged(format!("ends {left} bytes before its {} bytes", entry.size)));
    }
    Ok(())
}

/// Checks every entry, and picks those beside the IRs.
fn check_entries<R: Read + Seek>(
    path: &Path,
    zip: &mut ZipArchive<R>,
    zip_bytes: u64,
    limits: Limits,
) -> Result<Vec<Entry>, Error> {
    let refused = |reason: String| Error::UnsafeZip { path: path.to_owned(), reason };
    let count = zip.len();
    if count > limits.max_entries {
        return Err(refused(format!("it has {count} entries, more than {}", limits.max_entries)));
    }
    if zip.has_duplicate_names() {
        return Err(refused("it has two entries of the same name".to_owned()));
    }
    let mut seen = HashSet::new();
    let mut files = Vec::new();
    let mut total = 0u64;
    for index in 0..count {
        let entry = zip.by_index_raw(index).map_err(|e| zip_error(path, None, e))?;
        let name = entry.name().map_err(|e| zip_error(path, None, e))?.into_owned();
        let parts = safe_parts(&name)
            .ok_or_else(|| refused(format!("the entry {name:?} leads out of the folder")))?;
        if !seen.insert(parts.join("/").to_lowercase()) {
            return Err(refused(format!("two entries meet at the name {name:?}")));
        }
        check_kind(&entry, &name).map_err(&refused)?;
        if entry.is_dir() {
            continue;
        }
        total = total.saturating_add(entry.size());
        files.push((parts.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>(), index, entry.size()));
    }
    let allowed = zip_bytes
        .saturating_mul(limits.max_ratio)
        .saturating_add(RATIO_FREE_BYTES)
        .min(limits.max_total_bytes);
    if total > allowed {
        return Err(refused(format!(
            "it would unpack to {total} bytes, at most {allowed} are allowed for its size"
        )));
    }
    if zip.has_overlapping_files().map_err(|e| zip_error(path, None, e))? {
        return Err(refused("entries share the same bytes".to_owned()));
    }
    pick_export(path, files)
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
        return Err(format!("the entry {name:?} claims {size} bytes from {packed}, more than any can hold"));
    }
    Ok(())
}

/// The parts of a name that stays within its folder on every system; `None` for any other.
fn safe_parts(name: &str) -> Option<Vec<&str>> {
    let trimmed = name.strip_suffix('/').unwrap_or(name);
    let parts: Vec<&str> = trimmed.split('/').collect();
    let safe = |part: &&str| {
        !matches!(*part, "" | "." | "..") && !part.contains(['\\', ':']) && !part.contains(char::is_control)
    };
    parts.iter().all(safe).then_some(parts)
}

/// The files of the one folder that holds IRs, complete.
fn pick_export(path: &Path, files: Vec<(Vec<String>, usize, u64)>) -> Result<Vec<Entry>, Error> {
    let marked = |(parts, ..): &&(Vec<String>, usize, u64)| {
        // macOS puts a shadow of every file below this folder.
        parts[0] != "__MACOSX" && parts.last().is_some_and(|name| export::is_marker(name))
    };
    let folders: HashSet<&[String]> = files.iter().filter(marked).map(|(p, ..)| &p[..p.len() - 1]).collect();
    let mut folders: Vec<Vec<String>> = folders.into_iter().map(<[String]>::to_vec).collect();
    if folders.len() > 1 {
        folders.sort();
        let names: Vec<String> = folders.iter().map(|f| format!("{:?}", f.join("/"))).collect();
        let reason = format!("it holds {} models, in {}: pack one alone", folders.len(), names.join(", "));
        return Err(Error::UnsafeZip { path: path.to_owned(), reason });
    }
    let Some(folder) = folders.pop() else {
        let names: Vec<&str> = files.iter().filter_map(|(p, ..)| p.last()).map(String::as_str).collect();
        export::check_names(path, &names)?;
        return Ok(Vec::new());
    };
    let entries: Vec<Entry> = files
        .into_iter()
        .filter(|(parts, ..)| parts[..parts.len() - 1] == folder)
        .filter_map(|(mut parts, index, size)| Some(Entry { index, name: parts.pop()?, size }))
        .collect();
    export::check_names(path, &entries.iter().map(|e| e.name.as_str()).collect::<Vec<_>>())?;
    Ok(entries)
}

fn zip_error(path: &Path, entry: Option<&str>, error: ZipError) -> Error {
    match error {
        ZipError::Io(source) if source.kind() != ErrorKind::UnexpectedEof && entry.is_none() => {
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
