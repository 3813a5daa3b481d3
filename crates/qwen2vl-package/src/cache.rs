//! Unpacked packages on disk: `<cache root>/packages/<name>-<16 digits of the content's SHA-256>`.
//!
//! - **Keyed by content.** The key is the SHA-256 of the whole zip, or of the files of a saved annotator's folder. So
//!   that gigabytes are not hashed at each start, `packages/index/` notes which (path, size, modification time) had
//!   which hash; what was replaced has another time and is hashed again. What was changed within [`SETTLING`] of its
//!   modification time is not noted, since file systems count time in steps. In-memory zips are hashed each time.
//! - **Whole or not there.** Files are written to a folder beside the final one, synced, and renamed; a list of the
//!   files goes with them, and a folder that lost some since is unpacked anew.
//! - **One writer.** A lock file makes processes and threads wait for the first one; a finished folder is used without
//!   any lock and without writing, so a filled cache may be read-only.

mod file_list;

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::Error;
use crate::files::FileTree;
use crate::files::folder::{Folder, nanoseconds};

pub(crate) use file_list::{FileList, LIST_FILE};

/// Where packages are below the cache root.
const PACKAGES: &str = "packages";
/// Hexadecimal digits of the hash in a folder's name; the list holds all 64.
const KEY_DIGITS: usize = 16;
/// A file whose last change is younger may change again without its time changing.
const SETTLING: Duration = Duration::from_secs(2);

/// Asked for beyond the files' bytes: blocks are larger than their content, and a disk that is full to the last byte
/// helps nobody.
const HEADROOM_BYTES: u64 = 8 << 20;

/// The per-user cache: `QWEN2VL_CACHE`, else `$XDG_CACHE_HOME/qwen2vl`, else `~/.cache/qwen2vl`.
///
/// # Errors
///
/// [`Error::NoCache`] if no variable is set and no home folder is known.
pub fn cache_root() -> Result<PathBuf, Error> {
    let variable = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    // A relative XDG_CACHE_HOME is to be ignored, says the XDG base directory specification.
    let xdg = || variable("XDG_CACHE_HOME").filter(|p| p.is_absolute()).map(|p| p.join("qwen2vl"));
    let home =
        || std::env::home_dir().filter(|p| !p.as_os_str().is_empty()).map(|p| p.join(".cache/qwen2vl"));
    variable("QWEN2VL_CACHE").or_else(xdg).or_else(home).ok_or(Error::NoCache)
}

/// The folders of the packages that were unpacked below a cache root, whole or not.
pub fn unpacked_packages(cache_root: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(cache_root.join(PACKAGES)).into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> =
        entries.map(|entry| entry.path()).filter(|path| path.join(LIST_FILE).is_file()).collect();
    folders.sort();
    folders
}

/// Removes one of [`unpacked_packages`], whose zip is unpacked again when it is opened. Not for one that is in use.
///
/// # Errors
///
/// Of what cannot be removed; what is left is no whole package.
pub fn remove_unpacked(folder: &Path) -> io::Result<()> {
    // The list goes first: without it, it is a package no more.
    std::fs::remove_file(folder.join(LIST_FILE))?;
    std::fs::remove_dir_all(folder)
}

/// What tells a file, or a folder's files, from an earlier self without reading them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    path: String,
    size: u64,
    /// Nanoseconds since 1970; the latest of a folder's files.
    modified: u64,
    /// Hash of a folder's names, sizes and times.
    #[serde(default)]
    listing: Option<String>,
}

impl Identity {
    /// Of a file.
    pub fn of_file(canonical: &Path, file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        let modified = nanoseconds(metadata.modified()?);
        let path = canonical.to_string_lossy().into_owned();
        Ok(Self { path, size: metadata.len(), modified, listing: None })
    }

    /// Of some files of a folder.
    pub fn of_files(canonical: &Path, folder: &Folder, files: &[usize]) -> Self {
        let (mut size, mut modified, mut hasher) = (0u64, 0, Sha256::new());
        for index in files {
            let entry = &folder.entries()[*index];
            size = size.saturating_add(entry.size);
            modified = folder.modified(*index).max(modified);
            hasher.update(entry.name.as_bytes());
            for number in [0, entry.size, folder.modified(*index)] {
                hasher.update(number.to_le_bytes());
            }
        }
        let path = canonical.to_string_lossy().into_owned();
        Self { path, size, modified, listing: Some(hex(&hasher.finalize())) }
    }

    fn has_settled(&self) -> bool {
        u128::from(nanoseconds(SystemTime::now()).saturating_sub(self.modified)) > SETTLING.as_nanos()
    }
}

/// A note in the index.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    #[serde(flatten)]
    identity: Identity,
    sha256: String,
}

/// The packages below a cache root.
#[derive(Debug)]
pub(crate) struct Cache {
    packages: PathBuf,
}

impl Cache {
    pub fn new(cache_root: &Path) -> Self {
        Self { packages: cache_root.join(PACKAGES) }
    }

    /// The unpacked folder, and hash, of what was seen before. Damaged notes count as none.
    pub fn find_by_identity(&self, identity: &Identity, name: &str) -> Option<(PathBuf, String)> {
        let text = std::fs::read(self.note_path(identity)).ok()?;
        let note: Note = serde_json::from_slice(&text).ok()?;
        let root = (note.identity == *identity).then(|| self.find(name, &note.sha256))??;
        Some((root, note.sha256))
    }

    /// Notes the hash of a zip file. Failing costs only time at the next start.
    pub fn remember(&self, identity: &Identity, sha256: &str) {
        if !identity.has_settled() {
            return;
        }
        let path = self.note_path(identity);
        let write = || -> io::Result<()> {
            let folder = path.parent().unwrap_or(&self.packages);
            std::fs::create_dir_all(folder)?;
            let note = Note { identity: identity.clone(), sha256: sha256.to_owned() };
            let partial = tempfile::NamedTempFile::new_in(folder)?;
            std::fs::write(&partial, serde_json::to_vec(&note)?)?;
            partial.persist(&path)?;
            Ok(())
        };
        if let Err(error) = write() {
            tracing::debug!(path = %path.display(), %error, "the zip's hash is not noted");
        }
    }

    /// The unpacked folder of a content, if it is whole.
    pub fn find(&self, name: &str, sha256: &str) -> Option<PathBuf> {
        let folder = self.packages.join(key(name, sha256));
        FileList::read(&folder).is_some_and(|list| list.is_whole(&folder, sha256)).then_some(folder)
    }

    /// The unpacked folder of a content, made by `fill` if need be. `fill` writes into the folder that it is given and
    /// lists its files.
    pub fn get_or_unpack(
        &self,
        name: &str,
        sha256: &str,
        total_bytes: u64,
        fill: impl FnOnce(&Path, &mut FileList) -> Result<(), Error>,
    ) -> Result<PathBuf, Error> {
        if let Some(found) = self.find(name, sha256) {
            return Ok(found);
        }
        let key = key(name, sha256);
        std::fs::create_dir_all(&self.packages).map_err(|e| cache_error(&self.packages, e))?;
        let _lock = lock(&self.packages.join(format!(".{key}.lock")))?;
        // Whoever held the lock before may have unpacked it.
        if let Some(found) = self.find(name, sha256) {
            return Ok(found);
        }
        let partial_prefix = format!(".{key}.partial-");
        self.remove_leftovers(&partial_prefix);
        let needed_bytes = total_bytes.saturating_add(HEADROOM_BYTES);
        self.check_room(needed_bytes, fs4::available_space(&self.packages).ok())?;
        let target = self.packages.join(&key);
        // Outside, so that what was written is gone again when the free space is looked at.
        self.unpack(&partial_prefix, &target, sha256, fill).map_err(|e| self.disk_full(e, needed_bytes))?;
        tracing::info!(folder = %target.display(), bytes = total_bytes, "model unpacked");
        Ok(target)
    }

    fn unpack(
        &self,
        partial_prefix: &str,
        target: &Path,
        sha256: &str,
        fill: impl FnOnce(&Path, &mut FileList) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let partial = tempfile::Builder::new()
            .prefix(partial_prefix)
            .tempdir_in(&self.packages)
            .map_err(|e| cache_error(&self.packages, e))?;
        let mut list = FileList::new(sha256);
        fill(partial.path(), &mut list)?;
        self.finish(partial, target, &mut list)
    }

    /// Removes a folder that must not be used.
    pub fn remove(&self, folder: &Path) {
        if folder.starts_with(&self.packages) {
            // Without a list it was no whole package, and goes all the same.
            if remove_unpacked(folder).is_err() {
                std::fs::remove_dir_all(folder).ok();
            }
        }
    }

    fn finish(&self, partial: tempfile::TempDir, target: &Path, list: &mut FileList) -> Result<(), Error> {
        let failed = |e| cache_error(target, e);
        list.save(partial.path())?;
        sync_folder(partial.path());
        if target.exists() {
            tracing::warn!(folder = %target.display(), "unpacked again: files were missing or changed");
            self.remove(target);
        }
        std::fs::rename(partial.path(), target).map_err(failed)?;
        // Its content is at the target now; there is nothing left to remove.
        let _ = partial.keep();
        sync_folder(&self.packages);
        Ok(())
    }

    /// Removes what a process that was killed while unpacking left. Called with the lock held.
    fn remove_leftovers(&self, prefix: &str) {
        for entry in std::fs::read_dir(&self.packages).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(prefix) {
                std::fs::remove_dir_all(entry.path()).ok();
            }
        }
    }

    fn check_room(&self, needed_bytes: u64, available_bytes: Option<u64>) -> Result<(), Error> {
        match available_bytes {
            Some(available_bytes) if available_bytes < needed_bytes => {
                Err(Error::DiskFull { path: self.packages.clone(), needed_bytes, available_bytes })
            }
            _ => Ok(()),
        }
    }

    /// Turns the system's "no space" into the error that says how much is needed.
    fn disk_full(&self, error: Error, needed_bytes: u64) -> Error {
        match error {
            Error::Cache { source, .. }
                if matches!(source.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) =>
            {
                let available_bytes = fs4::available_space(&self.packages).unwrap_or(0);
                Error::DiskFull { path: self.packages.clone(), needed_bytes, available_bytes }
            }
            other => other,
        }
    }

    fn note_path(&self, identity: &Identity) -> PathBuf {
        let digest = Sha256::digest(identity.path.as_bytes());
        let digits = hex(&digest[..KEY_DIGITS / 2]);
        self.packages.join("index").join(format!("{digits}.json"))
    }
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The name of a content's folder: readable, and safe on every file system.
fn key(name: &str, sha256: &str) -> String {
    let safe = |c: char| {
        if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '_' }
    };
    let name: String = name.chars().map(safe).take(64).collect();
    let name = name.trim_start_matches('.');
    let digits = sha256.get(..KEY_DIGITS).unwrap_or(sha256);
    if name.is_empty() { format!("model-{digits}") } else { format!("{name}-{digits}") }
}

/// Holds a file lock until it is dropped. Where the file system has no locks, two writers do the work twice; the
/// rename keeps the result whole.
fn lock(path: &Path) -> Result<File, Error> {
    let failed = |e| cache_error(path, e);
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(path).map_err(failed)?;
    match fs4::FileExt::try_lock(&file) {
        Ok(()) => Ok(file),
        Err(fs4::TryLockError::WouldBlock) => {
            tracing::info!(lock = %path.display(), "waiting for another process to unpack the model");
            fs4::FileExt::lock(&file).map_err(failed)?;
            Ok(file)
        }
        Err(fs4::TryLockError::Error(error)) => {
            tracing::debug!(lock = %path.display(), %error, "no lock here");
            Ok(file)
        }
    }
}

/// Makes a rename survive a power failure, where folders can be synced.
pub(crate) fn sync_folder(folder: &Path) {
    if cfg!(unix) {
        File::open(folder).and_then(|f| f.sync_all()).ok();
    }
}

fn cache_error(path: &Path, source: io::Error) -> Error {
    Error::Cache { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests;
