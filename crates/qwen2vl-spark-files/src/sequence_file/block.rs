//! Blocks of a block-compressed file: four buffers, each compressed on its own.

use std::io::Read;

use super::codec::Inflater;
use super::input::{Input, checked_length, truncated, var_int_length};
use super::records::read_block_sync;
use super::{Limits, Record};
use crate::{Error, Reason};

/// The records of a block that have not been handed out yet.
#[derive(Debug, Default)]
pub(super) struct Block {
    offset: u64,
    left: u64,
    key_lengths: Buffer,
    keys: Buffer,
    value_lengths: Buffer,
    values: Buffer,
}

/// An inflated buffer, read from front to back.
#[derive(Debug, Default)]
struct Buffer {
    name: &'static str,
    /// Where its compressed bytes start in the file.
    offset: u64,
    bytes: Vec<u8>,
    at: usize,
}

/// The next block, or none at the end of the file.
pub(super) fn read<R: Read>(
    input: &mut Input<R>,
    sync: &[u8; 16],
    inflater: &mut Inflater,
    limits: &Limits,
) -> Result<Option<Block>, Error> {
    let offset = input.offset();
    if !read_block_sync(input, sync)? {
        return Ok(None);
    }
    let count_at = input.offset();
    let count = input.var_int("the number of records in a block")?;
    // Not used for memory: a record takes a byte in each buffer of lengths.
    let left = checked_length(count_at, "the number of records in a block", count, i32::MAX as u64)?;
    let mut buffer = |name| read_buffer(input, inflater, limits, name);
    let block = Block {
        offset,
        left,
        key_lengths: buffer("the key lengths of a block")?,
        keys: buffer("the keys of a block")?,
        value_lengths: buffer("the value lengths of a block")?,
        values: buffer("the values of a block")?,
    };
    if left == 0 {
        block.check_end()?;
    }
    Ok(Some(block))
}

fn read_buffer<R: Read>(
    input: &mut Input<R>,
    inflater: &mut Inflater,
    limits: &Limits,
    name: &'static str,
) -> Result<Buffer, Error> {
    let length = input.var_length(name, limits.max_record_bytes)?;
    let offset = input.offset();
    let compressed = input.bytes(name, length)?;
    let bytes = inflater.inflate(offset, name, &compressed)?;
    Ok(Buffer { name, offset, bytes, at: 0 })
}

impl Block {
    pub fn is_empty(&self) -> bool {
        self.left == 0
    }

    /// The next record; none if all were taken.
    pub fn next_record(&mut self) -> Option<Result<Record, Error>> {
        self.left = self.left.checked_sub(1)?;
        Some(self.take_record())
    }

    fn take_record(&mut self) -> Result<Record, Error> {
        let key_length = self.key_lengths.var_length("the length of a key")?;
        let key = self.keys.take("a key", key_length)?.to_vec();
        let value_length = self.value_lengths.var_length("the length of a value")?;
        let value = self.values.take("a value", value_length)?.to_vec();
        if self.left == 0 {
            self.check_end()?;
        }
        Ok(Record { offset: self.offset, value_offset: None, key, value })
    }

    fn check_end(&self) -> Result<(), Error> {
        [&self.key_lengths, &self.keys, &self.value_lengths, &self.values]
            .into_iter()
            .try_for_each(Buffer::check_end)
    }
}

impl Buffer {
    fn error(&self, at: usize, reason: Reason) -> Error {
        Error::new(self.offset, Reason::Inflated { offset: at as u64, reason: Box::new(reason) })
    }

    fn take(&mut self, what: &'static str, length: u64) -> Result<&[u8], Error> {
        let left = (self.bytes.len() - self.at) as u64;
        if length > left {
            return Err(self.error(self.at, truncated(0, what, length, left).reason));
        }
        let start = self.at;
        self.at += length as usize;
        Ok(&self.bytes[start..self.at])
    }

    fn var_length(&mut self, what: &'static str) -> Result<u64, Error> {
        let start = self.at;
        let first = self.take(what, 1)?[0] as i8;
        let value = match var_int_length(first) {
            None => i64::from(first),
            Some((length, negative)) => {
                let bytes = self.take(what, length.into())?;
                let value = bytes.iter().fold(0_u64, |value, byte| value << 8 | u64::from(*byte)) as i64;
                if negative { !value } else { value }
            }
        };
        checked_length(0, what, value, i32::MAX as u64).map_err(|e| self.error(start, e.reason))
    }

    fn check_end(&self) -> Result<(), Error> {
        match (self.bytes.len() - self.at) as u64 {
            0 => Ok(()),
            left => Err(self.error(self.at, Reason::Trailing { what: self.name, left })),
        }
    }
}
