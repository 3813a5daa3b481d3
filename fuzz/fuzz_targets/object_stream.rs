//! A Java object stream of any bytes: it is read or refused, the tree stays below the limits, and every look into it
//! ends.

#![no_main]

use libfuzzer_sys::fuzz_target;
use qwen2vl_spark_files::object_stream::{Limits, Parser, Value};

const MAX_DEPTH: u32 = 40;

fuzz_target!(|bytes: &[u8]| {
    let mut limits = Limits::default();
    limits.max_depth = MAX_DEPTH;
    limits.max_values = 100_000;
    match Parser::new(bytes).with_limits(limits).parse() {
        Ok(value) => {
            assert!(format!("{value:?}").len() < 1 << 20);
            look(&value, &mut 10_000, 0);
        }
        Err(e) => {
            assert!(e.offset <= bytes.len() as u64, "{e}");
            assert!(e.to_string().len() < 2000, "{e}");
        }
    }
});

/// Asks a value everything; shared objects are met more than once, so the number of looks is limited.
fn look(value: &Value, left: &mut u32, depth: u32) {
    assert!(depth <= MAX_DEPTH);
    if *left == 0 {
        return;
    }
    *left -= 1;
    let _ = (value.as_str(), value.as_int(), value.as_tuple(), value.offset());
    if let Err(e) = value.as_option() {
        assert!(!e.to_string().is_empty());
    }
    assert!(value.describe().len() < 2000);
    if let Some(array) = value.as_array() {
        assert!(array.get(array.len()).is_none());
        array.as_values().unwrap_or_default().iter().for_each(|value| look(value, left, depth + 1));
    }
    if let Some(object) = value.as_object() {
        for (name, value) in object.fields() {
            assert!(object.field(name).is_some());
            look(value, left, depth + 1);
        }
    }
}
