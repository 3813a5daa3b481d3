//! Which frames come, and that seeking gives the same as decoding everything.

use std::path::{Path, PathBuf};

use qwen2vl_preprocess::{ImageSize, QwenVlUtilsSampling, VideoSampling};
use qwen2vl_testkit::video::{all_frames, ffmpeg, set_rotation};
use qwen2vl_video::{Decoding, Ffmpeg, OnBroken, VideoFile, VideoFileOptions};

pub fn options(decoding: Decoding) -> VideoFileOptions {
    let mut options = VideoFileOptions::default();
    options.decoding = decoding;
    options
}

pub fn open(path: &Path) -> VideoFile {
    VideoFile::open(path, &Ffmpeg::find(None).unwrap(), &VideoFileOptions::default()).unwrap()
}

/// A clip, and what is known of it.
struct Case {
    name: &'static str,
    args: &'static str,
    n_frames: u64,
    fps: f64,
    size: [u32; 2],
    turned: u32,
}

fn case(name: &'static str, args: &'static str, n_frames: u64, fps: f64, size: [u32; 2]) -> Case {
    Case { name, args, n_frames, fps, size, turned: 0 }
}

fn cases() -> Vec<Case> {
    let small = [96, 128];
    vec![
        case(
            "long groups with B frames.mp4",
            "-f lavfi -i testsrc2=s=128x96:r=25:d=8 -c:v libx264 -g 40 -bf 3 {}",
            200,
            25.0,
            small,
        ),
        case(
            "open groups.mkv",
            "-f lavfi -i testsrc2=s=128x96:r=25:d=6 -c:v libx264 -x264-params open-gop=1:keyint=30:bframes=3 {}",
            150,
            25.0,
            small,
        ),
        case(
            "no key frames but the first.mp4",
            "-f lavfi -i testsrc2=s=128x96:r=25:d=6 -c:v libx264 -x264-params intra-refresh=1:keyint=20 {}",
            150,
            25.0,
            small,
        ),
        case(
            "television.mp4",
            "-f lavfi -i testsrc2=s=128x96:r=30000/1001 -frames:v 91 -c:v libx264 {}",
            91,
            30000.0 / 1001.0,
            small,
        ),
        case(
            "variable.mkv",
            "-f lavfi -i testsrc2=s=128x96:r=25:d=6 -vf select='not(mod(n,7))+not(mod(n,5))' -fps_mode vfr \
             -c:v libx264 -g 12 {}",
            47,
            // 47 frames; the last is shown as long as one of 25 a second.
            47.0 / 5.92,
            small,
        ),
        case("broadcast.ts", "-f lavfi -i testsrc2=s=128x96:r=25:d=4 -c:v mpeg2video -g 15 -bf 2 {}", 100, 25.0, small),
        case("without times.avi", "-f lavfi -i testsrc2=s=128x96:r=25:d=4 -c:v mpeg4 -bf 2 -g 25 {}", 100, 25.0, small),
        case("every frame.mov", "-f lavfi -i testsrc2=s=128x96:r=10:d=3 -c:v mjpeg {}", 30, 10.0, small),
        case(
            "web.webm",
            "-f lavfi -i testsrc2=s=128x96:r=30:d=2 -c:v libvpx-vp9 -g 20 -deadline realtime -cpu-used 8 {}",
            60,
            30.0,
            small,
        ),
        case("turned.mp4", "-f lavfi -i testsrc2=s=128x96:r=25:d=2 -c:v libx264 {}", 50, 25.0, [128, 96]),
        case("odd.mkv", "-f lavfi -i testsrc=s=101x67:r=25:d=1 -c:v libx264 -pix_fmt yuv444p {}", 25, 25.0, [67, 101]),
        case(
            "with sound.mp4",
            "-f lavfi -i sine=d=3 -f lavfi -i testsrc2=s=128x96:r=25:d=2 -c:v libx264 -c:a aac {}",
            50,
            25.0,
            small,
        ),
    ]
    .into_iter()
    .map(|case| if case.name == "turned.mp4" { Case { turned: 90, ..case } } else { case })
    .collect()
}

fn made(folder: &Path, case: &Case) -> PathBuf {
    let path = folder.join(case.name);
    // The name has spaces, which separate arguments.
    let plain = folder.join(format!("clip.{}", case.name.rsplit_once('.').unwrap().1));
    ffmpeg(case.args, &plain);
    std::fs::rename(plain, &path).unwrap();
    if case.turned != 0 {
        set_rotation(&path, case.turned);
    }
    path
}

/// The first frame that differs.
fn differs(video: &VideoFile, indices: &[u64], all: &[u8]) -> Option<String> {
    let bytes = video.info().size.pixels() as usize * 3;
    let mut count = 0;
    for (frame, index) in video.frames_at(indices).zip(indices) {
        let frame = match frame {
            Ok(frame) => frame,
            Err(error) => return Some(format!("frame {index}: {error}")),
        };
        count += 1;
        if frame.size() != video.info().size || frame.as_raw() != &all[*index as usize * bytes..][..bytes] {
            let found = all.chunks(bytes).position(|other| other == frame.as_raw());
            return Some(format!("frame {index} is not itself but {found:?}"));
        }
    }
    (count != indices.len()).then(|| format!("{count} of {} frames", indices.len()))
}

#[test]
fn seeking_and_decoding_everything_give_the_same_frames() {
    let folder = tempfile::tempdir().unwrap();
    let mut failures = Vec::new();
    for case in cases() {
        let path = made(folder.path(), &case);
        let all = all_frames(&path);
        for decoding in [Decoding::Auto, Decoding::Sequential, Decoding::Seek] {
            let video = VideoFile::open(&path, &Ffmpeg::find(None).unwrap(), &options(decoding))
                .unwrap_or_else(|error| panic!("{}: {error}", case.name));
            let info = video.info();
            let bytes = info.size.pixels() as usize * 3;
            if (info.n_frames, [info.size.height, info.size.width]) != (case.n_frames, case.size)
                || all.len() != bytes * case.n_frames as usize
                || info.fps.is_none_or(|fps| (fps - case.fps).abs() > case.fps * 1e-3)
            {
                failures.push(format!("{}: {info:?}, {} bytes", case.name, all.len()));
                break;
            }
            let last = case.n_frames - 1;
            let lists: [Vec<u64>; 4] = [
                (0..case.n_frames).collect(),
                (0..case.n_frames).step_by(17).collect(),
                vec![last / 2, last / 2, last],
                vec![last],
            ];
            for list in &lists {
                if let Some(difference) = differs(&video, list, &all) {
                    failures.push(format!("{} {decoding:?}: {difference}", case.name));
                }
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn what_is_known_before_decoding() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.mp4");
    ffmpeg("-f lavfi -i testsrc2=s=128x96:r=25:d=2 -vf setsar=4/3 -c:v libx264 {}", &path);
    set_rotation(&path, 270);
    let video = open(&path);
    assert_eq!(video.codec(), "h264");
    assert_eq!(video.rotation().degrees, 270.0);
    assert_eq!(video.sample_aspect_ratio(), Some((4, 3)));
    assert_eq!(video.info().size, ImageSize { height: 128, width: 96 });
    assert_eq!(video.timestamp_s(49), Some(1.96));
    assert_eq!(video.timestamp_s(50), None);
    assert_eq!(video.shortfall(), None);
    assert_eq!(video.path(), path);
}

#[test]
fn a_part_of_a_video_and_its_selection() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.mp4");
    ffmpeg("-f lavfi -i testsrc2=s=128x96:r=25:d=8 -c:v libx264 -g 50 {}", &path);
    let video = open(&path);
    let sampling = QwenVlUtilsSampling { start_s: Some(4.0), end_s: Some(6.0), ..Default::default() };
    let selection = VideoSampling::QwenVlUtils(sampling).select(&video.info(), Default::default()).unwrap();
    assert_eq!(selection.frame_indices, [100, 117, 133, 150]);
    let frames: Vec<_> = video.frames(&selection).collect::<Result<_, _>>().unwrap();
    let all = all_frames(&path);
    let bytes = video.info().size.pixels() as usize * 3;
    for (frame, index) in frames.iter().zip([100, 117, 133, 150]) {
        assert!(frame.as_raw() == &all[index * bytes..][..bytes], "frame {index}");
    }
}

#[test]
fn frames_that_are_not_there_are_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.mp4");
    ffmpeg("-f lavfi -i testsrc2=s=128x96:r=25:d=1 -c:v libx264 {}", &path);
    let video = open(&path);
    for (indices, named) in [(vec![3, 25], "frame 25 "), (vec![7, 6], "frame 6 ")] {
        let mut frames = video.frames_at(&indices);
        let error = frames.next().unwrap().unwrap_err().to_string();
        assert!(error.starts_with(named) && error.contains("has 25"), "{error}");
        assert!(frames.next().is_none());
    }
    assert_eq!(video.frames_at(&[]).count(), 0);
}

#[test]
fn a_reader_that_is_dropped_or_cancelled_ends_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.mp4");
    ffmpeg("-f lavfi -i testsrc2=s=640x480:r=25:d=20 -c:v libx264 -preset ultrafast {}", &path);
    let video = open(&path);
    let all: Vec<u64> = (0..video.info().n_frames).collect();
    let mut frames = video.frames_at(&all);
    assert!(frames.next().unwrap().is_ok());
    drop(frames);
    let cancelled = || true;
    let error = video.frames_at(&all).unless(&cancelled).next().unwrap().unwrap_err();
    assert!(matches!(error, qwen2vl_video::Error::Cancelled), "{error}");
    let opened = VideoFile::open_unless(
        &path,
        &Ffmpeg::find(None).unwrap(),
        &VideoFileOptions::default(),
        Some(&cancelled),
    );
    assert!(matches!(opened, Err(qwen2vl_video::Error::Cancelled)));
    assert_eq!(OnBroken::default(), OnBroken::Error);
}
