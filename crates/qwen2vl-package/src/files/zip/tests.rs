//! Names that stay inside, and bytes that belong to one entry.

use std::io::Write;

use super::super::bytes::Bytes;
use super::*;

#[test]
fn names_stay_within_the_folder() {
    for (name, parts) in
        [("a", Some(1)), ("a/b.bin", Some(2)), ("a/", Some(1)), ("…/ü", Some(2)), ("a..b", Some(1))]
    {
        assert_eq!(safe_parts(name).map(|p| p.len()), parts, "{name}");
    }
    for name in ["", "/", "//", "/a", "..", "a/..", "../a", "a/./b", "a//b", "a\\b", "c:", "a\0b", "a\n"] {
        assert_eq!(safe_parts(name), None, "{name:?}");
    }
}

#[test]
fn overlapping_entries_are_refused() {
    // Two names for one entry's bytes, as zip bombs of constant size have them.
    let mut zip = zip::ZipWriter::new(io::Cursor::new(Vec::new()));
    zip.start_file("openvino_language_model.xml", zip::write::SimpleFileOptions::default()).unwrap();
    zip.write_all(b"content").unwrap();
    zip.shallow_copy_file("openvino_language_model.xml", "b").unwrap();
    let bytes = zip.finish().unwrap();
    let error = Archive::open(Path::new("m.zip"), bytes).err().unwrap().to_string();
    assert!(error.contains("share the same bytes"), "{error}");
}

/// Entries that are stored, of stored blocks, and compressed read the same from any place.
#[test]
fn entries_read_from_any_place_whatever_their_method() {
    let content: Vec<u8> = (0..200_000_u32).map(|i| (i / 7) as u8).collect();
    let scratch = tempfile::tempdir().unwrap();
    let packed_by = |method| {
        let options = zip::write::SimpleFileOptions::default().compression_method(method);
        let mut writer = zip::ZipWriter::new(io::Cursor::new(Vec::new()));
        for name in ["a", "b"] {
            writer.start_file(name, options).unwrap();
            writer.write_all(&content).unwrap();
        }
        writer.finish().unwrap().into_inner()
    };
    for (packed, copies) in [
        (packed_by(zip::CompressionMethod::Stored), false),
        (qwen2vl_testkit::java_zip([("a", content.as_slice()), ("b", &content)]), false),
        (packed_by(zip::CompressionMethod::Deflated), true),
    ] {
        let bytes = Bytes::Memory(&packed);
        let mut archive = WindowArchive::open(Path::new("m.zip"), bytes.window()).unwrap();
        assert_eq!(archive.in_place(1).unwrap().is_none(), copies);
        let mut reader = archive.read_seek(1, scratch.path()).unwrap();
        let mut read = Vec::new();
        reader.read_to_end(&mut read).unwrap();
        assert!(read == content);
        reader.seek(SeekFrom::Start(77_777)).unwrap();
        let mut some = [0; 50_000];
        reader.read_exact(&mut some).unwrap();
        assert!(some == content[77_777..127_777]);
    }
}
