//! Spark ML metadata.

use qwen2vl_spark_files::Reason;
use qwen2vl_spark_files::checksum::Checksums;
use qwen2vl_spark_files::ml_metadata::Metadata;
use qwen2vl_testkit::{golden, read_json};
use serde_json::{Value as Json, json};

fn real() -> Vec<u8> {
    std::fs::read(golden("spark-files/metadata.json")).unwrap()
}

#[test]
fn the_real_file() {
    let want: Json = read_json(&golden("spark-files/expected.json"));
    let want = &want["metadata"];
    let got = Metadata::parse(&real()).unwrap();
    assert_eq!(json!(got.class), want["class"]);
    assert_eq!(json!(got.timestamp), want["timestamp"]);
    assert_eq!(json!(got.spark_version), want["sparkVersion"]);
    assert_eq!(json!(got.uid), want["uid"]);
    assert_eq!(json!(got.param_map), want["paramMap"]);
    assert_eq!(json!(got.default_param_map), want["defaultParamMap"]);
    assert_eq!(got.param("size"), Some((&json!(224), true)));
    assert_eq!(got.param("imageMean"), Some((&json!([0.48145466, 0.4578275, 0.40821073]), true)));
    assert_eq!(got.param("maxOutputLength"), Some((&json!(20), false)));
    assert_eq!(got.param("doRescale"), None);
}

#[test]
fn its_checksums_fit() {
    let side = std::fs::read(golden("spark-files/metadata.json.crc")).unwrap();
    let checksums = Checksums::parse(&side).unwrap();
    let read = std::io::read_to_string(checksums.verify(real().as_slice())).unwrap();
    assert_eq!(read.as_bytes(), real());
}

#[test]
fn old_files_have_no_defaults() {
    let text =
        r#"{"class":"c","timestamp":1,"sparkVersion":"2.3.0","uid":"u","paramMap":{"stageUids":["a"]}}"#;
    let metadata = Metadata::parse(text.as_bytes()).unwrap();
    assert!(metadata.default_param_map.is_empty());
    assert_eq!(metadata.param("stageUids"), Some((&json!(["a"]), true)));
}

#[test]
fn bad_metadata_with_the_place() {
    let deep = format!("{{\"paramMap\":{{\"a\":{}1{}}}}}", "[".repeat(200), "]".repeat(200));
    let cases: &[(&[u8], u64, &str)] = &[
        (b"", 0, "EOF while parsing a value at line 1 column 0"),
        (b"[1]", 1, "invalid type: integer `1`, expected a string at line 1 column 2"),
        (b"{\"class\":\"c\"}", 12, "missing field `timestamp` at line 1 column 13"),
        (b"{\n \"class\": 5}", 12, "invalid type: integer `5`, expected a string at line 2 column 11"),
        (b"{\"class\":\"\xff\"}", 10, "invalid unicode code point at line 1 column 11"),
        (b"{\"class\":\"a\",\"class\":\"b\"}", 19, "duplicate field `class` at line 1 column 20"),
        (deep.as_bytes(), 142, "recursion limit exceeded at line 1 column 143"),
    ];
    let mut problems = Vec::new();
    for (bytes, offset, message) in cases {
        let error = Metadata::parse(bytes).unwrap_err();
        let want = format!("at byte {offset}: no Spark ML metadata: {message}");
        if error.to_string() != want {
            problems.push(format!("got  {error}\nwant {want}"));
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn larger_files_than_metadata_can_be_are_refused() {
    let error = Metadata::parse(&vec![b' '; (4 << 20) + 1]).unwrap_err();
    assert!(matches!(error.reason, Reason::Limit { found: 4_194_305, limit: 4_194_304, .. }), "{error}");
}
