//! A small writer of SequenceFiles, made from the format's description and not from the reader.

use std::io::Write;

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};

/// Key and value.
pub type Pair = (Vec<u8>, Vec<u8>);

pub const SYNC: [u8; 16] = *b"sixteen sync byt";
pub const DEFAULT_CODEC: &str = "org.apache.hadoop.io.compress.DefaultCodec";
pub const GZIP_CODEC: &str = "org.apache.hadoop.io.compress.GzipCodec";

/// How a file is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    Zlib,
    Gzip,
}

impl Codec {
    pub fn class(self) -> &'static str {
        match self {
            Self::Zlib => DEFAULT_CODEC,
            Self::Gzip => GZIP_CODEC,
        }
    }

    pub fn compress(self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Self::Zlib => {
                let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap()
            }
            Self::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap()
            }
        }
    }
}

/// A Hadoop `VLong`.
pub fn var_int(value: i64) -> Vec<u8> {
    if (-112..=127).contains(&value) {
        return vec![value as u8];
    }
    let magnitude = if value < 0 { !value } else { value } as u64;
    let bytes: Vec<u8> = magnitude.to_be_bytes().into_iter().skip_while(|b| *b == 0).collect();
    let first = if value < 0 { -120 } else { -112 } - bytes.len() as i64;
    [vec![first as u8], bytes].concat()
}

pub fn text(text: &str) -> Vec<u8> {
    [var_int(text.len() as i64), text.as_bytes().to_vec()].concat()
}

/// A file that is being written.
#[derive(Debug, Clone)]
pub struct File {
    pub bytes: Vec<u8>,
    codec: Option<Codec>,
}

impl File {
    pub fn new(version: u8, codec: Option<Codec>, block: bool, metadata: &[(String, String)]) -> Self {
        Self::of_classes(version, ["K", "V"], codec, block, metadata)
    }

    pub fn of_classes(
        version: u8,
        [key, value]: [&str; 2],
        codec: Option<Codec>,
        block: bool,
        metadata: &[(String, String)],
    ) -> Self {
        let mut bytes = [b"SEQ", [version].as_slice(), &text(key), &text(value)].concat();
        bytes.extend([u8::from(codec.is_some()), u8::from(block)]);
        if let Some(codec) = codec
            && version >= 5
        {
            bytes.extend(text(codec.class()));
        }
        if version >= 6 {
            bytes.extend((metadata.len() as i32).to_be_bytes());
            for (key, value) in metadata {
                bytes.extend([text(key), text(value)].concat());
            }
        }
        bytes.extend(SYNC);
        Self { bytes, codec }
    }

    /// What Spark's object files are.
    pub fn of_objects() -> Self {
        let classes = ["org.apache.hadoop.io.NullWritable", "org.apache.hadoop.io.BytesWritable"];
        Self::of_classes(6, classes, None, false, &[])
    }

    pub fn sync(&mut self) {
        self.bytes.extend([0xff; 4]);
        self.bytes.extend(SYNC);
    }

    pub fn record(&mut self, key: &[u8], value: &[u8]) {
        let value = self.codec.map_or_else(|| value.to_vec(), |codec| codec.compress(value));
        self.stored_record(key, &value);
    }

    /// A record whose value is compressed already.
    pub fn stored_record(&mut self, key: &[u8], value: &[u8]) {
        self.bytes.extend(((key.len() + value.len()) as i32).to_be_bytes());
        self.bytes.extend((key.len() as i32).to_be_bytes());
        self.bytes.extend([key, value].concat());
    }

    /// A record of an object file.
    pub fn object(&mut self, stream: &[u8]) {
        self.record(&[], &[&(stream.len() as i32).to_be_bytes(), stream].concat());
    }

    pub fn block(&mut self, records: &[Pair]) {
        let codec = self.codec.expect("blocks are compressed");
        let lengths = |of: fn(&Pair) -> &Vec<u8>| {
            records.iter().flat_map(|r| var_int(of(r).len() as i64)).collect::<Vec<u8>>()
        };
        let all = |of: fn(&Pair) -> &Vec<u8>| records.iter().flat_map(|r| of(r).clone()).collect::<Vec<u8>>();
        let buffers = [lengths(|r| &r.0), all(|r| &r.0), lengths(|r| &r.1), all(|r| &r.1)];
        self.block_of(records.len() as i64, buffers.map(|buffer| codec.compress(&buffer)));
    }

    /// A block of compressed buffers.
    pub fn block_of(&mut self, count: i64, buffers: [Vec<u8>; 4]) {
        self.sync();
        self.bytes.extend(var_int(count));
        for buffer in buffers {
            self.bytes.extend([var_int(buffer.len() as i64), buffer].concat());
        }
    }
}
