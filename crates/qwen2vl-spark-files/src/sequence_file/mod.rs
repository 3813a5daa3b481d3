//! Hadoop SequenceFiles, versions 4 to 6: keys and values as bytes.
//!
//! Uncompressed, record-compressed and block-compressed, with `DefaultCodec` (zlib) or `GzipCodec`; any other codec is
//! refused by its class name. What the bytes of a key or value mean (`Writable` classes) is the caller's matter.
//! Follows `org.apache.hadoop.io.SequenceFile.Reader` of Hadoop 3.3, except that it refuses what that one overlooks:
//! a sync marker that stops in the middle, flags other than 0 and 1, strings that are not UTF-8, bytes left over.
//!
//! No buffer is larger than what the file really holds, and none larger than [`Limits`] allow.

mod block;
mod codec;
mod header;
mod input;
mod records;

use std::io::Read;

use crate::Error;
use block::Block;
use codec::Inflater;
use input::Input;

pub use header::{Compression, Header};

/// How much of a file is read at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes of one record, or of one compressed buffer of a block, as stored.
    pub max_record_bytes: u64,
    /// Bytes of one inflated value, or of one inflated buffer of a block.
    pub max_inflated_bytes: u64,
}

impl Default for Limits {
    /// 64 MiB each.
    fn default() -> Self {
        Self { max_record_bytes: 64 << 20, max_inflated_bytes: 64 << 20 }
    }
}

impl Limits {
    /// The same limits with another size of records, stored and inflated.
    pub fn with_max_bytes(mut self, bytes: u64) -> Self {
        self.max_record_bytes = bytes;
        self.max_inflated_bytes = bytes;
        self
    }
}

/// One key and value.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Record {
    /// Where the record starts in the file; in a block-compressed file, where its block starts.
    pub offset: u64,
    /// Where the value's bytes start in the file; none if they are compressed.
    pub value_offset: Option<u64>,
    /// The key as its `Writable` wrote it.
    pub key: Vec<u8>,
    /// The value as its `Writable` wrote it, inflated.
    pub value: Vec<u8>,
}

/// A reader of the records of one file; an iterator that ends after the first error.
///
/// ```
/// use qwen2vl_spark_files::sequence_file::{Compression, SequenceFile};
///
/// let mut file = b"SEQ\x06\x01K\x01V\x00\x00\x00\x00\x00\x00".to_vec(); // version, classes, flags, no metadata
/// file.extend([7; 16]); // sync marker
/// file.extend(b"\x00\x00\x00\x05\x00\x00\x00\x02keyed"); // 5 bytes, 2 of them the key
/// let mut file = SequenceFile::open(file.as_slice())?;
/// assert_eq!(file.header().compression, Compression::None);
/// let record = file.next().unwrap()?;
/// assert_eq!((record.key.as_slice(), record.value.as_slice()), (&b"ke"[..], &b"yed"[..]));
/// assert!(file.next().is_none());
/// # Ok::<(), qwen2vl_spark_files::Error>(())
/// ```
#[derive(Debug)]
pub struct SequenceFile<R> {
    input: Input<R>,
    header: Header,
    limits: Limits,
    inflater: Option<Inflater>,
    block: Block,
    failed: bool,
}

impl<R: Read> SequenceFile<R> {
    /// Reads the header. The reader need not be buffered.
    ///
    /// # Errors
    ///
    /// If the header is damaged, or its version or codec is not supported.
    pub fn open(reader: R) -> Result<Self, Error> {
        Self::open_with(reader, Limits::default())
    }

    /// The same with other limits.
    ///
    /// # Errors
    ///
    /// As [`SequenceFile::open`].
    pub fn open_with(reader: R, limits: Limits) -> Result<Self, Error> {
        let mut input = Input::new(reader);
        let (header, format) = header::read(&mut input)?;
        let inflater = format.map(|format| Inflater::new(format, limits.max_inflated_bytes));
        Ok(Self { input, header, limits, inflater, block: Block::default(), failed: false })
    }

    /// What the file says about itself.
    pub fn header(&self) -> &Header {
        &self.header
    }

    fn read_next(&mut self) -> Result<Option<Record>, Error> {
        if self.header.compression != Compression::Block {
            return records::read(&mut self.input, &self.header.sync, self.inflater.as_mut(), &self.limits);
        }
        let Some(inflater) = self.inflater.as_mut() else { return Ok(None) };
        while self.block.is_empty() {
            match block::read(&mut self.input, &self.header.sync, inflater, &self.limits)? {
                Some(block) => self.block = block,
                None => return Ok(None),
            }
        }
        self.block.next_record().transpose()
    }
}

impl<R: Read> Iterator for SequenceFile<R> {
    type Item = Result<Record, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let next = self.read_next().transpose();
        // After an error the position means nothing; after the end there is nothing.
        self.failed = !matches!(next, Some(Ok(_)));
        next
    }
}
