//! The header: version, classes, compression, metadata, sync marker.

use std::io::Read;

use super::codec::Format;
use super::input::Input;
use crate::{Error, Reason};

const MAGIC: &[u8] = b"SEQ";
/// Since this version a codec is named; before, it is the default one.
const VERSION_WITH_CODEC: u8 = 5;
const VERSION_WITH_METADATA: u8 = 6;

/// Class names are far shorter; Java allows no more.
const MAX_TEXT_BYTES: u64 = 65_535;
const MAX_METADATA_PAIRS: u64 = 4096;
const MAX_METADATA_BYTES: u64 = 1 << 20;

/// How the records are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// Each value on its own; keys are not compressed.
    Record,
    /// Many records together: lengths of keys, keys, lengths of values, values.
    Block,
}

/// What the file says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Header {
    /// 4 to 6.
    pub version: u8,
    /// Java class of the keys.
    pub key_class: String,
    /// Java class of the values.
    pub value_class: String,
    /// How the records are compressed.
    pub compression: Compression,
    /// Java class of the codec if compressed. Version 4 names none; it is `DefaultCodec` then.
    pub codec: Option<String>,
    /// Pairs of the metadata block, in the file's order; empty before version 6.
    pub metadata: Vec<(String, String)>,
    /// The marker that stands between records now and then.
    pub sync: [u8; 16],
}

pub(super) fn read<R: Read>(input: &mut Input<R>) -> Result<(Header, Option<Format>), Error> {
    let version = read_version(input)?;
    let key_class = input.text("the class of the keys", MAX_TEXT_BYTES)?;
    let value_class = input.text("the class of the values", MAX_TEXT_BYTES)?;
    let compression = read_compression(input)?;
    let codec = match compression {
        Compression::None => None,
        _ => Some(read_codec(input, version)?),
    };
    let metadata = if version >= VERSION_WITH_METADATA { read_metadata(input)? } else { Vec::new() };
    let sync = input.array("the sync marker")?;
    let (codec, format) = codec.unzip();
    Ok((Header { version, key_class, value_class, compression, codec, metadata, sync }, format))
}

fn read_version<R: Read>(input: &mut Input<R>) -> Result<u8, Error> {
    let magic: [u8; 3] = input.array("the magic bytes of a SequenceFile")?;
    if magic != MAGIC {
        let reason =
            Reason::NotThisFormat { format: "Hadoop SequenceFile", expected: MAGIC, found: magic.to_vec() };
        return Err(Error::new(0, reason));
    }
    let version = input.byte("the version")?;
    if !(4..=6).contains(&version) {
        let reason =
            Reason::Version { format: "Hadoop SequenceFile", found: version.into(), supported: "4 to 6" };
        return Err(Error::new(MAGIC.len() as u64, reason));
    }
    Ok(version)
}

fn read_compression<R: Read>(input: &mut Input<R>) -> Result<Compression, Error> {
    let compressed = read_flag(input, "the flag for compression")?;
    let start = input.offset();
    let block = read_flag(input, "the flag for block compression")?;
    match (compressed, block) {
        (false, false) => Ok(Compression::None),
        (true, false) => Ok(Compression::Record),
        (true, true) => Ok(Compression::Block),
        (false, true) => {
            let what = "the flag for block compression";
            let allowed = "0 where the flag for compression is 0";
            Err(Error::new(start, Reason::OutOfRange { what, found: 1, allowed }))
        }
    }
}

fn read_flag<R: Read>(input: &mut Input<R>, what: &'static str) -> Result<bool, Error> {
    let start = input.offset();
    match input.byte(what)? {
        0 => Ok(false),
        1 => Ok(true),
        found => Err(Error::new(start, Reason::OutOfRange { what, found: found.into(), allowed: "0 and 1" })),
    }
}

fn read_codec<R: Read>(input: &mut Input<R>, version: u8) -> Result<(String, Format), Error> {
    if version < VERSION_WITH_CODEC {
        return Ok((Format::Zlib.class().to_owned(), Format::Zlib));
    }
    let start = input.offset();
    let name = input.text("the class of the codec", MAX_TEXT_BYTES)?;
    match Format::of_class(&name) {
        Some(format) => Ok((name, format)),
        None => {
            let supported = "DefaultCodec and GzipCodec of org.apache.hadoop.io.compress";
            Err(Error::new(start, Reason::Unsupported { what: "the codec", name, supported }))
        }
    }
}

fn read_metadata<R: Read>(input: &mut Input<R>) -> Result<Vec<(String, String)>, Error> {
    let start = input.offset();
    let what = "the number of metadata pairs";
    let count = i64::from(input.i32(what)?);
    let count = super::input::checked_length(start, what, count, MAX_METADATA_PAIRS)?;
    let first = input.offset();
    let mut pairs = Vec::new();
    for _ in 0..count {
        let mut text = |what| {
            let used = input.offset() - first;
            input.text(what, MAX_METADATA_BYTES.saturating_sub(used))
        };
        pairs.push((text("a key of the metadata")?, text("a value of the metadata")?));
    }
    Ok(pairs)
}
