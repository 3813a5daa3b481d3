//! Spark ML metadata of any bytes: parsed or refused with an offset in the file.

#![no_main]

use libfuzzer_sys::fuzz_target;
use qwen2vl_spark_files::ml_metadata::Metadata;

fuzz_target!(|bytes: &[u8]| {
    match Metadata::parse(bytes) {
        Ok(metadata) => {
            for name in metadata.param_map.keys() {
                assert!(matches!(metadata.param(name), Some((_, true))));
            }
            for name in metadata.default_param_map.keys() {
                assert!(metadata.param(name).is_some());
            }
        }
        Err(e) => assert!(e.offset <= bytes.len() as u64, "{e}"),
    }
});
