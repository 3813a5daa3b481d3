//! Every value of the files that the real Spark wrote (tests/golden/spark-files).

use std::collections::BTreeMap;
use std::fs;
use std::io::Cursor;

use qwen2vl_spark_files::checksum::{Checksums, side_file_name};
use qwen2vl_spark_files::object_file::elements;
use qwen2vl_spark_files::object_stream::{ClassDescriptor, FieldType, Value};
use qwen2vl_spark_files::sequence_file::{Compression, SequenceFile};
use qwen2vl_testkit::{golden, read_json};
use serde::Deserialize;
use serde_json::{Value as Json, json};

#[derive(Deserialize)]
struct Expected {
    #[serde(rename = "addedTokens")]
    added_tokens: BTreeMap<String, i32>,
    classes: BTreeMap<String, Class>,
    #[serde(rename = "generationConfig")]
    generation_config: Json,
    #[serde(rename = "odd-strings")]
    odd_strings: BTreeMap<String, i32>,
}

#[derive(Deserialize)]
struct Class {
    #[serde(rename = "serialVersionUID")]
    serial_version_uid: String,
    flags: u8,
    fields: Vec<(String, String)>,
    #[serde(rename = "super")]
    superclass: Option<String>,
}

fn expected() -> Expected {
    read_json(&golden("spark-files/expected.json"))
}

/// The files whose name ends with `.seq`, with their content.
pub fn files() -> Vec<(String, Vec<u8>)> {
    let names = [
        "addedTokens-plain.seq",
        "addedTokens-record-deflate.seq",
        "addedTokens-block-deflate.seq",
        "generationConfig-with-values.seq",
        "odd-strings.seq",
    ];
    names.iter().map(|name| (name.to_string(), fs::read(golden("spark-files").join(name)).unwrap())).collect()
}

fn file(name: &str) -> Vec<u8> {
    files().into_iter().find(|(n, _)| n == name).unwrap().1
}

fn pairs(bytes: &[u8]) -> BTreeMap<String, i32> {
    let mut pairs = BTreeMap::new();
    for element in elements(Cursor::new(bytes)) {
        let element = element.unwrap();
        let (key, value) = element.as_tuple().unwrap();
        let previous = pairs.insert(key.as_str().unwrap().to_owned(), value.as_int().unwrap());
        assert_eq!(previous, None);
    }
    pairs
}

#[test]
fn added_tokens_however_they_are_compressed() {
    let want = expected().added_tokens;
    assert_eq!(want.len(), 14);
    let cases = [
        ("addedTokens-plain.seq", Compression::None),
        ("addedTokens-record-deflate.seq", Compression::Record),
        ("addedTokens-block-deflate.seq", Compression::Block),
    ];
    for (name, compression) in cases {
        let bytes = file(name);
        assert_eq!(pairs(&bytes), want, "{name}");
        let sequence_file = SequenceFile::open(bytes.as_slice()).unwrap();
        let header = sequence_file.header().clone();
        assert_eq!((header.version, header.compression), (6, compression), "{name}");
        assert_eq!(header.key_class, "org.apache.hadoop.io.NullWritable");
        assert_eq!(header.value_class, "org.apache.hadoop.io.BytesWritable");
        let codec = header.codec.as_deref();
        let want = (compression != Compression::None).then_some("org.apache.hadoop.io.compress.DefaultCodec");
        assert_eq!(codec, want, "{name}");
        assert_eq!(header.metadata, []);
        // Ten elements and four.
        let records: Vec<_> = sequence_file.map(Result::unwrap).collect();
        assert_eq!(records.len(), 2, "{name}");
        assert!(records.iter().all(|record| record.key.is_empty()));
        if compression == Compression::None {
            assert_eq!(header.sync, bytes[79..95]);
            assert_eq!(records[0].offset, 95);
            assert_eq!(records[0].value_offset, Some(103));
        }
    }
}

#[test]
fn odd_strings() {
    let mut want = expected().odd_strings;
    let number = want.remove("x70000").expect("stands for the long one");
    want.insert("x".repeat(70_000), number);
    assert_eq!(want.len(), 13);
    assert_eq!(pairs(&file("odd-strings.seq")), want);
}

fn option_as_json(value: &Value) -> Json {
    let Some(array) = value.as_option().unwrap() else { return Json::Null };
    let array = array.as_array().unwrap();
    match array.as_ints() {
        Some(ints) => json!(ints),
        None => {
            let int = |value: &Value| value.as_int().unwrap();
            let pair = |value: &Value| value.as_tuple().map(|(a, b)| json!([int(a), int(b)])).unwrap();
            array.as_values().unwrap().iter().map(pair).collect()
        }
    }
}

#[test]
fn a_generation_config_with_every_option() {
    let values: Vec<Value> =
        elements(Cursor::new(file("generationConfig-with-values.seq"))).map(Result::unwrap).collect();
    assert_eq!(values.len(), 1);
    let config = values[0].as_object().unwrap();
    let mut got = serde_json::Map::new();
    for (name, value) in config.fields() {
        let value = value.as_int().map_or_else(|| option_as_json(value), Json::from);
        got.insert(name.to_owned(), value);
    }
    assert_eq!(got.len(), 7);
    assert_eq!(Json::Object(got), expected().generation_config);
}

/// The classes that a value and its fields have.
fn collect<'a>(value: &'a Value, classes: &mut BTreeMap<&'a str, &'a ClassDescriptor>) {
    let class = match value {
        Value::Array(array) => {
            array.as_values().unwrap_or_default().iter().for_each(|value| collect(value, classes));
            array.class()
        }
        Value::Object(object) => {
            object.fields().for_each(|(_, value)| collect(value, classes));
            object.class()
        }
        _ => return,
    };
    classes.extend(class.chain().map(|class| (class.name(), class)));
}

#[test]
fn class_descriptors_are_the_jvms() {
    let mut values = Vec::new();
    for (_, bytes) in files() {
        for record in SequenceFile::open(bytes.as_slice()).unwrap() {
            values.push(qwen2vl_spark_files::object_stream::parse(&record.unwrap().value[4..]).unwrap());
        }
    }
    let mut classes = BTreeMap::new();
    values.iter().for_each(|value| collect(value, &mut classes));
    let mut n_compared = 0;
    for (name, want) in expected().classes {
        // No option is empty in these files.
        let Some(class) = classes.get(name.as_str()) else {
            assert_eq!(name, "scala.None$");
            continue;
        };
        n_compared += 1;
        assert_eq!(format!("{:016X}", class.serial_version_uid()), want.serial_version_uid, "{name}");
        assert_eq!(class.flags(), want.flags, "{name}");
        assert_eq!(class.superclass().map(ClassDescriptor::name), want.superclass.as_deref(), "{name}");
        let letter = |kind| match kind {
            FieldType::Int => "I",
            FieldType::Reference => "L",
            other => panic!("{name} has a field of type {other:?}"),
        };
        let fields: Vec<(String, String)> =
            class.fields().iter().map(|f| (letter(f.kind()).to_owned(), f.name().to_owned())).collect();
        assert_eq!(fields, want.fields, "{name}");
    }
    assert_eq!(n_compared, 7);
}

/// All parts of a feature of the demo model's package, checked against their checksums.
fn feature(name: &str) -> Vec<Value> {
    let folder = qwen2vl_testkit::demo_spark_dir().join("fields").join(name);
    let mut values = Vec::new();
    for part in ["part-00000", "part-00001"] {
        let side = fs::read(folder.join(side_file_name(part))).unwrap();
        let checksums = Checksums::parse(&side).unwrap();
        let file = fs::File::open(folder.join(part)).unwrap();
        values.extend(elements(checksums.verify(file)).map(Result::unwrap));
    }
    values
}

/// Fifteen megabytes with sync markers between the records, against the file that they were made from.
#[test]
fn vocabulary_and_merges_are_those_of_the_tokenizer() {
    let tokenizer: Json = read_json(&qwen2vl_testkit::demo_model_dir().join("tokenizer.json"));
    let model = &tokenizer["model"];
    let mut vocabulary: BTreeMap<&str, i64> =
        model["vocab"].as_object().unwrap().iter().map(|(k, v)| (k.as_str(), v.as_i64().unwrap())).collect();
    for token in tokenizer["added_tokens"].as_array().unwrap() {
        vocabulary.insert(token["content"].as_str().unwrap(), token["id"].as_i64().unwrap());
    }
    let values = feature("vocabulary");
    assert_eq!(values.len(), 151_665);
    for value in &values {
        let (token, id) = value.as_tuple().unwrap();
        let token = token.as_str().unwrap();
        assert_eq!(vocabulary.remove(token), id.as_int().map(i64::from), "{token:?}");
    }
    assert_eq!(vocabulary, BTreeMap::new(), "tokens that are in the tokenizer alone");

    let want = model["merges"].as_array().unwrap();
    let values = feature("merges");
    assert_eq!((values.len(), want.len()), (151_387, 151_387));
    for value in &values {
        let (pair, rank) = value.as_tuple().unwrap();
        let (a, b) = pair.as_tuple().unwrap();
        let want = &want[rank.as_int().unwrap() as usize];
        assert_eq!(*want, json!([a.as_str(), b.as_str()]));
    }
}
