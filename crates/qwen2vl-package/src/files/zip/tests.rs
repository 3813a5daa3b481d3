//! Names that stay inside, and bytes that belong to one entry.

use std::io::Write;

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
