//! The cache folder: Spark NLP's names, but nothing in it looks complete before it is.
//!
//! | name | what |
//! |---|---|
//! | `<name>/` | an unpacked model |
//! | `<name>.zip` | a zip that is whole; unpacked, then removed |
//! | `<name>.zip.partial`, `….json` | a download, and what it is of |
//! | `<name>.partial-<process>` | an unpacking |
//! | `<name>.incomplete-<process>` | what another program left half-done, for the moment of exchange |
//! | `.<name>.lock` | held by the process that is at work on it |

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::progress::{Progress, Tell};
use crate::{Error, Manual, completeness};

/// Asked for beyond the files' bytes.
pub(crate) const HEADROOM_BYTES: u64 = 8 << 20;

/// The places of one model in the cache.
#[derive(Debug, Clone)]
pub(crate) struct Slot {
    dir: PathBuf,
    name: String,
}

/// Held while a model is worked on.
pub(crate) struct Lock {
    _file: File,
}

impl Slot {
    /// The slot of `name`, which is a plain file name.
    pub fn new(dir: &Path, name: &str) -> Self {
        Self { dir: dir.to_owned(), name: name.to_owned() }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn folder(&self) -> PathBuf {
        self.dir.join(&self.name)
    }

    pub fn zip(&self) -> PathBuf {
        self.dir.join(format!("{}.zip", self.name))
    }

    pub fn partial(&self) -> PathBuf {
        self.dir.join(format!("{}.zip.partial", self.name))
    }

    /// The folder, if a whole model is in it.
    pub fn whole(&self) -> Option<PathBuf> {
        let folder = self.folder();
        (folder.is_dir() && completeness::missing(&folder).is_empty()).then_some(folder)
    }

    /// Waits for other processes, then clears away what killed ones left.
    pub fn lock(&self, tell: Tell<'_>) -> Result<Lock, Error> {
        std::fs::create_dir_all(&self.dir).map_err(|e| io_error(&self.dir, e))?;
        let lock = lock(&self.dir.join(format!(".{}.lock", self.name)), tell)?;
        let leftovers = [".partial-", ".incomplete-"].map(|kind| format!("{}{kind}", self.name));
        for entry in std::fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if leftovers.iter().any(|l| name.starts_with(l)) {
                std::fs::remove_dir_all(entry.path()).ok();
            }
        }
        Ok(lock)
    }

    /// Unpacks a zip and puts the folder in its place at once.
    pub fn unpack(&self, zip: &Path, tell: Tell<'_>) -> Result<PathBuf, Error> {
        tell(Progress::Unpacking);
        let process = std::process::id();
        let partial = self.dir.join(format!("{}.partial-{process}", self.name));
        std::fs::create_dir(&partial).map_err(|e| io_error(&partial, e))?;
        let folder = self.folder();
        let unpacked = self.fill(zip, &partial).and_then(|()| {
            if folder.exists() {
                let aside = self.dir.join(format!("{}.incomplete-{process}", self.name));
                std::fs::rename(&folder, &aside).map_err(|e| io_error(&folder, e))?;
            }
            std::fs::rename(&partial, &folder).map_err(|e| io_error(&folder, e))
        });
        if unpacked.is_err() {
            std::fs::remove_dir_all(&partial).ok();
        }
        unpacked?;
        sync_folder(&self.dir);
        std::fs::remove_dir_all(self.dir.join(format!("{}.incomplete-{process}", self.name))).ok();
        Ok(folder)
    }

    fn fill(&self, zip: &Path, target: &Path) -> Result<(), Error> {
        use qwen2vl_package::Error as Package;
        let kept_bytes = std::fs::metadata(zip).map_or(0, |m| m.len());
        qwen2vl_package::unpack_zip(zip, target).map_err(|error| match error {
            Package::DiskFull { needed_bytes, available_bytes, .. } => {
                Error::NoSpace { folder: self.dir.clone(), needed_bytes, available_bytes, kept_bytes }
            }
            Package::Cache { source, .. } if is_full(&source) => Error::NoSpace {
                folder: self.dir.clone(),
                needed_bytes: kept_bytes + HEADROOM_BYTES,
                available_bytes: fs4::available_space(&self.dir).unwrap_or(0),
                kept_bytes,
            },
            Package::Cache { path, source } => io_error(&path, source),
            other => other.into(),
        })?;
        let missing = completeness::missing(target);
        if missing.is_empty() {
            return Ok(());
        }
        Err(Error::NotAModel { path: zip.to_owned(), missing, manual: Manual::none() })
    }
}

/// Holds a file lock until it is dropped. Where the file system has none, two processes do the work twice.
pub(crate) fn lock(path: &Path, tell: Tell<'_>) -> Result<Lock, Error> {
    let failed = |e| io_error(path, e);
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(path).map_err(failed)?;
    match fs4::FileExt::try_lock(&file) {
        Ok(()) => {}
        Err(fs4::TryLockError::WouldBlock) => {
            tell(Progress::Waiting);
            fs4::FileExt::lock(&file).map_err(failed)?;
        }
        Err(fs4::TryLockError::Error(error)) => {
            tracing::debug!(lock = %path.display(), %error, "no lock here");
        }
    }
    Ok(Lock { _file: file })
}

/// Writes a small file so that it is either the old or the new one.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let mut partial = tempfile::NamedTempFile::new_in(folder)?;
    partial.write_all(bytes)?;
    partial.as_file().sync_all()?;
    partial.persist(path)?;
    Ok(())
}

/// Makes a rename survive a power failure, where folders can be synced.
pub(crate) fn sync_folder(folder: &Path) {
    if cfg!(unix) {
        File::open(folder).and_then(|f| f.sync_all()).ok();
    }
}

/// Whether the disk, or the part of it that a user may have, is full.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

pub(crate) fn io_error(path: &Path, source: io::Error) -> Error {
    Error::Io { path: path.to_owned(), source }
}
