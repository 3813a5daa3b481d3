//! The two codecs: zlib and gzip streams, several after each other included, as Hadoop's decompressors read them.

use flate2::{Decompress, FlushDecompress, Status};

use super::input::truncated;
use crate::{Error, Reason};

/// Window of every zlib and gzip stream, as a power of two.
const WINDOW_BITS: u8 = 15;
/// Every stream costs a set-up; more than a few only come from files that were joined.
const MAX_STREAMS: u64 = 4096;
/// How far the output grows at first.
const CHUNK: usize = 32 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Zlib,
    Gzip,
}

impl Format {
    pub fn class(self) -> &'static str {
        match self {
            Self::Zlib => "org.apache.hadoop.io.compress.DefaultCodec",
            Self::Gzip => "org.apache.hadoop.io.compress.GzipCodec",
        }
    }

    pub fn of_class(name: &str) -> Option<Self> {
        [Self::Zlib, Self::Gzip].into_iter().find(|format| format.class() == name)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Zlib => "zlib",
            Self::Gzip => "gzip",
        }
    }
}

/// Inflates one buffer after the other.
#[derive(Debug)]
pub(super) struct Inflater {
    format: Format,
    limit: u64,
    state: Decompress,
}

impl Inflater {
    pub fn new(format: Format, limit: u64) -> Self {
        let state = match format {
            Format::Zlib => Decompress::new(true),
            Format::Gzip => Decompress::new_gzip(WINDOW_BITS),
        };
        Self { format, limit, state }
    }

    /// Inflates all of `data`, which start at `offset` of the file.
    pub fn inflate(&mut self, offset: u64, what: &'static str, data: &[u8]) -> Result<Vec<u8>, Error> {
        let mut output = Vec::new();
        let mut done = 0;
        let mut n_streams = 0;
        loop {
            done += self.inflate_stream(offset + done as u64, what, &data[done..], &mut output)?;
            n_streams += 1;
            if done == data.len() {
                return Ok(output);
            }
            if n_streams == MAX_STREAMS {
                let what = "compressed streams after each other";
                let reason = Reason::Limit { what, found: MAX_STREAMS + 1, limit: MAX_STREAMS };
                return Err(Error::new(offset + done as u64, reason));
            }
        }
    }

    /// One stream, appended to `output`; the number of bytes it took.
    fn inflate_stream(
        &mut self,
        offset: u64,
        what: &'static str,
        data: &[u8],
        output: &mut Vec<u8>,
    ) -> Result<usize, Error> {
        self.state.reset(true);
        loop {
            let done = self.state.total_in() as usize;
            let room = self.limit.saturating_add(1).saturating_sub(output.len() as u64);
            if room == 0 {
                let reason = Reason::Limit { what, found: self.limit + 1, limit: self.limit };
                return Err(Error::new(offset, reason));
            }
            // Twice as much each time, but never more than one byte over the limit.
            output.reserve_exact(room.min(output.len().max(CHUNK) as u64) as usize);
            let before = output.len();
            let status = self.state.decompress_vec(&data[done..], output, FlushDecompress::None);
            let progress = output.len() > before || self.state.total_in() as usize > done;
            match status {
                Ok(Status::StreamEnd) if output.len() as u64 <= self.limit => {
                    return Ok(self.state.total_in() as usize);
                }
                // Over the limit: said at the top of the loop.
                Ok(_) if progress => {}
                Ok(_) => return Err(truncated(offset, what, data.len() as u64 + 1, data.len() as u64)),
                Err(e) => {
                    let reason = Reason::Inflate { what, format: self.format.name(), message: e.to_string() };
                    return Err(Error::new(offset + self.state.total_in(), reason));
                }
            }
        }
    }
}
