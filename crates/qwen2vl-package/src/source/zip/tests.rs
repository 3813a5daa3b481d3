//! Entries copied byte for byte, and names that stay inside.

use super::*;

struct Full;

impl Write for Full {
    fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
        Err(ErrorKind::StorageFull.into())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn copy(content: &[u8], size: u64, writer: &mut impl Write) -> Result<(), Error> {
    let entry = Entry { index: 0, name: "a.bin".to_owned(), size };
    copy_entry(Path::new("m.zip"), &entry, &mut &*content, writer, Path::new("cache/a.bin"))
}

#[test]
fn entries_have_exactly_their_size() {
    let mut written = Vec::new();
    copy(b"abc", 3, &mut written).unwrap();
    assert_eq!(written, b"abc");
    for (size, says) in [(2, "more than its 2 bytes"), (5, "ends 2 bytes before its 5 bytes")] {
        let mut written = Vec::new();
        let error = copy(b"abc", size, &mut written).unwrap_err().to_string();
        assert!(error.contains("a.bin") && error.contains(says), "{error}");
        assert!(written.len() as u64 <= 3);
    }
}

#[test]
fn a_failing_disk_is_not_taken_for_a_damaged_zip() {
    let error = copy(b"abc", 3, &mut Full).unwrap_err();
    assert!(
        matches!(error, Error::Cache { ref source, .. } if source.kind() == ErrorKind::StorageFull),
        "{error}"
    );
}

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
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    zip.start_file("openvino_language_model.xml", zip::write::SimpleFileOptions::default()).unwrap();
    zip.write_all(b"content").unwrap();
    zip.shallow_copy_file("openvino_language_model.xml", "b").unwrap();
    let bytes = zip.finish().unwrap();
    let error = Archive::open(Path::new("m.zip"), bytes).err().unwrap().to_string();
    assert!(error.contains("share the same bytes"), "{error}");
}
