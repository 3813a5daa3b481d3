//! Files that are cut off, damaged, empty, or no videos at all.

use std::path::{Path, PathBuf};

use qwen2vl_preprocess::DecodeLimits;
use qwen2vl_testkit::video::ffmpeg;
use qwen2vl_video::{Error, Ffmpeg, OnBroken, VideoFile, VideoFileOptions};

fn keeping() -> VideoFileOptions {
    let mut options = VideoFileOptions::default();
    options.on_broken = OnBroken::KeepDecoded;
    options
}

fn open(path: &Path, options: &VideoFileOptions) -> Result<VideoFile, Error> {
    VideoFile::open(path, &Ffmpeg::find(None).unwrap(), options)
}

fn clip(folder: &Path, name: &str, args: &str) -> PathBuf {
    let path = folder.join(name);
    ffmpeg(args, &path);
    path
}

const CLIP: &str = "-f lavfi -i testsrc2=s=128x96:r=25:d=8 -c:v libx264 -g 25";

#[test]
fn a_file_that_ends_early_is_an_error_or_gives_what_is_there() {
    let folder = tempfile::tempdir().unwrap();
    for (name, more) in [("a.mp4", "-movflags +faststart"), ("a.mkv", "")] {
        let path = clip(folder.path(), name, &format!("{CLIP} {more} {{}}"));
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        let error = open(&path, &VideoFileOptions::default()).unwrap_err();
        assert!(matches!(error, Error::Broken { expected: 200, .. }), "{name}: {error}");
        let video = open(&path, &keeping()).unwrap();
        let shortfall = video.shortfall().unwrap().to_string();
        assert!(shortfall.contains("of 200 frames are in the file, which ends early"), "{name}: {shortfall}");
        let n_frames = video.info().n_frames;
        assert!((50..150).contains(&n_frames), "{name}: {n_frames}");
        let indices: Vec<u64> = (0..n_frames).step_by(10).collect();
        let decoded: Result<Vec<_>, _> = video.frames_at(&indices).collect();
        assert_eq!(decoded.unwrap().len(), indices.len(), "{name}");
    }
    // The index of this one was at its end: nothing can be read.
    let path = clip(folder.path(), "b.mp4", &format!("{CLIP} {{}}"));
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    let error = open(&path, &keeping()).unwrap_err();
    assert!(matches!(&error, Error::NotAVideo { reason } if !reason.is_empty()), "{error}");
}

#[test]
fn frames_that_cannot_be_decoded_are_an_error_or_the_one_before() {
    let folder = tempfile::tempdir().unwrap();
    let args = "-f lavfi -i testsrc2=s=128x96:r=10:d=3 -c:v png {}";
    let path = clip(folder.path(), "a.mov", args);
    let whole = open(&path, &VideoFileOptions::default()).unwrap();
    let all: Vec<u64> = (0..30).collect();
    let good: Vec<_> = whole.frames_at(&all).collect::<Result<_, _>>().unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    let signatures: Vec<usize> =
        bytes.windows(8).enumerate().filter(|(_, w)| *w == b"\x89PNG\r\n\x1a\n").map(|(at, _)| at).collect();
    assert_eq!(signatures.len(), 30);
    for frame in [0, 1, 7, 29] {
        bytes[signatures[frame]..][..64].fill(0);
    }
    std::fs::write(&path, bytes).unwrap();

    let video = open(&path, &VideoFileOptions::default()).unwrap();
    let error = video.frames_at(&[5, 7, 9]).collect::<Result<Vec<_>, _>>().unwrap_err();
    let text = error.to_string();
    assert!(text.contains("1 of 3 chosen frames could be decoded"), "{text}");

    let video = open(&path, &keeping()).unwrap();
    let mut frames = video.frames_at(&all);
    let kept: Vec<_> = frames.by_ref().collect::<Result<_, _>>().unwrap();
    for (i, frame) in kept.iter().enumerate() {
        let shown = match i {
            0 | 1 => 2,
            7 => 6,
            29 => 28,
            other => other,
        };
        assert!(*frame == good[shown], "frame {i}");
    }
    let damage = frames.damage().unwrap().to_string();
    assert!(damage.starts_with("26 of 30 chosen frames could be decoded"), "{damage}");

    let error = video.frames_at(&[7]).next().unwrap().unwrap_err();
    assert!(matches!(error, Error::NoFrames { .. }), "{error}");
}

#[test]
fn what_is_no_video() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let sound = clip(folder.path(), "sound.mp4", "-f lavfi -i sine=d=1 -c:a aac {}");
    let target = clip(folder.path(), "target.mp4", "-f lavfi -i testsrc2=s=64x64:d=1 -c:v libx264 {}");
    let playlist = format!("#EXTM3U\n#EXTINF:1,\n{}\n#EXT-X-ENDLIST\n", target.display());
    let list = format!("ffconcat version 1.0\nfile {}\n", target.file_name().unwrap().to_str().unwrap());
    // The index of a file, and no sample.
    let none =
        clip(folder.path(), "none.mp4", "-f lavfi -i testsrc2=s=64x64:d=1 -frames:v 0 -c:v libx264 {}");
    let cases = [
        (sound, "no video, only audio"),
        (file("text.mp4", b"Dear diary, this is not a film.\n"), "not a video that can be read: "),
        (file("binary.mp4", &[0x5a; 4096]), "not a video that can be read: "),
        (file("empty.mp4", b""), "the file is empty (0 bytes)"),
        (file("playlist.mp4", playlist.as_bytes()), "not a video that can be read: "),
        (file("list.mp4", list.as_bytes()), "not a video that can be read: "),
        (folder.path().to_owned(), "it is a folder"),
        (none, "no "),
    ];
    for (path, reason) in cases {
        let error = open(&path, &keeping()).unwrap_err().to_string();
        assert!(error.contains(reason), "{}: {error}", path.display());
        assert!(!error.contains("0x"), "addresses say nothing: {error}");
    }
    let error = open(&folder.path().join("missing.mp4"), &keeping()).unwrap_err();
    assert!(matches!(&error, Error::Io(e) if e.kind() == std::io::ErrorKind::NotFound), "{error}");
}

#[test]
fn frames_over_the_limits_are_refused_before_decoding() {
    let folder = tempfile::tempdir().unwrap();
    let path = clip(folder.path(), "a.mp4", "-f lavfi -i testsrc2=s=128x96:d=1 -c:v libx264 {}");
    for (limits, named) in [
        (DecodeLimits { max_pixels: 128 * 96 - 1, ..DecodeLimits::default() }, "128x96 = 12288 pixels"),
        (DecodeLimits { max_alloc_bytes: 1000, ..DecodeLimits::default() }, "36864 bytes"),
    ] {
        let mut options = VideoFileOptions::default();
        options.limits = limits;
        let error = open(&path, &options).unwrap_err().to_string();
        assert!(error.contains(named), "{error}");
    }
}
