//! SequenceFiles, rule by rule.

use qwen2vl_spark_files::sequence_file::{Compression, Limits, SequenceFile};
use qwen2vl_spark_files::{Error, Reason};

use crate::writer::{Codec, DEFAULT_CODEC, File, GZIP_CODEC, Pair, SYNC, text, var_int};

/// Keys and values up to the first error, which comes last.
fn read(bytes: &[u8], limits: Limits) -> (Vec<Pair>, Option<Error>) {
    let mut pairs = Vec::new();
    let mut file = match SequenceFile::open_with(bytes, limits) {
        Ok(file) => file,
        Err(e) => return (pairs, Some(e)),
    };
    while let Some(record) = file.next() {
        match record {
            Ok(record) => pairs.push((record.key, record.value)),
            Err(e) => {
                assert!(file.next().is_none(), "nothing comes after an error");
                return (pairs, Some(e));
            }
        }
    }
    assert!(file.next().is_none(), "nothing comes after the end");
    (pairs, None)
}

fn pair(key: &str, value: &str) -> Pair {
    (key.as_bytes().to_vec(), value.as_bytes().to_vec())
}

fn some_pairs() -> Vec<Pair> {
    vec![pair("a", "one"), pair("", ""), pair("key", &"long ".repeat(50_000)), pair("z", "")]
}

#[test]
fn every_version_codec_and_compression() {
    let mut n_files = 0;
    for version in 4..=6 {
        for codec in [None, Some(Codec::Zlib), Some(Codec::Gzip)] {
            for block in [false, true] {
                if (block && codec.is_none()) || (version == 4 && codec == Some(Codec::Gzip)) {
                    continue;
                }
                let metadata = [("by".to_owned(), "hand".to_owned()), (String::new(), "é".repeat(100))];
                let mut file = File::new(version, codec, block, &metadata);
                if block {
                    file.block(&some_pairs()[..3]);
                    file.block(&[]);
                    file.block(&some_pairs()[3..]);
                } else {
                    some_pairs().iter().for_each(|(key, value)| file.record(key, value));
                }
                let (pairs, error) = read(&file.bytes, Limits::default());
                assert!(error.is_none(), "{version} {codec:?} {block}: {error:?}");
                assert!(pairs == some_pairs(), "{version} {codec:?} {block}");
                let opened = SequenceFile::open(file.bytes.as_slice()).unwrap();
                let header = opened.header();
                assert_eq!(header.version, version);
                assert_eq!((header.key_class.as_str(), header.value_class.as_str()), ("K", "V"));
                let metadata = if version == 6 { metadata.to_vec() } else { Vec::new() };
                assert_eq!(header.metadata, metadata);
                let compression = match (codec, block) {
                    (None, _) => Compression::None,
                    (_, false) => Compression::Record,
                    (_, true) => Compression::Block,
                };
                assert_eq!(header.compression, compression);
                assert_eq!(header.codec.as_deref(), codec.map(Codec::class));
                assert_eq!(header.sync, SYNC);
                n_files += 1;
            }
        }
    }
    assert_eq!(n_files, 13);
}

#[test]
fn sync_markers_at_any_spacing() {
    let mut file = File::new(6, None, false, &[]);
    file.sync();
    file.record(b"a", b"1");
    file.record(b"b", b"2");
    file.sync();
    file.sync();
    file.record(b"c", b"3");
    file.sync();
    let (pairs, error) = read(&file.bytes, Limits::default());
    assert!(error.is_none(), "{error:?}");
    assert_eq!(pairs, [pair("a", "1"), pair("b", "2"), pair("c", "3")]);

    let mut file = File::new(6, Some(Codec::Zlib), false, &[]);
    file.sync();
    file.record(b"a", b"1");
    file.sync();
    assert_eq!(read(&file.bytes, Limits::default()).0, [pair("a", "1")]);
}

#[test]
fn offsets_of_records() {
    let mut file = File::new(6, None, false, &[]);
    let start = file.bytes.len() as u64;
    file.record(b"key", b"1");
    file.sync();
    file.record(b"", b"2");
    let records: Vec<_> = SequenceFile::open(file.bytes.as_slice()).unwrap().map(Result::unwrap).collect();
    let offsets: Vec<_> = records.iter().map(|record| (record.offset, record.value_offset)).collect();
    assert_eq!(offsets, [(start, Some(start + 11)), (start + 12 + 20, Some(start + 12 + 20 + 8))]);
}

#[test]
fn streams_after_each_other_are_one() {
    for codec in [Codec::Zlib, Codec::Gzip] {
        let mut file = File::new(6, Some(codec), false, &[]);
        let streams = [codec.compress(b"one "), codec.compress(b""), codec.compress(b"two")];
        file.stored_record(b"", &streams.concat());
        let (pairs, error) = read(&file.bytes, Limits::default());
        assert!(error.is_none(), "{codec:?}: {error:?}");
        assert_eq!(pairs, [pair("", "one two")]);
    }
}

/// A header without records, as far as wanted.
fn header(version: u8, flags: &[u8], rest: &[u8]) -> Vec<u8> {
    [b"SEQ", [version].as_slice(), &text("K"), &text("V"), flags, rest].concat()
}

struct Bad {
    name: &'static str,
    bytes: Vec<u8>,
    error: &'static str,
}

fn bad(name: &'static str, bytes: Vec<u8>, error: &'static str) -> Bad {
    Bad { name, bytes, error }
}

fn check(cases: Vec<Bad>, limits: Limits) {
    let mut problems = Vec::new();
    for Bad { name, bytes, error } in cases {
        match read(&bytes, limits).1 {
            None => problems.push(format!("{name}: no error")),
            Some(got) if got.to_string() == error => {}
            Some(got) => problems.push(format!("{name}:\n  got  {got}\n  want {error}")),
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn bad_headers() {
    let zero_pairs = 0_i32.to_be_bytes();
    let codec = |name: &str| header(6, &[1, 0], &text(name));
    check(
        vec![
            bad(
                "empty",
                vec![],
                "at byte 0: the data end within the magic bytes of a SequenceFile: 3 bytes needed, 0 \
                 left; the file is truncated or damaged",
            ),
            bad(
                "magic",
                b"PK\x03\x04".to_vec(),
                "at byte 0: no Hadoop SequenceFile: it starts with [50, 4b, 03] \
                 instead of [53, 45, 51]",
            ),
            bad(
                "version 3",
                b"SEQ\x03".to_vec(),
                "at byte 3: version 3 of the Hadoop SequenceFile is not supported; supported: 4 to 6",
            ),
            bad(
                "version 7",
                b"SEQ\x07".to_vec(),
                "at byte 3: version 7 of the Hadoop SequenceFile is not supported; supported: 4 to 6",
            ),
            bad(
                "no class",
                b"SEQ\x06".to_vec(),
                "at byte 4: the data end within the class of the keys: 1 bytes \
                 needed, 0 left; the file is truncated or damaged",
            ),
            bad(
                "negative class",
                [b"SEQ\x06", var_int(-1).as_slice()].concat(),
                "at byte 4: the class of the keys is \
                 -1; allowed is 0 or more",
            ),
            bad(
                "huge class",
                [b"SEQ\x06", var_int(1 << 40).as_slice()].concat(),
                "at byte 4: the class of the keys: \
                 1099511627776 where the limit is 65535; raise the limit if the file can be trusted",
            ),
            bad(
                "class that is no text",
                b"SEQ\x06\x03ab\xff".to_vec(),
                "at byte 7: the class of the keys is not \
                 UTF-8: a byte that cannot stand there",
            ),
            bad("flag", header(6, &[2], &[]), "at byte 8: the flag for compression is 2; allowed is 0 and 1"),
            bad(
                "block flag",
                header(6, &[1, 9], &[]),
                "at byte 9: the flag for block compression is 9; allowed is 0 \
                 and 1",
            ),
            bad(
                "blocks without compression",
                header(6, &[0, 1], &[]),
                "at byte 9: the flag for block compression is \
                 1; allowed is 0 where the flag for compression is 0",
            ),
            bad(
                "snappy",
                codec("org.apache.hadoop.io.compress.SnappyCodec"),
                "at byte 10: the codec \
                 org.apache.hadoop.io.compress.SnappyCodec is not supported; supported: DefaultCodec and GzipCodec of \
                 org.apache.hadoop.io.compress",
            ),
            bad(
                "bzip2",
                codec("org.apache.hadoop.io.compress.BZip2Codec"),
                "at byte 10: the codec \
                 org.apache.hadoop.io.compress.BZip2Codec is not supported; supported: DefaultCodec and GzipCodec of \
                 org.apache.hadoop.io.compress",
            ),
            bad(
                "codec of another package",
                codec("com.example.GzipCodec"),
                "at byte 10: the codec \
                 com.example.GzipCodec is not supported; supported: DefaultCodec and GzipCodec of \
                 org.apache.hadoop.io.compress",
            ),
            bad(
                "negative metadata",
                header(6, &[0, 0], &(-1_i32).to_be_bytes()),
                "at byte 10: the number of metadata \
                 pairs is -1; allowed is 0 or more",
            ),
            bad(
                "much metadata",
                header(6, &[0, 0], &4097_i32.to_be_bytes()),
                "at byte 10: the number of metadata \
                 pairs: 4097 where the limit is 4096; raise the limit if the file can be trusted",
            ),
            bad(
                "missing metadata",
                header(6, &[0, 0], &1_i32.to_be_bytes()),
                "at byte 14: the data end within a key \
                 of the metadata: 1 bytes needed, 0 left; the file is truncated or damaged",
            ),
            bad(
                "large metadata",
                header(6, &[0, 0], &[&1_i32.to_be_bytes(), text("k").as_slice(), &var_int(1 << 20)].concat()),
                "at byte 16: a value of the metadata: 1048576 where the limit is 1048574; raise the limit if the file \
                 can be trusted",
            ),
            bad(
                "short sync",
                header(6, &[0, 0], &[zero_pairs.as_slice(), &SYNC[..15]].concat()),
                "at byte 14: the \
                 data end within the sync marker: 16 bytes needed, 15 left; the file is truncated or damaged",
            ),
            bad(
                "short sync of version 5",
                header(5, &[0, 0], &SYNC[..3]),
                "at byte 10: the data end within the sync \
                 marker: 16 bytes needed, 3 left; the file is truncated or damaged",
            ),
        ],
        Limits::default(),
    );
}

/// The header of a file without compression has 30 bytes, a record of it starts there.
fn plain(records: &[u8]) -> Vec<u8> {
    let mut file = File::new(6, None, false, &[]);
    assert_eq!(file.bytes.len(), 30);
    file.bytes.extend(records);
    file.bytes
}

#[test]
fn bad_records() {
    let be = |number: i32| number.to_be_bytes();
    let mut good = File::new(6, None, false, &[]);
    good.record(b"k", b"value");
    let with = |more: &[u8]| [good.bytes.as_slice(), more].concat();
    let wrong_sync = [0xff; 20];
    check(
        vec![
            bad(
                "half a length",
                with(&[0, 0]),
                "at byte 44: the data end within the length of a record: 4 bytes \
                 needed, 2 left; the file is truncated or damaged",
            ),
            bad(
                "negative length",
                plain(&be(-2)),
                "at byte 30: the length of a record is -2; allowed is 0 or more",
            ),
            bad(
                "long record",
                plain(&be(64 * 1024 * 1024 + 1)),
                "at byte 30: the length of a record: 67108865 where \
                 the limit is 67108864; raise the limit if the file can be trusted",
            ),
            bad(
                "no key length",
                plain(&be(4)),
                "at byte 34: the data end within the length of a key: 4 bytes needed, \
                 0 left; the file is truncated or damaged",
            ),
            bad(
                "negative key",
                plain(&[be(4), be(-1)].concat()),
                "at byte 34: the length of a key is -1; allowed is 0 \
                 to the length of its record",
            ),
            bad(
                "key longer than the record",
                plain(&[be(4), be(5)].concat()),
                "at byte 34: the length of a key is 5; \
                 allowed is 0 to the length of its record",
            ),
            bad(
                "short key",
                plain(&[&be(9), be(3).as_slice(), b"ab"].concat()),
                "at byte 38: the data end within a \
                 key: 3 bytes needed, 2 left; the file is truncated or damaged",
            ),
            bad(
                "short value",
                plain(&[&be(9), be(2).as_slice(), b"abcdef"].concat()),
                "at byte 40: the data end \
                 within a value: 7 bytes needed, 4 left; the file is truncated or damaged",
            ),
            bad(
                "other sync",
                with(&wrong_sync),
                "at byte 48: the sync marker is [ff, ff, ff, ff, ff, ff, ff, ff, ff, \
                 ff, ff, ff, ff, ff, ff, ff], the header's is [73, 69, 78, 74, 65, 65, 6e, 20, 73, 79, 6e, 63, 20, 62, \
                 79, 74]; the file is damaged",
            ),
            bad(
                "short sync",
                with(&wrong_sync[..10]),
                "at byte 48: the data end within a sync marker: 16 bytes \
                 needed, 6 left; the file is truncated or damaged",
            ),
        ],
        Limits::default(),
    );
}

#[test]
fn bad_compressed_values() {
    let limits = Limits::default().with_max_bytes(1000);
    let file = |codec, value: &[u8]| {
        let mut file = File::new(6, Some(codec), false, &[]);
        file.stored_record(b"", value);
        file.bytes
    };
    // Headers: 30 bytes and the codec's name with its length; 8 bytes until the value.
    let zlib_at = 30 + 1 + DEFAULT_CODEC.len() + 8;
    let gzip_at = 30 + 1 + GZIP_CODEC.len() + 8;
    assert_eq!((zlib_at, gzip_at), (81, 78));
    let zlib = Codec::Zlib.compress(b"some bytes");
    let gzip = Codec::Gzip.compress(b"some bytes");
    let spoilt = |bytes: &[u8], from_end: usize| {
        let mut bytes = bytes.to_vec();
        let at = bytes.len() - from_end;
        bytes[at] ^= 1;
        bytes
    };
    check(
        vec![
            bad(
                "nothing",
                file(Codec::Zlib, b""),
                "at byte 81: the data end within a compressed value: 1 bytes \
                 needed, 0 left; the file is truncated or damaged",
            ),
            bad(
                "cut zlib",
                file(Codec::Zlib, &zlib[..zlib.len() - 1]),
                "at byte 81: the data end within a compressed \
                 value: 18 bytes needed, 17 left; the file is truncated or damaged",
            ),
            bad(
                "cut gzip",
                file(Codec::Gzip, &gzip[..gzip.len() - 1]),
                "at byte 78: the data end within a compressed \
                 value: 30 bytes needed, 29 left; the file is truncated or damaged",
            ),
            bad(
                "limit",
                file(Codec::Zlib, &Codec::Zlib.compress(&[7; 1001])),
                "at byte 81: a compressed value: 1001 \
                 where the limit is 1000; raise the limit if the file can be trusted",
            ),
            bad(
                "bomb",
                file(Codec::Gzip, &Codec::Gzip.compress(&[0; 100_000])),
                "at byte 78: a compressed value: 1001 \
                 where the limit is 1000; raise the limit if the file can be trusted",
            ),
        ],
        limits,
    );
    // The words of the inflater are its own.
    let cases = [
        ("no zlib", file(Codec::Zlib, b"plain"), 81),
        ("gzip as zlib", file(Codec::Zlib, &gzip), 81),
        ("zlib as gzip", file(Codec::Gzip, &zlib), 78),
        ("wrong Adler-32", file(Codec::Zlib, &spoilt(&zlib, 1)), 81),
        ("wrong CRC-32", file(Codec::Gzip, &spoilt(&gzip, 5)), 78),
        ("wrong length", file(Codec::Gzip, &spoilt(&gzip, 1)), 78),
        ("more after it", file(Codec::Zlib, &[&zlib, b"more".as_slice()].concat()), 81 + zlib.len() as u64),
    ];
    for (name, bytes, at) in cases {
        let error = read(&bytes, limits).1.expect(name);
        assert!(
            matches!(error.reason, Reason::Inflate { what: "a compressed value", .. }),
            "{name}: {error}"
        );
        assert!(error.offset >= at && error.offset <= bytes.len() as u64, "{name}: {error}");
    }
    let (pairs, error) = read(&file(Codec::Zlib, &Codec::Zlib.compress(&[7; 1000])), limits);
    assert!(error.is_none() && pairs[0].1 == [7; 1000], "as much as the limit is not too much: {error:?}");
}

#[test]
fn streams_after_each_other_have_a_limit() {
    let mut file = File::new(6, Some(Codec::Zlib), false, &[]);
    file.stored_record(b"", &Codec::Zlib.compress(b"").repeat(4096));
    assert!(read(&file.bytes, Limits::default()).1.is_none());
    let mut file = File::new(6, Some(Codec::Zlib), false, &[]);
    file.stored_record(b"", &Codec::Zlib.compress(b"").repeat(4097));
    let error = read(&file.bytes, Limits::default()).1.unwrap();
    assert!(matches!(error.reason, Reason::Limit { found: 4097, limit: 4096, .. }), "{error}");
}

#[test]
fn bad_blocks() {
    let zlib = |bytes: &[u8]| Codec::Zlib.compress(bytes);
    // The header has 73 bytes; a block's count lies at 93, its first buffer's length after that.
    let block = |count: i64, buffers: [&[u8]; 4]| {
        let mut file = File::new(6, Some(Codec::Zlib), true, &[]);
        assert_eq!(file.bytes.len(), 73);
        file.block_of(count, buffers.map(zlib));
        file.bytes
    };
    let raw = |bytes: &[u8]| [File::new(6, Some(Codec::Zlib), true, &[]).bytes, bytes.to_vec()].concat();
    let escape = [[0xff; 4].as_slice(), &SYNC].concat();
    check(
        vec![
            bad("no escape", raw(&[0, 0, 0, 1]), "at byte 73: the escape before a block is 1; allowed is -1"),
            bad(
                "negative count",
                block(-1, [b"", b"", b"", b""]),
                "at byte 93: the number of records in a block is \
                 -1; allowed is 0 or more",
            ),
            bad(
                "huge count",
                block(1 << 31, [b"", b"", b"", b""]),
                "at byte 93: the number of records in a block: \
                 2147483648 where the limit is 2147483647; raise the limit if the file can be trusted",
            ),
            bad(
                "long buffer",
                raw(&[&escape, [1].as_slice(), &var_int((64 << 20) + 1)].concat()),
                "at byte 94: the \
                 key lengths of a block: 67108865 where the limit is 67108864; raise the limit if the file can be \
                 trusted",
            ),
            bad(
                "short buffer",
                raw(&[&escape, [1].as_slice(), &var_int(10), b"abc"].concat()),
                "at byte 95: the data \
                 end within the key lengths of a block: 10 bytes needed, 3 left; the file is truncated or damaged",
            ),
            bad(
                "count above the lengths",
                block(2, [&[0], b"", &[0], b""]),
                "at byte 95: inside the compressed data \
                 that start there, at their byte 1: the data end within the length of a key: 1 bytes needed, 0 left; \
                 the file is truncated or damaged",
            ),
            bad(
                "count below the lengths",
                block(1, [&[0, 0], b"", &[0, 0], b""]),
                "at byte 95: inside the compressed \
                 data that start there, at their byte 1: 1 bytes are left after the key lengths of a block",
            ),
            bad(
                "keys too short",
                block(1, [&[3], b"ab", &[0], b""]),
                "at byte 105: inside the compressed data that \
                 start there, at their byte 0: the data end within a key: 3 bytes needed, 2 left; the file is \
                 truncated or damaged",
            ),
            bad(
                "values too long",
                block(1, [&[0], b"", &[1], b"ab"]),
                "at byte 124: inside the compressed data that \
                 start there, at their byte 1: 1 bytes are left after the values of a block",
            ),
            bad(
                "bytes in an empty block",
                block(0, [b"", b"", b"", b"x"]),
                "at byte 122: inside the compressed data \
                 that start there, at their byte 0: 1 bytes are left after the values of a block",
            ),
            bad(
                "negative length",
                block(1, [&[0xff], b"", &[0], b""]),
                "at byte 95: inside the compressed data that \
                 start there, at their byte 0: the length of a key is -1; allowed is 0 or more",
            ),
        ],
        Limits::default(),
    );
}

/// Fails after the bytes it has.
struct Failing<'a>(&'a [u8]);

impl std::io::Read for Failing<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self.0.read(buffer)? {
            0 => Err(std::io::Error::other("the disk is gone")),
            n => Ok(n),
        }
    }
}

#[test]
fn errors_of_the_reader_keep_their_words_and_have_an_offset() {
    let mut file = File::new(6, None, false, &[]);
    file.record(b"k", b"value");
    for length in [0, 10, 30, 32, 41, file.bytes.len()] {
        let result = SequenceFile::open(Failing(&file.bytes[..length]));
        let error = result.map_or_else(Some, |file| file.filter_map(Result::err).next()).unwrap();
        assert_eq!(error.to_string(), format!("at byte {length}: cannot read: the disk is gone"));
        assert!(matches!(error.reason, Reason::Io { .. }));
    }
}
