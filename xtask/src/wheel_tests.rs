//! Tests of the wheel's unpacking, on tiny made-up wheels.

use std::path::PathBuf;

use tempfile::TempDir;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use super::*;
use crate::openvino::WHEEL;

const LIBRARY: &str = "openvino/libs/libopenvino_c.so.2641";
const NAME: &str = "openvino-2026.4.1-1-cp312-cp312-manylinux_2_28_x86_64.whl";

/// A wheel with these files and this RECORD; without one, the right RECORD is made.
fn wheel(files: &[(&str, &[u8])], record: Option<String>) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(NAME);
    let mut writer = ZipWriter::new(File::create(&path).unwrap());
    let options = SimpleFileOptions::default();
    for (name, content) in files {
        writer.start_file(*name, options).unwrap();
        writer.write_all(content).unwrap();
    }
    let record = record.unwrap_or_else(|| files.iter().map(|(name, content)| line(name, content)).collect());
    writer.start_file("openvino-2026.4.1.dist-info/RECORD", options).unwrap();
    writer.write_all(record.as_bytes()).unwrap();
    writer.finish().unwrap();
    (dir, path)
}

fn line(name: &str, content: &[u8]) -> String {
    format!("{name},sha256={},{}\n", base64_url(&Sha256::digest(content)), content.len())
}

fn unpack_error(files: &[(&str, &[u8])], record: Option<String>) -> String {
    let (dir, path) = wheel(files, record);
    let into = dir.path().join("into");
    let error = format!("{:#}", unpack(&WHEEL, &path, &into).unwrap_err());
    assert!(!dir.path().join("evil").exists());
    error
}

#[test]
fn libraries_headers_and_licences_are_unpacked_and_nothing_else() {
    let licence = "openvino-2026.4.1.dist-info/licenses/LICENSE";
    let files: &[(&str, &[u8])] =
        &[(LIBRARY, b"library"), (licence, b"licence"), ("openvino/include/a.h", b"h"), ("other/x.py", b"x")];
    let (dir, path) = wheel(files, None);
    let into = dir.path().join("into");
    assert_eq!(unpack(&WHEEL, &path, &into).unwrap(), 3);
    assert_eq!(fs::read(into.join(LIBRARY)).unwrap(), b"library");
    assert_eq!(fs::read(into.join(licence)).unwrap(), b"licence");
    assert_eq!(fs::read(into.join("openvino/include/a.h")).unwrap(), b"h");
    assert!(!into.join("other").exists());
}

#[test]
fn what_differs_from_the_record_is_refused() {
    struct Case {
        record: String,
        want: &'static str,
    }
    let missing = format!("{}{}", line(LIBRARY, b"library"), line("openvino/libs/libtbb.so.12", b"tbb"));
    let cases = [
        Case { record: line(LIBRARY, b"library").replace(",7", ",8"), want: "differs from its RECORD" },
        Case { record: line(LIBRARY, b"library").replace(",7", ",6"), want: "longer than its RECORD says" },
        Case { record: line(LIBRARY, b"lebrary"), want: "differs from its RECORD" },
        Case { record: missing, want: "lacks `openvino/libs/libtbb.so.12`" },
        Case { record: line("openvino/libs/other.so", b"o"), want: "not in its RECORD" },
        Case { record: String::new(), want: "holds nothing of openvino/libs/" },
        Case { record: format!("{LIBRARY},sha256=x,{}\n", 3u64 << 30), want: "at most 2147483648" },
    ];
    for case in cases {
        let error = unpack_error(&[(LIBRARY, b"library")], Some(case.record));
        assert!(error.contains(case.want), "want {}, got {error}", case.want);
    }
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    for name in ["openvino/libs/../../../evil", "openvino/libs/./x", "openvino/libs//x"] {
        let error = unpack_error(&[(name, b"evil")], None);
        assert!(error.contains("would lie elsewhere"), "{name}: {error}");
    }
}

#[test]
fn links_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(NAME);
    let mut writer = ZipWriter::new(File::create(&path).unwrap());
    writer.add_symlink(LIBRARY, "../../elsewhere", SimpleFileOptions::default()).unwrap();
    writer.start_file("openvino-2026.4.1.dist-info/RECORD", SimpleFileOptions::default()).unwrap();
    writer.write_all(line(LIBRARY, b"../../elsewhere").as_bytes()).unwrap();
    writer.finish().unwrap();
    let error = unpack(&WHEEL, &path, &dir.path().join("into")).unwrap_err();
    assert!(error.to_string().contains("would lie elsewhere"), "{error:#}");
}

#[test]
fn a_truncated_wheel_is_refused() {
    let (dir, path) = wheel(&[(LIBRARY, b"library")], None);
    let bytes = fs::read(&path).unwrap();
    for keep in [0, 10, bytes.len() / 2, bytes.len() - 1] {
        fs::write(&path, &bytes[..keep]).unwrap();
        let error = format!("{:#}", unpack(&WHEEL, &path, &dir.path().join("into")).unwrap_err());
        assert!(error.contains("is not a whole wheel"), "{keep} bytes: {error}");
    }
}

#[test]
fn a_wheel_without_a_record_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(NAME);
    let mut writer = ZipWriter::new(File::create(&path).unwrap());
    writer.start_file(LIBRARY, SimpleFileOptions::default()).unwrap();
    writer.finish().unwrap();
    let error = unpack(&WHEEL, &path, &dir.path().join("into")).unwrap_err();
    assert!(error.to_string().contains("no RECORD"), "{error:#}");
}

#[test]
fn the_whole_wheel_is_compared_with_its_pin() {
    let (_dir, path) = wheel(&[(LIBRARY, b"library")], None);
    let hash = hex(&Sha256::digest(fs::read(&path).unwrap()));
    verify(&path, &[("cp311-cp311", "00"), ("cp312-cp312", &hash)]).unwrap();
    let wrong = verify(&path, &[("cp312-cp312", "00")]).unwrap_err().to_string();
    assert!(wrong.contains(&hash) && wrong.contains("not the pinned 00"), "{wrong}");
    let unknown = verify(&path, &[("cp311-cp311", &hash)]).unwrap_err().to_string();
    assert!(unknown.contains("no hash is pinned"), "{unknown}");
}

#[test]
fn pins_are_whole_and_know_their_names() {
    for (tag, hash) in WHEEL.pins {
        assert!(hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit()), "{tag}");
    }
    assert!(WHEEL.is_pinned(NAME));
    assert!(!WHEEL.is_pinned(&NAME.replace("cp312", "cp39")));
    assert!(WHEEL.is_pinned(&NAME.replace("cp312-cp312", "cp314-cp314t")));
    assert!(!WHEEL.is_pinned(&NAME.replace("cp312-cp312", "cp313-cp313t")));
}

#[test]
fn base64_follows_rfc_4648() {
    for (bytes, want) in [("", ""), ("f", "Zg"), ("fo", "Zm8"), ("foo", "Zm9v"), ("foob", "Zm9vYg")] {
        assert_eq!(base64_url(bytes.as_bytes()), want);
    }
    assert_eq!(base64_url(&[0xfb, 0xff]), "-_8");
}
