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
        Window { bytes: self, start: 0, len: self.len(), at: 0 }
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

/// A reader of a part of [`Bytes`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window<'a> {
    bytes: &'a Bytes<'a>,
    start: u64,
    len: u64,
    at: u64,
}

impl<'a> Window<'a> {
    /// A reader of `len` bytes from `start` of this one; fewer where this one ends before.
    pub fn part(&self, start: u64, len: u64) -> Window<'a> {
        let start = start.min(self.len);
        Window { bytes: self.bytes, start: self.start + start, len: len.min(self.len - start), at: 0 }
    }

    pub fn len(&self) -> u64 {
        self.len
    }
}

impl Read for Window<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.len.saturating_sub(self.at);
        let n = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.bytes.read_at(&mut buffer[..n], self.start + self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

impl Seek for Window<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.at = seek(to, self.at, self.len)?;
        Ok(self.at)
    }
}

/// The place that `to` names in `len` bytes, from `at`.
pub(super) fn seek(to: SeekFrom, at: u64, len: u64) -> io::Result<u64> {
    let (from, by) = match to {
        SeekFrom::Start(at) => return Ok(at),
        SeekFrom::End(by) => (len, by),
        SeekFrom::Current(by) => (at, by),
    };
    from.checked_add_signed(by).ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_read_their_part_of_files_and_memory() {
        let path = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&path, b"0123456789").unwrap();
        for bytes in [Bytes::Memory(b"0123456789"), Bytes::of_file(path.reopen().unwrap()).unwrap()] {
            let mut window = bytes.window().part(2, 5);
            let mut text = String::new();
            window.read_to_string(&mut text).unwrap();
            assert_eq!((text.as_str(), window.len()), ("23456", 5));
            assert_eq!(window.seek(SeekFrom::End(-2)).unwrap(), 3);
            let mut two = [0; 4];
            assert_eq!(window.read(&mut two).unwrap(), 2);
            assert_eq!(&two[..2], b"56");
            assert!(window.seek(SeekFrom::Current(-9)).is_err());
            assert_eq!(window.seek(SeekFrom::Start(99)).unwrap(), 99);
            assert_eq!(window.read(&mut two).unwrap(), 0);
            assert_eq!(bytes.window().part(8, 99).len(), 2);
            assert_eq!(bytes.window().part(99, 1).len(), 0);
        }
    }
}
