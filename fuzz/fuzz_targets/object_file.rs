//! An object file of any bytes: elements or one error, whose offset lies in the file.

#![no_main]

use libfuzzer_sys::fuzz_target;
use qwen2vl_spark_files::object_file::elements_with;
use qwen2vl_spark_files::{object_stream, sequence_file};

fuzz_target!(|bytes: &[u8]| {
    let mut limits = object_stream::Limits::default();
    limits.max_elements = 1 << 16;
    limits.max_values = 1 << 16;
    let mut elements = elements_with(bytes, sequence_file::Limits::default().with_max_bytes(1 << 20), limits);
    // Compressed records of a few bytes can have very many elements.
    for _ in 0..100_000 {
        match elements.next() {
            Some(Ok(_)) => assert!(elements.record_offset() < bytes.len() as u64),
            Some(Err(e)) => {
                assert!(e.offset <= bytes.len() as u64, "{e}");
                assert!(elements.next().is_none());
            }
            None => break,
        }
    }
});
