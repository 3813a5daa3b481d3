//! A reader that knows its position and never allocates more than it has read.

use std::io::{BufReader, ErrorKind, Read};

use crate::{Error, Reason};

/// What is reserved before the first byte of a buffer has been read.
const FIRST_CAPACITY: u64 = 64 << 10;

const BUFFER_BYTES: usize = 64 << 10;

#[derive(Debug)]
pub(super) struct Input<R> {
    reader: BufReader<R>,
    offset: u64,
}

impl<R: Read> Input<R> {
    pub fn new(reader: R) -> Self {
        Self { reader: BufReader::with_capacity(BUFFER_BYTES, reader), offset: 0 }
    }

    /// Where the next byte lies.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Fills `buffer`; the number of bytes is smaller only at the end of the file.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.reader.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(Error::io(self.offset + filled as u64, e)),
            }
        }
        self.offset += filled as u64;
        Ok(filled)
    }

    pub fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], Error> {
        let start = self.offset;
        self.array_or_end(what)?.ok_or_else(|| truncated(start, what, N as u64, 0))
    }

    /// None if the file ends before the first byte.
    pub fn array_or_end<const N: usize>(&mut self, what: &'static str) -> Result<Option<[u8; N]>, Error> {
        let start = self.offset;
        let mut bytes = [0; N];
        match self.fill(&mut bytes)? {
            0 => Ok(None),
            n if n < N => Err(truncated(start, what, N as u64, n as u64)),
            _ => Ok(Some(bytes)),
        }
    }

    pub fn byte(&mut self, what: &'static str) -> Result<u8, Error> {
        self.array::<1>(what).map(|[byte]| byte)
    }

    pub fn i32(&mut self, what: &'static str) -> Result<i32, Error> {
        self.array(what).map(i32::from_be_bytes)
    }

    /// `length` bytes. The buffer grows as they are really there, whatever `length` says.
    pub fn bytes(&mut self, what: &'static str, length: u64) -> Result<Vec<u8>, Error> {
        let start = self.offset;
        let mut bytes = Vec::with_capacity(length.min(FIRST_CAPACITY) as usize);
        let read = (&mut self.reader).take(length).read_to_end(&mut bytes);
        self.offset += bytes.len() as u64;
        read.map_err(|e| Error::io(self.offset, e))?;
        match bytes.len() as u64 {
            n if n < length => Err(truncated(start, what, length, n)),
            _ => Ok(bytes),
        }
    }

    /// A Hadoop `VInt` or `VLong`: one byte from −112 to 127, else a byte that tells sign and length and 1 to 8 more.
    pub fn var_int(&mut self, what: &'static str) -> Result<i64, Error> {
        let first = self.byte(what)? as i8;
        let (length, negative) = match var_int_length(first) {
            None => return Ok(i64::from(first)),
            Some(form) => form,
        };
        let mut value = 0_u64;
        for _ in 0..length {
            value = value << 8 | u64::from(self.byte(what)?);
        }
        Ok(if negative { !(value as i64) } else { value as i64 })
    }

    /// A length or count as `VInt`, between 0 and `limit`.
    pub fn var_length(&mut self, what: &'static str, limit: u64) -> Result<u64, Error> {
        let start = self.offset;
        let value = self.var_int(what)?;
        checked_length(start, what, value, limit)
    }

    /// A Hadoop string: a `VInt` of bytes, then UTF-8.
    pub fn text(&mut self, what: &'static str, limit: u64) -> Result<String, Error> {
        let length = self.var_length(what, limit)?;
        let start = self.offset;
        String::from_utf8(self.bytes(what, length)?).map_err(|e| {
            let offset = start + e.utf8_error().valid_up_to() as u64;
            Error::new(
                offset,
                Reason::Text { what, encoding: "UTF-8", problem: "a byte that cannot stand there" },
            )
        })
    }
}

/// Bytes that follow the first one of a `VInt`, and whether it is negative; none if the byte is the number.
pub(super) fn var_int_length(first: i8) -> Option<(u32, bool)> {
    match i32::from(first) {
        -112.. => None,
        n @ -120.. => Some(((-112 - n) as u32, false)),
        n => Some(((-120 - n) as u32, true)),
    }
}

pub(super) fn checked_length(offset: u64, what: &'static str, value: i64, limit: u64) -> Result<u64, Error> {
    let length = u64::try_from(value)
        .map_err(|_| Error::new(offset, Reason::OutOfRange { what, found: value, allowed: "0 or more" }))?;
    if length > limit {
        return Err(Error::new(offset, Reason::Limit { what, found: length, limit }));
    }
    Ok(length)
}

pub(super) fn truncated(offset: u64, what: &'static str, needed: u64, left: u64) -> Error {
    Error::new(offset, Reason::Truncated { what, needed, left })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn var_ints_of_every_length() {
        let cases: &[(&[u8], i64)] = &[
            (&[0], 0),
            (&[127], 127),
            (&[0x90], -112),
            (&[0x8f, 0x80], 128),
            (&[0x8f, 0xff], 255),
            (&[0x8e, 0x01, 0x00], 256),
            (&[0x8d, 0x80, 0x40, 0x2d], 8_405_037),
            (&[0x88, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], i64::MAX),
            (&[0x87, 0x70], -113),
            (&[0x87, 0xff], -256),
            (&[0x85, 0x80, 0x40, 0x2d], -8_405_038),
            (&[0x80, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], i64::MIN),
        ];
        for (bytes, want) in cases {
            let mut input = Input::new(*bytes);
            assert_eq!(input.var_int("it").unwrap(), *want, "{bytes:x?}");
            assert_eq!(input.offset(), bytes.len() as u64);
            for cut in 0..bytes.len() {
                let error = Input::new(&bytes[..cut]).var_int("it").unwrap_err();
                assert_eq!(error.offset, cut as u64, "{bytes:x?} cut to {cut}");
            }
        }
    }

    #[test]
    fn a_buffer_grows_with_the_data_not_with_the_length() {
        let error = Input::new(&b"abc"[..]).bytes("a record", 1 << 40).unwrap_err();
        assert_eq!(
            error.to_string(),
            "at byte 0: the data end within a record: 1099511627776 bytes needed, 3 left; the file is truncated or \
             damaged"
        );
    }
}
