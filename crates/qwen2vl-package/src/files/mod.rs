//! Files as a package has them: in a folder, or in a zip. What reads a package reads a [`FileTree`].

pub(crate) mod bytes;
pub(crate) mod folder;
pub(crate) mod zip;
pub(crate) mod zip_stream;

use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use crate::Error;

/// A file of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Name from the tree's root, parts joined by `/`.
    pub name: String,
    /// Bytes of its content.
    pub size: u64,
}

impl Entry {
    /// Folder (empty, or ending in `/`) and file name.
    pub fn split(&self) -> (&str, &str) {
        self.name.split_at(self.name.rfind('/').map_or(0, |slash| slash + 1))
    }
}

/// Files by index, with their content.
pub(crate) trait FileTree {
    /// The folder or zip.
    fn path(&self) -> &Path;

    /// The files, in no order; folders are not listed.
    fn entries(&self) -> &[Entry];

    /// The content of a file, to be read once. A zip's CRC is checked at its end.
    fn read(&mut self, index: usize) -> Result<Box<dyn Read + '_>, Error>;

    /// The error for a failed read of a file.
    fn read_error(&self, index: usize, error: std::io::Error) -> Error;

    /// The bytes that everything together takes where it lies now: what limits on unpacking refer to.
    fn stored_bytes(&self) -> u64;

    /// Where a file is, for messages; within a zip the zip's path and the name.
    fn location(&self, index: usize) -> PathBuf {
        self.path().join(&self.entries()[index].name)
    }

    /// The index of a file.
    fn find(&self, name: &str) -> Option<usize> {
        self.entries().iter().position(|e| e.name == name)
    }

    /// The whole content of a file that should be small.
    fn read_small(&mut self, index: usize, limit: u64) -> Result<Vec<u8>, Error> {
        let size = self.entries()[index].size;
        let path = self.location(index);
        let mut content = Vec::new();
        // One byte more than allowed shows a file that is larger than it says.
        let read = self.read(index)?.take(limit + 1).read_to_end(&mut content);
        read.map_err(|e| self.read_error(index, e))?;
        if content.len() as u64 > limit {
            return Err(Error::TooLarge { path, size: size.max(content.len() as u64), limit });
        }
        Ok(content)
    }
}

/// The indices of the files whose folder and name `belongs` accepts, by name.
pub(crate) fn select(tree: &dyn FileTree, belongs: impl Fn(&str, &str) -> bool) -> Vec<usize> {
    let entries = tree.entries();
    let accepted = |index: &usize| {
        let (folder, file) = entries[*index].split();
        belongs(folder, file)
    };
    let mut files: Vec<usize> = (0..entries.len()).filter(accepted).collect();
    files.sort_by(|a, b| entries[*a].name.cmp(&entries[*b].name));
    files
}

/// What went wrong while copying.
#[derive(Debug)]
pub(crate) enum CopyError {
    Read(std::io::Error),
    /// More, or fewer, bytes than the size that was promised.
    Size(String),
    Write(std::io::Error),
}

impl CopyError {
    /// The error of a file of a tree that was to be copied to `target`.
    pub fn of(self, tree: &dyn FileTree, index: usize, target: &Path) -> Error {
        match self {
            Self::Read(e) => tree.read_error(index, e),
            Self::Size(problem) => tree.read_error(index, std::io::Error::other(problem)),
            Self::Write(source) => Error::Cache { path: target.to_owned(), source },
        }
    }
}

/// Checks that a copy has the size that was promised.
pub(crate) fn check_size(copied: u64, size: u64) -> Result<(), CopyError> {
    match size - copied {
        0 => Ok(()),
        left => Err(CopyError::Size(format!("ends {left} bytes before its {size} bytes"))),
    }
}

/// Bytes copied at a time.
const COPY_BYTES: usize = 1 << 20;

/// Reads until the buffer is full or nothing is left; how much that was.
fn fill(reader: &mut (impl Read + ?Sized), buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match reader.read(&mut buffer[done..]) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

/// Copies at most `most` bytes, which must be all that there are; how many, and their CRC-32.
pub(crate) fn copy(
    reader: &mut (impl Read + ?Sized),
    most: u64,
    writer: &mut impl Write,
) -> Result<(u64, u32), CopyError> {
    let mut hasher = crc32fast::Hasher::new();
    // Filled before it is written: writes of whole pages cost the system far less.
    let mut buffer = vec![0; COPY_BYTES];
    let mut size = 0;
    loop {
        let n = fill(reader, &mut buffer).map_err(CopyError::Read)?;
        size += n as u64;
        if size > most {
            return Err(CopyError::Size(format!("holds more than its {most} bytes")));
        }
        hasher.update(&buffer[..n]);
        writer.write_all(&buffer[..n]).map_err(CopyError::Write)?;
        if n < buffer.len() {
            return Ok((size, hasher.finalize()));
        }
    }
}

/// Copies exactly `size` bytes, which must be all that there are; their CRC-32.
pub(crate) fn copy_exact(
    reader: &mut (impl Read + ?Sized),
    size: u64,
    writer: &mut impl Write,
) -> Result<u32, CopyError> {
    let (copied, crc32) = copy(reader, size, writer)?;
    check_size(copied, size).map(|()| crc32)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Full;

    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(ErrorKind::StorageFull.into())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn files_have_exactly_their_size() {
        let mut written = Vec::new();
        let crc32 = copy_exact(&mut b"abc".as_slice(), 3, &mut written).unwrap();
        assert_eq!((written.as_slice(), crc32), (b"abc".as_slice(), 0x3524_41c2));
        for (size, says) in [(2, "more than its 2 bytes"), (5, "ends 2 bytes before its 5 bytes")] {
            let mut written = Vec::new();
            let error = copy_exact(&mut b"abc".as_slice(), size, &mut written).unwrap_err();
            assert!(matches!(&error, CopyError::Size(problem) if problem.contains(says)), "{error:?}");
            assert!(written.len() as u64 <= 3);
        }
    }

    #[test]
    fn a_failing_disk_is_not_taken_for_a_damaged_file() {
        let error = copy_exact(&mut b"abc".as_slice(), 3, &mut Full).unwrap_err();
        assert!(matches!(&error, CopyError::Write(e) if e.kind() == ErrorKind::StorageFull), "{error:?}");
    }
}
