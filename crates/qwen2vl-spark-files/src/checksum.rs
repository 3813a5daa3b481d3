//! The checksums that Hadoop's local file system keeps beside each file: `.NAME.crc`.
//!
//! Magic bytes `crc\0`, the number of bytes in a chunk, then a CRC-32 for each chunk, big-endian. Follows
//! `org.apache.hadoop.fs.ChecksumFileSystem` of Hadoop 3.3.

use std::io::{self, Read, Write};

use flate2::Crc;

use crate::{Error, Reason};

const MAGIC: &[u8] = b"crc\0";
const HEADER_BYTES: usize = 8;

/// The name of the side file of `name`: `part-00000` has `.part-00000.crc`.
pub fn side_file_name(name: &str) -> String {
    format!(".{name}.crc")
}

/// The checksums of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checksums {
    chunk_bytes: u32,
    sums: Vec<u32>,
}

impl Checksums {
    /// Parses a side file's content.
    ///
    /// # Errors
    ///
    /// If it does not have the form of one.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let Some((header, sums)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
            let (what, needed) = ("the header of a checksum file", HEADER_BYTES as u64);
            return Err(Error::new(0, Reason::Truncated { what, needed, left: bytes.len() as u64 }));
        };
        let (magic, chunk_bytes) = header.split_at(MAGIC.len());
        if magic != MAGIC {
            let (format, found) = ("Hadoop checksum file", magic.to_vec());
            return Err(Error::new(0, Reason::NotThisFormat { format, expected: MAGIC, found }));
        }
        let chunk_bytes = chunk_bytes.iter().fold(0, |value, byte| value << 8 | i32::from(*byte));
        if chunk_bytes <= 0 {
            let (what, allowed) = ("the number of bytes to a checksum", "1 or more");
            let reason = Reason::OutOfRange { what, found: chunk_bytes.into(), allowed };
            return Err(Error::new(MAGIC.len() as u64, reason));
        }
        let (sums, rest) = sums.as_chunks::<4>();
        if !rest.is_empty() {
            let offset = (bytes.len() - rest.len()) as u64;
            let (what, left) = ("a checksum", rest.len() as u64);
            return Err(Error::new(offset, Reason::Truncated { what, needed: 4, left }));
        }
        let sums = sums.iter().map(|sum| u32::from_be_bytes(*sum)).collect();
        Ok(Self { chunk_bytes: chunk_bytes.unsigned_abs(), sums })
    }

    /// Wraps a reader so that the bytes read are checked, and at the end their number.
    pub fn verify<R: Read>(&self, reader: R) -> Verifying<'_, R> {
        Verifying { reader, verifier: Some(Verifier::new(self)) }
    }
}

/// Checks a file's bytes, given piece by piece, against its checksums.
#[derive(Debug)]
pub struct Verifier<'a> {
    checksums: &'a Checksums,
    /// Bytes before the chunk at hand.
    start: u64,
    /// Checksums used.
    n_used: usize,
    /// Of the chunk at hand.
    crc: Crc,
    in_chunk: u32,
}

impl<'a> Verifier<'a> {
    /// A verifier at the start of the file.
    pub fn new(checksums: &'a Checksums) -> Self {
        Self { checksums, start: 0, n_used: 0, crc: Crc::new(), in_chunk: 0 }
    }

    /// Bytes that were given so far.
    pub fn offset(&self) -> u64 {
        self.start + u64::from(self.in_chunk)
    }

    /// Takes the next bytes of the file.
    ///
    /// # Errors
    ///
    /// If a chunk is complete and its checksum differs, or if there are more bytes than checksums; the offset is the
    /// chunk's.
    pub fn update(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
        while !bytes.is_empty() {
            let room = (self.checksums.chunk_bytes - self.in_chunk) as usize;
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.crc.update(now);
            self.in_chunk += now.len() as u32;
            bytes = later;
            if self.in_chunk == self.checksums.chunk_bytes {
                self.end_chunk()?;
            }
        }
        Ok(())
    }

    fn end_chunk(&mut self) -> Result<(), Error> {
        let Some(expected) = self.checksums.sums.get(self.n_used).copied() else {
            return Err(self.wrong_length());
        };
        let (found, length) = (self.crc.sum(), u64::from(self.in_chunk));
        if found != expected {
            return Err(Error::new(self.start, Reason::Checksum { length, expected, found }));
        }
        self.n_used += 1;
        self.start += length;
        self.in_chunk = 0;
        self.crc.reset();
        Ok(())
    }

    fn wrong_length(&self) -> Error {
        let expected = self.checksums.sums.len() as u64 * u64::from(self.checksums.chunk_bytes);
        let found = self.offset();
        Error::new(found.min(expected), Reason::ChecksumLength { expected, found })
    }

    /// Ends the file.
    ///
    /// # Errors
    ///
    /// If the last chunk's checksum differs, or there are checksums left.
    pub fn finish(mut self) -> Result<(), Error> {
        if self.in_chunk > 0 {
            self.end_chunk()?;
        }
        if self.n_used < self.checksums.sums.len() {
            return Err(self.wrong_length());
        }
        Ok(())
    }
}

/// Errors are an [`Error`] within an [`io::Error`] of the kind `InvalidData`.
impl Write for Verifier<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.update(bytes).map_err(invalid_data)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn invalid_data(error: Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// A reader whose bytes are checked while they are read; see [`Checksums::verify`].
///
/// Errors are an [`Error`] within an [`io::Error`] of the kind `InvalidData`; the other readers of this crate take it
/// out again. A chunk's bytes may be handed out before the chunk is complete and checked.
#[derive(Debug)]
pub struct Verifying<'a, R> {
    reader: R,
    /// None after the end.
    verifier: Option<Verifier<'a>>,
}

impl<R: Read> Read for Verifying<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.reader.read(buffer)?;
        if n > 0 {
            if let Some(verifier) = &mut self.verifier {
                verifier.update(&buffer[..n]).map_err(invalid_data)?;
            }
        } else if !buffer.is_empty()
            && let Some(verifier) = self.verifier.take()
        {
            verifier.finish().map_err(invalid_data)?;
        }
        Ok(n)
    }
}
