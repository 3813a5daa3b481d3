//! Object files: SequenceFiles of object streams.

use qwen2vl_spark_files::object_file::{elements, elements_with};
use qwen2vl_spark_files::object_stream::Value;
use qwen2vl_spark_files::{object_stream, sequence_file};

use crate::writer::{Codec, File};

/// `new int[] {1, 2}` and so on.
fn ints(ints: &[i32]) -> Vec<u8> {
    let mut stream = b"\xac\xed\x00\x05ur\x00\x02[I\x4d\xba\x60\x26\x76\xea\xb2\xa5\x02\x00\x00xp".to_vec();
    stream.extend((ints.len() as i32).to_be_bytes());
    stream.extend(ints.iter().flat_map(|i| i.to_be_bytes()));
    stream
}

const TEXT: &[u8] = b"\xac\xed\x00\x05t\x00\x02hi";

#[test]
fn elements_of_many_records_are_one_sequence() {
    let mut file = File::of_objects();
    let header = file.bytes.len() as u64;
    assert_eq!(header, 95);
    for group in [[1, 2].as_slice(), &[], &[3], &[4, 5, 6]] {
        file.object(&ints(group));
        file.sync();
    }
    let mut reader = elements(file.bytes.as_slice());
    let mut got = Vec::new();
    while let Some(element) = reader.next() {
        got.push((element.unwrap().as_int().unwrap(), reader.record_offset()));
    }
    let record = |n_before: u64, n_ints: u64| 95 + n_before * (12 + 27 + 20) + n_ints * 4;
    let want = [
        (1, record(0, 0)),
        (2, record(0, 0)),
        (3, record(2, 2)),
        (4, record(3, 3)),
        (5, record(3, 3)),
        (6, record(3, 3)),
    ];
    assert_eq!(got, want);
    assert!(reader.next().is_none());
}

#[test]
fn a_partition_without_elements() {
    assert_eq!(elements(File::of_objects().bytes.as_slice()).count(), 0);
}

#[test]
fn errors_with_their_place_in_the_file() {
    let null = "org.apache.hadoop.io.NullWritable";
    let bytes = "org.apache.hadoop.io.BytesWritable";
    let of_classes = |classes| File::of_classes(6, classes, None, false, &[]);
    let with = |key: &[u8], value: &[u8]| {
        let mut file = File::of_objects();
        file.record(key, value);
        file
    };
    let object = |stream: &[u8]| {
        let mut file = File::of_objects();
        file.object(stream);
        file
    };
    let compressed = |stream: &[u8]| {
        let mut file = File::of_classes(6, [null, bytes], Some(Codec::Gzip), false, &[]);
        file.object(stream);
        file
    };
    let cases = [
        (
            of_classes(["org.apache.hadoop.io.Text", bytes]),
            "at byte 4: the class of the keys org.apache.hadoop.io.Text is not supported; supported: \
          org.apache.hadoop.io.NullWritable, as saveAsObjectFile writes it",
        ),
        (
            of_classes([null, "org.apache.hadoop.io.Text"]),
            "at byte 38: the class of the values org.apache.hadoop.io.Text is not supported; supported: \
          org.apache.hadoop.io.BytesWritable, as saveAsObjectFile writes it",
        ),
        (with(b"key", &[0; 4]), "at byte 95: 3 bytes are left after a NullWritable"),
        (
            with(b"", &[0; 3]),
            "at byte 103: the data end within the length of a BytesWritable: 4 bytes needed, 3 left; \
                              the file is truncated or damaged",
        ),
        (
            with(b"", &[0, 0, 0, 2, 1]),
            "at byte 103: the length of a BytesWritable is 2; allowed is what its record has",
        ),
        (
            with(b"", &[0xff; 4]),
            "at byte 103: the length of a BytesWritable is -1; allowed is what its record has",
        ),
        (
            object(b"\xac\xed\x00\x04"),
            "at byte 109: version 4 of the Java object stream is not supported; supported: 5",
        ),
        (object(TEXT), "at byte 111: the text \"hi\" where an array is expected"),
        (
            object(&ints(&[1, 2])[..30]),
            "at byte 134: the data end within the elements of an array: 8 bytes needed, 3 \
                                        left; the file is truncated or damaged",
        ),
        (
            compressed(TEXT),
            "at byte 135: inside the compressed data that start there, at their byte 8: the text \"hi\" \
                            where an array is expected",
        ),
    ];
    let mut problems = Vec::new();
    for (file, want) in cases {
        let mut elements = elements(file.bytes.as_slice());
        let got = elements.next().map_or_else(
            || "no error".to_owned(),
            |e| e.err().map_or_else(|| "an element".to_owned(), |e| e.to_string()),
        );
        if got != want {
            problems.push(format!("got  {got}\nwant {want}"));
        }
        assert!(elements.next().is_none());
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn both_limits_are_passed_on() {
    let mut file = File::of_objects();
    file.object(&ints(&[1, 2, 3]));
    let all = || (sequence_file::Limits::default(), object_stream::Limits::default());
    let read = |(file_limits, stream_limits)| -> Result<Vec<Value>, String> {
        elements_with(file.bytes.as_slice(), file_limits, stream_limits)
            .collect::<Result<_, _>>()
            .map_err(|e| e.to_string())
    };
    assert_eq!(read(all()).unwrap().len(), 3);
    let (small, stream) = all();
    let error = read((small.with_max_bytes(20), stream)).unwrap_err();
    assert!(error.contains("the length of a record: 43 where the limit is 20"), "{error}");
    let (file_limits, mut few) = all();
    few.max_elements = 2;
    let error = read((file_limits, few)).unwrap_err();
    assert!(error.contains("the length of an array: 3 where the limit is 2"), "{error}");
}
