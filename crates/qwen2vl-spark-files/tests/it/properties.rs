//! Any bytes: no panic, limits hold; and what the writer writes is read back.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use qwen2vl_spark_files::checksum::Checksums;
use qwen2vl_spark_files::ml_metadata::Metadata;
use qwen2vl_spark_files::object_stream::{Array, Elements, Limits, Parser, Value, parse};
use qwen2vl_spark_files::sequence_file::{self, SequenceFile};
use qwen2vl_spark_files::{object_file, object_stream};

use crate::writer::{Codec, File, Pair};
use crate::{java_streams, spark};

/// Reads a SequenceFile to its end; the bytes of the largest record.
fn read_file(bytes: &[u8], limits: sequence_file::Limits) -> usize {
    let Ok(file) = SequenceFile::open_with(bytes, limits) else { return 0 };
    let mut largest = 0;
    for record in file {
        match record {
            Ok(record) => largest = largest.max(record.key.len()).max(record.value.len()),
            Err(e) => assert!(e.offset <= bytes.len() as u64, "{e}"),
        }
    }
    largest
}

/// The height of a value's tree; goes through shared parts once only by its nature of a bounded height and few values.
fn height(value: &Value, left: &mut u32) -> u32 {
    if *left == 0 {
        return 0;
    }
    *left -= 1;
    match value {
        Value::Array(array) => 1 + elements(array).iter().map(|v| height(v, left)).max().unwrap_or(0),
        Value::Object(object) => 1 + object.fields().map(|(_, v)| height(v, left)).max().unwrap_or(0),
        _ => 0,
    }
}

fn elements(array: &Array) -> &[Value] {
    match array.elements() {
        Elements::Values(values) => values,
        _ => &[],
    }
}

fn read_stream(bytes: &[u8]) {
    let mut limits = Limits::default();
    limits.max_depth = 20;
    limits.max_values = 5000;
    match Parser::new(bytes).with_limits(limits).parse() {
        Ok(value) => {
            assert!(height(&value, &mut 10_000) <= 20);
            let _ =
                (format!("{value:?}"), value.describe(), value.as_tuple(), value.as_option(), value.as_int());
        }
        Err(e) => assert!(e.offset <= bytes.len() as u64, "{e}"),
    }
}

fn real_files() -> Vec<Vec<u8>> {
    spark::files().into_iter().map(|(_, bytes)| bytes).filter(|bytes| bytes.len() < 1000).collect()
}

fn tiny() -> sequence_file::Limits {
    sequence_file::Limits::default().with_max_bytes(10_000)
}

#[derive(Debug, Clone)]
enum Change {
    Set(Index, u8),
    Flip(Index, u8),
    Cut(Index),
    Remove(Index),
    Insert(Index, Vec<u8>),
    Copy(Index, Index, usize),
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let index = any::<Index>;
    let change = prop_oneof![
        3 => (index(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        3 => (index(), 0_u8..8).prop_map(|(at, bit)| Change::Flip(at, bit)),
        1 => index().prop_map(Change::Cut),
        1 => index().prop_map(Change::Remove),
        1 => (index(), vec(any::<u8>(), 1..8)).prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        1 => (index(), index(), 1_usize..40).prop_map(|(from, to, length)| Change::Copy(from, to, length)),
    ];
    vec(change, 1..6)
}

fn changed(mut bytes: Vec<u8>, changes: &[Change]) -> Vec<u8> {
    for change in changes {
        if bytes.is_empty() {
            break;
        }
        let n = bytes.len();
        match change {
            Change::Set(at, byte) => bytes[at.index(n)] = *byte,
            Change::Flip(at, bit) => bytes[at.index(n)] ^= 1 << bit,
            Change::Cut(at) => bytes.truncate(at.index(n)),
            Change::Remove(at) => drop(bytes.remove(at.index(n))),
            Change::Insert(at, more) => drop(bytes.splice(at.index(n)..at.index(n), more.iter().copied())),
            Change::Copy(from, to, length) => {
                let from = from.index(n);
                let piece = bytes[from..n.min(from + length)].to_vec();
                bytes.splice(to.index(n)..to.index(n), piece);
            }
        }
    }
    bytes
}

fn pairs() -> impl Strategy<Value = Vec<Pair>> {
    vec((vec(any::<u8>(), 0..20), vec(any::<u8>(), 0..300)), 0..30)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_bytes_are_refused_or_read(bytes in vec(any::<u8>(), 0..400)) {
        prop_assert!(read_file(&bytes, tiny()) <= 10_000);
        read_stream(&bytes);
        read_stream(&[b"\xac\xed\x00\x05".as_slice(), &bytes].concat());
        let _ = Metadata::parse(&bytes);
        let _ = Checksums::parse(&bytes);
        let _ = Checksums::parse(&[b"crc\0\0\0\x00\x09".as_slice(), &bytes].concat());
    }

    #[test]
    fn any_records_after_a_header(codec in select(vec![None, Some(Codec::Zlib), Some(Codec::Gzip)]),
                                  block in any::<bool>(), bytes in vec(any::<u8>(), 0..400)) {
        let mut file = File::new(6, codec, block && codec.is_some(), &[]);
        file.bytes.extend(bytes);
        prop_assert!(read_file(&file.bytes, tiny()) <= 10_000);
    }

    #[test]
    fn changed_files(file in select(real_files()), changes in changes()) {
        let bytes = changed(file, &changes);
        prop_assert!(read_file(&bytes, tiny()) <= 10_000);
        for element in object_file::elements_with(bytes.as_slice(), tiny(), object_stream::Limits::default()) {
            if let Err(e) = element {
                prop_assert!(e.offset <= bytes.len() as u64, "{}", e);
            }
        }
    }

    #[test]
    fn changed_streams(stream in select(java_streams::streams()), changes in changes()) {
        read_stream(&changed(stream, &changes));
    }

    #[test]
    fn files_read_back(version in 4_u8..=6, codec in select(vec![None, Some(Codec::Zlib), Some(Codec::Gzip)]),
                       block in any::<bool>(), pairs in pairs(), spacing in 1_usize..10,
                       metadata in vec((".{0,9}", ".{0,9}"), 0..4)) {
        let codec = codec.filter(|codec| version > 4 || *codec == Codec::Zlib);
        let mut file = File::new(version, codec, block && codec.is_some(), &metadata);
        for group in pairs.chunks(spacing) {
            if block && codec.is_some() {
                file.block(group);
            } else {
                group.iter().for_each(|(key, value)| file.record(key, value));
                file.sync();
            }
        }
        let mut opened = SequenceFile::open(file.bytes.as_slice()).unwrap();
        prop_assert_eq!(&opened.header().metadata[..], if version == 6 { &metadata[..] } else { &[] });
        let read: Vec<_> = opened.by_ref().map(|r| r.map(|r| (r.key, r.value))).collect::<Result<_, _>>().unwrap();
        prop_assert_eq!(read, pairs);
    }

    #[test]
    fn cut_files_are_errors_or_end_between_records(pairs in pairs(), cut in any::<Index>()) {
        let mut file = File::new(6, None, false, &[]);
        let mut ends = vec![file.bytes.len()];
        for (key, value) in &pairs {
            file.record(key, value);
            ends.push(file.bytes.len());
        }
        let cut = cut.index(file.bytes.len() + 1);
        let bytes = &file.bytes[..cut];
        let read: Result<Vec<_>, _> = SequenceFile::open(bytes).and_then(Iterator::collect);
        match read {
            Ok(records) => prop_assert_eq!(ends.iter().position(|end| *end == cut), Some(records.len())),
            Err(_) => prop_assert!(!ends.contains(&cut)),
        }
    }

    #[test]
    fn strings_read_back(text in ".{0,200}") {
        // Java's encoding, from the UTF-16 that its strings are.
        let mut bytes = Vec::new();
        for unit in text.encode_utf16() {
            match unit {
                1..0x80 => bytes.push(unit as u8),
                0 | 0x80..0x800 => bytes.extend([0xc0 | (unit >> 6) as u8, 0x80 | (unit & 0x3f) as u8]),
                _ => bytes.extend([0xe0 | (unit >> 12) as u8, 0x80 | (unit >> 6 & 0x3f) as u8, 0x80 | (unit & 0x3f) as u8]),
            }
        }
        let length = (bytes.len() as u16).to_be_bytes();
        let value = parse(&[b"\xac\xed\x00\x05t".as_slice(), &length, &bytes].concat()).unwrap();
        prop_assert_eq!(value.as_str(), Some(text.as_str()));
    }

    #[test]
    fn checksums_of_any_bytes(bytes in vec(any::<u8>(), 0..200), size in 1_u32..50, spoil in any::<Index>()) {
        let sum = |chunk: &[u8]| { let mut crc = flate2::Crc::new(); crc.update(chunk); crc.sum() };
        let sums: Vec<u8> = bytes.chunks(size as usize).flat_map(|chunk| sum(chunk).to_be_bytes()).collect();
        let side = Checksums::parse(&[b"crc\0".as_slice(), &size.to_be_bytes(), &sums].concat()).unwrap();
        let read = |bytes: &[u8]| std::io::copy(&mut side.verify(bytes), &mut std::io::sink());
        prop_assert_eq!(read(&bytes).unwrap(), bytes.len() as u64);
        if !bytes.is_empty() {
            let mut spoilt = bytes.clone();
            spoilt[spoil.index(bytes.len())] ^= 0x80;
            prop_assert!(read(&spoilt).is_err());
        }
    }
}
