//! Zips that are damaged or meant to do harm: each refused with its reason, nothing left behind.

use std::io::{Cursor, Write};

use qwen2vl_testkit::check_all;
use zip::write::SimpleFileOptions;

use super::{Export, Place, says};

type Writer = zip::ZipWriter<Cursor<Vec<u8>>>;

/// The export's zip with one more entry.
fn with_entry(name: &str) -> Vec<u8> {
    Export::new().zip_with("", |zip| entry(zip, name, b"x"))
}

fn entry(zip: &mut Writer, name: &str, content: &[u8]) {
    zip.start_file(name, SimpleFileOptions::default()).unwrap();
    zip.write_all(content).unwrap();
}

/// Replaces every occurrence of `from`, as in the local header and in the directory.
fn replace(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut out = bytes.to_vec();
    let mut found = 0;
    for at in 0..=out.len() - from.len() {
        if &out[at..at + from.len()] == from {
            out[at..at + from.len()].copy_from_slice(to);
            found += 1;
        }
    }
    assert!(found > 0, "nothing to replace");
    out
}

/// Overwrites a field of the directory's record of `name`; offsets as in APPNOTE.TXT 4.3.12.
fn patch_directory(mut bytes: Vec<u8>, name: &str, offset: usize, value: &[u8]) -> Vec<u8> {
    let record = (0..bytes.len() - 46)
        .find(|&at| bytes[at..].starts_with(b"PK\x01\x02") && bytes[at + 46..].starts_with(name.as_bytes()))
        .expect("the record is there");
    bytes[record + offset..record + offset + value.len()].copy_from_slice(value);
    bytes
}

#[test]
fn hostile_and_damaged_zips_are_refused_and_leave_nothing() {
    let good = Export::new().zip("");
    let weights = "openvino_language_model.bin";
    let bomb = Export::new().file(weights, vec![0; 40 << 20]).zip("");
    let stored = Export::new().zip_with("", |zip| {
        let options = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
        zip.start_file("note.txt", options).unwrap();
        zip.write_all(b"unmistakable").unwrap();
    });
    let cases: Vec<(&str, Vec<u8>, Vec<&str>)> = vec![
        ("parent", with_entry("../evil"), vec!["refused", "\"../evil\"", "leads out"]),
        ("parent within", with_entry("a/../../evil"), vec!["leads out"]),
        ("absolute", with_entry("/etc/evil"), vec!["\"/etc/evil\"", "leads out"]),
        ("backslash", with_entry("..\\evil"), vec!["leads out"]),
        ("drive", with_entry("C:evil"), vec!["leads out"]),
        ("dot", with_entry("./config.json"), vec!["leads out"]),
        ("empty part", with_entry("a//b"), vec!["leads out"]),
        ("control character", with_entry("a\u{7}b"), vec!["leads out"]),
        ("case twins", with_entry("CONFIG.json"), vec!["two entries meet", "CONFIG.json"]),
        (
            "duplicate",
            replace(&with_entry("konfig.json"), b"konfig.json", b"config.json"),
            vec!["two entries of the same name"],
        ),
        (
            "link",
            Export::new().zip_with("", |zip| {
                zip.add_symlink("l", "/etc/passwd", SimpleFileOptions::default()).unwrap();
            }),
            vec!["\"l\" is a link"],
        ),
        (
            "device",
            patch_directory(good.clone(), "config.json", 38, &(0o020_666_u32 << 16).to_le_bytes()),
            vec!["\"config.json\" is a link or a device"],
        ),
        ("encrypted", patch_directory(good.clone(), weights, 8, &[1, 0]), vec![weights, "encrypted"]),
        ("bomb", bomb, vec!["it would unpack to", "at most"]),
        (
            "claimed size",
            patch_directory(good.clone(), weights, 24, &0x7fff_0000_u32.to_le_bytes()),
            vec![weights, "claims 2147418112 bytes"],
        ),
        (
            "two models",
            Export::new().zip_with("", |zip| entry(zip, "b/openvino_language_model.xml", b"x")),
            vec!["2 models", "\"\", \"b\""],
        ),
        (
            "many entries",
            Export::new().zip_with("", |zip| (0..10_001).for_each(|i| entry(zip, &i.to_string(), b""))),
            vec!["more than 10000"],
        ),
        (
            "smaller than said",
            patch_directory(good.clone(), weights, 24, &100_u32.to_le_bytes()),
            vec!["damaged", weights],
        ),
        (
            "larger than said",
            patch_directory(good.clone(), weights, 24, &3_u32.to_le_bytes()),
            vec!["damaged", weights],
        ),
        (
            "wrong checksum",
            patch_directory(good.clone(), weights, 16, &[1, 2, 3, 4]),
            vec!["damaged", weights, "checksum"],
        ),
        ("cut in half", good[..good.len() / 2].to_vec(), vec!["damaged or truncated", "fetch it again"]),
        ("cut at the end", good[..good.len() - 5].to_vec(), vec!["damaged or truncated"]),
        ("only the start", b"PK\x03\x04".to_vec(), vec!["damaged or truncated"]),
        (
            "no entries",
            Writer::new(Cursor::new(Vec::new())).finish().unwrap().into_inner(),
            vec!["neither an OpenVINO export"],
        ),
    ];
    check_all(
        &cases,
        |c| c.0.to_owned(),
        |(_, bytes, parts)| {
            let place = Place::new();
            let outside = place.dir.path().join("evil");
            says(place.open_zip(bytes), parts)?;
            let in_memory = qwen2vl_package::ModelPackage::open_zip_bytes("m", bytes, &place.cache());
            says(in_memory, parts)?;
            match place.cached() {
                left if !left.is_empty() => Err(format!("left {left:?}")),
                _ if outside.exists() => Err("wrote outside the cache".to_owned()),
                _ => Ok(()),
            }
        },
    );
    // Not part of the export's damage: bytes of a file that is unpacked are checked, wherever they lie.
    let damaged = replace(&stored, b"unmistakable", b"unmistakeble");
    says(Place::new().open_zip(&damaged), &["note.txt", "checksum"]).unwrap();
}

#[test]
fn a_zip_refused_once_opens_after_it_was_repaired() {
    let place = Place::new();
    let good = Export::new().zip("");
    assert!(place.open_zip(&good[..good.len() - 30]).is_err());
    assert_eq!(place.open_zip(&good).unwrap().name, "model");
}
