//! What hostile files cost in memory. A program of its own, because it measures all allocations.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use peak_alloc::PeakAlloc;
use qwen2vl_spark_files::sequence_file::{Limits, SequenceFile};
use qwen2vl_spark_files::{Reason, object_stream};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

const MIB: usize = 1 << 20;

type Run = Box<dyn FnOnce()>;

fn peak_of(run: impl FnOnce()) -> usize {
    MEMORY.reset_peak_usage();
    let before = MEMORY.current_usage();
    run();
    MEMORY.peak_usage() - before
}

/// A SequenceFile with this after its header; flags as given.
fn file(flags: [u8; 2], after: &[&[u8]]) -> Vec<u8> {
    let codec: &[u8] = if flags[0] == 1 { b"\x27org.apache.hadoop.io.compress.GzipCodec" } else { b"" };
    [b"SEQ\x06\x01K\x01V", flags.as_slice(), codec, &[0; 4], &[7; 16], &after.concat()].concat()
}

fn read(bytes: &[u8], limits: Limits) {
    let file = SequenceFile::open_with(bytes, limits).unwrap();
    assert!(file.last().unwrap().is_err());
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn stream(parts: &[&[u8]]) -> Vec<u8> {
    [b"\xac\xed\x00\x05", parts.concat().as_slice()].concat()
}

const OBJECTS: &[u8] = b"\x75\x72\x00\x13[Ljava.lang.Object;\x90\xce\x58\x9f\x10\x73\x29\x6c\x02\x00\x00xp";

/// An array class with these elements of the type of the first.
fn numbers(class: &[u8], count: i32, elements: &[u8]) -> Vec<u8> {
    stream(&[b"\x75\x72\x00\x02", class, &[0; 8], b"\x02\x00\x00xp", &count.to_be_bytes(), elements])
}

#[test]
fn nothing_is_allocated_for_what_is_not_there() {
    let length = (60 * MIB as i32).to_be_bytes();
    let long_string = [b"\x7c".as_slice(), &[0, 0, 0, 0, 0x40, 0, 0, 0]].concat();
    // Arrays within each other, each with as many elements as bytes are left at most.
    let inner = [b"\x75\x71\x00\x7e\x00\x00".as_slice(), &900_i32.to_be_bytes()].concat();
    let nested = stream(&[OBJECTS, &900_i32.to_be_bytes(), &inner.repeat(100), &[b'p'; 900]]);
    // Objects within each other of a class with 30,000 fields, of which the first is the next object.
    let fields = b"L\x00\x00\x71\x00\x7e\x00\x01".repeat(29_999);
    let class =
        [b"\x72\x00\x01C\0\0\0\0\0\0\0\0\x02\x75\x30L\x00\x00\x74\x00\x01X".as_slice(), &fields, b"xp"]
            .concat();
    let wide = stream(&[b"s", &class, &b"sq\x00\x7e\x00\x00".repeat(127)]);
    let bomb = gzip(&vec![0; 100 * MIB]);
    let record = |value: &[u8]| [(value.len() as i32).to_be_bytes().as_slice(), &[0; 4], value].concat();
    let bomb = file([1, 0], &[&record(&bomb)]);
    let block = file([1, 1], &[&[0xff; 4], &[7; 16], b"\x8c\x7f\xff\xff\xff\x14", &gzip(b"")]);

    let records = |bytes: Vec<u8>| Box::new(move || read(&bytes, Limits::default().with_max_bytes(60 << 20)));
    let limited = |bytes: Vec<u8>| Box::new(move || read(&bytes, Limits::default().with_max_bytes(1 << 20)));
    let objects = |bytes: Vec<u8>| {
        Box::new(move || {
            let error = object_stream::parse(&bytes).unwrap_err();
            assert!(matches!(error.reason, Reason::Truncated { .. }), "{error}");
        })
    };
    let cases: Vec<(&str, Run, usize)> = vec![
        ("record", records(file([0, 0], &[&length, &[0; 4]])), MIB / 2),
        ("compressed record", records(file([1, 0], &[&length, &[0; 4], b"abc"])), MIB / 2),
        ("key", records(file([0, 0], &[&length, &length])), MIB / 2),
        ("block", records(block), MIB / 2),
        ("bomb", limited(bomb), 5 * MIB / 2),
        ("int[]", objects(numbers(b"[I", 10_000_000, &[0; 100])), MIB / 2),
        ("double[]", objects(numbers(b"[D", 10_000_000, &[0; 100])), MIB / 2),
        ("string", objects(stream(&[&long_string, b"abc"])), MIB / 2),
        ("nested arrays", objects(nested), MIB / 2),
        ("wide objects", objects(wide), 4 * MIB),
    ];
    let mut problems = Vec::new();
    for (name, run, limit) in cases {
        let peak = peak_of(run);
        if peak > limit {
            problems.push(format!("{name} takes {peak} bytes, more than {limit}"));
        }
    }

    // The most that the default limits allow: values as small as they come, in as many bytes as it takes.
    let many = |element: &[u8], count: usize| {
        stream(&[
            OBJECTS,
            &(count as i32 + 1).to_be_bytes(),
            b"sr\x00\x01C\0\0\0\0\0\0\0\0\x02\x00\x00xp",
            &element.repeat(count),
        ])
    };
    let most = (1 << 20) - 2;
    for (name, element) in
        [("nulls", b"p".as_slice()), ("objects", b"sq\x00\x7e\x00\x02"), ("texts", b"t\x00\x01x")]
    {
        let bytes = many(element, most);
        let peak = peak_of(|| drop(object_stream::parse(&bytes).unwrap()));
        println!("{most} {name}: {peak} bytes");
        if peak > 200 * MIB {
            problems.push(format!("{name} take {peak} bytes"));
        }
        assert!(object_stream::parse(&many(element, most + 1)).is_err());
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}
