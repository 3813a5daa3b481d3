//! Bytes that many readers share, each with its own place: a file, or memory.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

/// Where the bytes are.
#[derive(Debug)]
pub(crate) enum Bytes<'a> {
    File { file: File, len: u64 },
    Memory(&'a [u8]),
}

impl Bytes<'_> {
    pub fn of_file(file: File) -> io::Result<Self> {
        let len = file.metadata()?.len();
        Ok(Self::File { file, len })
    }

    pub fn len(&self) -> u64 {
        match self {
            Self::File { len, .. } => *len,
            Self::Memory(bytes) => bytes.len() as u64,
        }
    }

    /// A reader of everything.
    pub fn window(&self) -> Window<'_> {
        Window { bytes: self, at: 0 }
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        match self {
            #[cfg(unix)]
            Self::File { file, .. } => std::os::unix::fs::FileExt::read_at(file, buffer, at),
            #[cfg(windows)]
            Self::File { file, .. } => std::os::windows::fs::FileExt::seek_read(file, buffer, at),
            Self::Memory(bytes) => {
                let rest = usize::try_from(at).ok().and_then(|at| bytes.get(at..)).unwrap_or_default();
                let n = rest.len().min(buffer.len());
                buffer[..n].copy_from_slice(&rest[..n]);
                Ok(n)
            }
        }
    }
}

/// A reader of [`Bytes`] with a place of its own.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window<'a> {
    bytes: &'a Bytes<'a>,
    at: u64,
}

impl Read for Window<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.bytes.read_at(buffer, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

impl Seek for Window<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let (from, by) = match to {
            SeekFrom::Start(at) => (at, 0),
            SeekFrom::End(by) => (self.bytes.len(), by),
            SeekFrom::Current(by) => (self.at, by),
        };
        self.at = from.checked_add_signed(by).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_of_files_and_memory_do_not_move_each_other() {
        let path = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&path, b"0123456789").unwrap();
        for bytes in [Bytes::Memory(b"0123456789"), Bytes::of_file(path.reopen().unwrap()).unwrap()] {
            let (mut one, mut other) = (bytes.window(), bytes.window());
            let mut two = [0; 2];
            assert_eq!(one.seek(SeekFrom::End(-3)).unwrap(), 7);
            one.read_exact(&mut two).unwrap();
            assert_eq!(&two, b"78");
            other.read_exact(&mut two).unwrap();
            assert_eq!(&two, b"01");
            assert_eq!(one.read(&mut two).unwrap(), 1);
            assert_eq!(one.read(&mut two).unwrap(), 0);
            assert!(one.seek(SeekFrom::Current(-11)).is_err());
            assert_eq!(one.seek(SeekFrom::Start(99)).unwrap(), 99);
            assert_eq!(one.read(&mut two).unwrap(), 0);
        }
    }
}
