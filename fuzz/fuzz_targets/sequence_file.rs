//! A SequenceFile of any bytes: it is read or refused, records stay below the limits, offsets within the file.

#![no_main]

use libfuzzer_sys::fuzz_target;
use qwen2vl_spark_files::sequence_file::{Limits, SequenceFile};

const MAX_BYTES: u64 = 1 << 20;

fuzz_target!(|bytes: &[u8]| {
    let Ok(mut file) = SequenceFile::open_with(bytes, Limits::default().with_max_bytes(MAX_BYTES)) else {
        return;
    };
    let n_bytes = bytes.len() as u64;
    while let Some(record) = file.next() {
        match record {
            Ok(record) => {
                assert!(record.key.len() as u64 <= MAX_BYTES && record.value.len() as u64 <= MAX_BYTES);
                assert!(record.offset < n_bytes);
                if let Some(at) = record.value_offset {
                    let at = at as usize;
                    assert_eq!(bytes[at..at + record.value.len()], record.value);
                }
            }
            Err(e) => {
                assert!(e.offset <= n_bytes, "{e}");
                assert!(file.next().is_none());
            }
        }
    }
});
