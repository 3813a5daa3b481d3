//! A position in the bytes of a stream.

use crate::{Error, Reason};

#[derive(Debug, Clone)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Where the bytes start in whatever they come from.
    base: u64,
}

impl<'a> Cursor<'a> {
    pub fn new(bytes: &'a [u8], base: u64) -> Self {
        Self { bytes, at: 0, base }
    }

    pub fn offset(&self) -> u64 {
        self.base.saturating_add(self.at as u64)
    }

    pub fn set_base(&mut self, base: u64) {
        self.base = base;
    }

    /// Takes one byte back.
    pub fn back(&mut self) {
        self.at -= 1;
    }

    pub fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    pub fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    pub fn take(&mut self, what: &'static str, length: u64) -> Result<&'a [u8], Error> {
        let left = self.left() as u64;
        if length > left {
            return Err(Error::new(self.offset(), Reason::Truncated { what, needed: length, left }));
        }
        let start = self.at;
        self.at += length as usize;
        Ok(&self.bytes[start..self.at])
    }

    pub fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], Error> {
        let bytes = self.take(what, N as u64)?;
        Ok(bytes.try_into().expect("take gives as many bytes as asked for"))
    }

    pub fn u8(&mut self, what: &'static str) -> Result<u8, Error> {
        self.array(what).map(|[byte]| byte)
    }

    pub fn u16(&mut self, what: &'static str) -> Result<u16, Error> {
        self.array(what).map(u16::from_be_bytes)
    }

    pub fn i32(&mut self, what: &'static str) -> Result<i32, Error> {
        self.array(what).map(i32::from_be_bytes)
    }

    pub fn u64(&mut self, what: &'static str) -> Result<u64, Error> {
        self.array(what).map(u64::from_be_bytes)
    }

    /// `count` numbers of `N` bytes, which are there before memory is taken for them.
    pub fn list<const N: usize, T>(
        &mut self,
        count: usize,
        convert: fn([u8; N]) -> T,
    ) -> Result<Vec<T>, Error> {
        let bytes = self.take("the elements of an array", count as u64 * N as u64)?;
        Ok(bytes.as_chunks().0.iter().map(|bytes| convert(*bytes)).collect())
    }

    /// An `i32` that counts something, from 0 to `limit`.
    pub fn count(&mut self, what: &'static str, limit: usize) -> Result<usize, Error> {
        let offset = self.offset();
        let found = i64::from(self.i32(what)?);
        let Ok(count) = usize::try_from(found) else {
            return Err(Error::new(offset, Reason::OutOfRange { what, found, allowed: "0 or more" }));
        };
        if count > limit {
            return Err(Error::new(offset, Reason::Limit { what, found: count as u64, limit: limit as u64 }));
        }
        Ok(count)
    }
}
