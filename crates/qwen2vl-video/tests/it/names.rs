//! File names that look like something else, and programs that are something else.

use std::path::Path;
use std::time::Duration;

use qwen2vl_testkit::video::ffmpeg;
use qwen2vl_video::{Error, Ffmpeg, ProgramSource, VideoFile, VideoFileOptions};

#[test]
fn names_are_only_names() {
    let folder = tempfile::tempdir().unwrap();
    let plain = folder.path().join("plain.mp4");
    ffmpeg("-f lavfi -i testsrc2=s=64x64:r=5:d=1 -c:v libx264 {}", &plain);
    let programs = Ffmpeg::find(None).unwrap();
    // Relative names are what an option or a protocol would be read from.
    for name in [
        "-v.mp4",
        "http:",
        "concat:a|b",
        "data:x,y",
        "%03d.mp4",
        "a b 'c'.mp4",
        "*.mp4",
        "file:x",
        "ü,[0]=.mp4",
    ] {
        std::fs::copy(&plain, folder.path().join(name)).unwrap();
        let relative = pathdiff(&folder.path().join(name));
        let video = VideoFile::open(&relative, &programs, &VideoFileOptions::default()).unwrap();
        assert_eq!(video.frames_at(&[4]).collect::<Result<Vec<_>, _>>().unwrap().len(), 1, "{name}");
    }
}

/// A path that leads there from the working folder without being absolute.
fn pathdiff(path: &Path) -> std::path::PathBuf {
    let here = std::env::current_dir().unwrap();
    let up: std::path::PathBuf = here.components().skip(1).map(|_| "..").collect();
    up.join(path.strip_prefix("/").unwrap())
}

#[test]
fn the_programs_are_found_by_folder_and_by_file() {
    let found = Ffmpeg::find(None).unwrap();
    assert!(!found.version().is_empty());
    for place in [found.path(), found.path().parent().unwrap()] {
        let given = Ffmpeg::find(Some(place)).unwrap();
        assert_eq!((given.path(), given.source()), (found.path(), ProgramSource::Given));
        assert_eq!(given.version(), found.version());
    }
    let folder = tempfile::tempdir().unwrap();
    let error = Ffmpeg::find(Some(folder.path())).unwrap_err().to_string();
    assert!(error.contains("install ffmpeg") && error.contains("QWEN2VL_FFMPEG"), "{error}");
}

/// What the search path has comes first; without it the folder of last resort is taken, and what is named and missing is an
/// error all the same.
#[cfg(unix)]
#[test]
fn the_last_resort_is_the_last() {
    use std::os::unix::fs::PermissionsExt;

    let folder = tempfile::tempdir().unwrap();
    for name in ["ffmpeg", "ffprobe"] {
        let path = folder.path().join(name);
        std::fs::write(&path, "#!/bin/sh\necho ffmpeg version 7.7 of a test\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let found = Ffmpeg::find_or(None, Some(folder.path())).unwrap();
    assert_eq!(found, Ffmpeg::find(None).unwrap());
    let missing = folder.path().join("missing");
    assert!(Ffmpeg::find_or(Some(&missing), Some(folder.path())).is_err());
    // In a process of its own, whose search path has neither program.
    let test = std::env::current_exe().unwrap();
    let mut alone = std::process::Command::new(test);
    alone.args(["--exact", "names::without_a_search_path", "--nocapture"]);
    alone.env("PATH", folder.path().join("empty")).env_remove("QWEN2VL_FFMPEG").env(ALONE, folder.path());
    let output = alone.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("7.7 fetched by the set-up"), "{text}");
}

const ALONE: &str = "QWEN2VL_TEST_LAST_RESORT";

/// The part of the test above that needs a search path of its own; does nothing elsewhere.
#[test]
fn without_a_search_path() {
    let Some(folder) = std::env::var_os(ALONE) else { return };
    let found = Ffmpeg::find_or(None, Some(Path::new(&folder))).unwrap();
    println!("{} {}", found.version(), found.source());
    assert!(Ffmpeg::find(None).is_err() && Ffmpeg::find_or(None, Some(Path::new("/nowhere"))).is_err());
}

/// Scripts in place of the programs: what stalls is ended, what fails is quoted.
#[cfg(unix)]
#[test]
fn programs_that_stall_or_fail() {
    use std::os::unix::fs::PermissionsExt;

    let folder = tempfile::tempdir().unwrap();
    let script = |name: &str, body: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    };
    let video = folder.path().join("x.mp4");
    std::fs::write(&video, "x").unwrap();
    script("ffmpeg", "echo ffmpeg version 9.9 of a test");
    script("ffprobe", "exec sleep 600");
    let programs = Ffmpeg::find(Some(folder.path())).unwrap();
    assert_eq!(programs.version(), "9.9");
    let mut options = VideoFileOptions::default();
    options.stall = Duration::from_millis(300);
    let error = VideoFile::open(&video, &programs, &options).unwrap_err();
    assert!(matches!(error, Error::Stalled { program: "ffprobe", .. }), "{error}");

    script("ffprobe", "echo first trouble >&2; echo second trouble >&2; exit 1");
    let error = VideoFile::open(&video, &programs, &options).unwrap_err().to_string();
    assert!(error.contains("second trouble"), "{error}");
    script("ffprobe", "echo not json");
    let error = VideoFile::open(&video, &programs, &options).unwrap_err();
    assert!(matches!(error, Error::Failed { program: "ffprobe", .. }), "{error}");
    script("ffmpeg", "echo hello");
    assert!(matches!(Ffmpeg::find(Some(folder.path())), Err(Error::Failed { .. })));
}
