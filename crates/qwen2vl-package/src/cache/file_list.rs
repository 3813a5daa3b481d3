//! The files of an unpacked package: written one by one, listed with size and CRC-32, checked later.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::files::{CopyError, FileTree, check_size, copy};

/// The list's name in an unpacked folder.
pub(crate) const LIST_FILE: &str = ".unpacked.json";

/// Raised when what is unpacked has another form than before, so that older folders are made anew.
const FORM: u32 = 3;

/// Written files that are synced together: the disk writes one while the next is unpacked.
const MAX_UNSYNCED: usize = 64;

/// What an unpacked folder holds.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct FileList {
    form: u32,
    pub sha256: String,
    pub files: BTreeMap<String, Listed>,
    /// Not yet known to be on the disk.
    #[serde(skip)]
    unsynced: Vec<(PathBuf, File)>,
}

/// A file of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Listed {
    pub size: u64,
    pub crc32: u32,
}

impl FileList {
    /// Of a content, without files yet.
    pub fn new(sha256: &str) -> Self {
        Self { form: FORM, sha256: sha256.to_owned(), files: BTreeMap::new(), unsynced: Vec::new() }
    }

    /// The list of a folder, if it has one of this form.
    pub fn read(folder: &Path) -> Option<Self> {
        let list: Self = serde_json::from_slice(&std::fs::read(folder.join(LIST_FILE)).ok()?).ok()?;
        (list.form == FORM).then_some(list)
    }

    /// Whether all files are there, with their sizes.
    pub fn is_whole(&self, folder: &Path, sha256: &str) -> bool {
        let whole = |(file, listed): (&String, &Listed)| {
            std::fs::metadata(folder.join(file)).is_ok_and(|m| m.is_file() && m.len() == listed.size)
        };
        self.sha256 == sha256 && self.files.iter().all(whole)
    }

    /// Writes the list into its folder, and everything down to the disk.
    pub fn save(&mut self, folder: &Path) -> Result<(), Error> {
        self.finish()?;
        let path = folder.join(LIST_FILE);
        let write = || -> io::Result<()> {
            let mut file = File::create(&path)?;
            file.write_all(&serde_json::to_vec_pretty(self)?)?;
            file.sync_all()
        };
        write().map_err(|source| Error::Cache { path: path.clone(), source })
    }

    /// Writes all files down to the disk; the path of one that cannot be, with the reason.
    fn sync(&mut self) -> Result<(), (PathBuf, io::Error)> {
        self.unsynced.drain(..).try_for_each(|(path, file)| file.sync_all().map_err(|e| (path, e)))
    }

    /// Writes all files down to the disk.
    pub fn finish(&mut self) -> Result<(), Error> {
        self.sync().map_err(|(path, source)| Error::Cache { path, source })
    }

    fn add(&mut self, name: &str, path: PathBuf, file: File, listed: Listed) -> io::Result<()> {
        self.files.insert(name.to_owned(), listed);
        self.unsynced.push((path, file));
        if self.unsynced.len() < MAX_UNSYNCED { Ok(()) } else { self.sync().map_err(|(_, error)| error) }
    }

    /// Copies a file of a tree into `folder`.
    pub fn copy(
        &mut self,
        tree: &mut dyn FileTree,
        index: usize,
        folder: &Path,
        name: &str,
    ) -> Result<(), Error> {
        let size = tree.entries()[index].size;
        let path = folder.join(name);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(|source| Error::Cache { path: path.clone(), source })?;
        }
        let copied = self.copy_from(&mut tree.read(index)?, size, folder, name);
        copied.and_then(|copied| check_size(copied, size)).map_err(|e| e.of(tree, index, &path))
    }

    /// Copies a content of at most `most` bytes into `folder`; how many it has.
    pub fn copy_from(
        &mut self,
        content: &mut (impl Read + ?Sized),
        most: u64,
        folder: &Path,
        name: &str,
    ) -> Result<u64, CopyError> {
        let path = folder.join(name);
        let mut file = File::create_new(&path).map_err(CopyError::Write)?;
        let (size, crc32) = copy(content, most, &mut file)?;
        self.add(name, path, file, Listed { size, crc32 }).map_err(CopyError::Write)?;
        Ok(size)
    }

    /// Writes a file into `folder`.
    pub fn write(
        &mut self,
        folder: &Path,
        name: &str,
        fill: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), Error> {
        let path = folder.join(name);
        let failed = |source| Error::Cache { path: path.clone(), source };
        let file = File::create_new(&path).map_err(failed)?;
        let mut counting =
            Counting { inner: BufWriter::new(file), size: 0, hasher: crc32fast::Hasher::new() };
        fill(&mut counting).map_err(failed)?;
        let Counting { inner, size, hasher } = counting;
        let file = inner.into_inner().map_err(|e| failed(e.into_error()))?;
        let listed = Listed { size, crc32: hasher.finalize() };
        self.add(name, path.clone(), file, listed).map_err(failed)
    }

    /// Writes a JSON file into `folder`.
    pub fn write_json(&mut self, folder: &Path, name: &str, value: &impl Serialize) -> Result<(), Error> {
        self.write(folder, name, |file| serde_json::to_writer_pretty(file, value).map_err(io::Error::from))
    }
}

/// Size and CRC-32 of what is written.
struct Counting<W> {
    inner: W,
    size: u64,
    hasher: crc32fast::Hasher,
}

impl<W: Write> Write for Counting<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(bytes)?;
        self.size += n as u64;
        self.hasher.update(&bytes[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
