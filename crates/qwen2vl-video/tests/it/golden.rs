//! Frames against those of torchcodec, the reader that qwen-vl-utils prefers: tools/reference/video.py.

use qwen2vl_preprocess::{DecodeOptions, decode_image};
use qwen2vl_testkit::{check_all, golden, read_jsonl};
use serde::Deserialize;

use crate::frames::open;

#[derive(Debug, Deserialize)]
struct Case {
    clip: String,
    n_frames: u64,
    fps: f64,
    indices: Vec<u64>,
    images: Vec<String>,
}

/// With the ffmpeg that made the goldens every frame is equal to the bit. Others may round otherwise, and put colors
/// of half the resolution between pixels otherwise: PyAV's, of 10-bit video, by 5 levels of 255 on average.
const MEAN_TOLERANCE: f64 = 6.0;

#[test]
fn frames_equal_torchcodecs() {
    let cases: Vec<Case> = read_jsonl(&golden("video/frames.jsonl"));
    assert!(cases.len() >= 8);
    check_all(
        &cases,
        |case| case.clip.clone(),
        |case| {
            let video = open(&golden(&format!("video/{}", case.clip)));
            let info = video.info();
            let fps = info.fps.unwrap_or_default();
            if info.n_frames != case.n_frames || (fps - case.fps).abs() > case.fps * 1e-9 {
                return Err(format!("{info:?}"));
            }
            for (frame, image) in video.frames_at(&case.indices).zip(&case.images) {
                let bytes = std::fs::read(golden(&format!("video/{image}"))).map_err(|e| e.to_string())?;
                let want = decode_image(&bytes, &DecodeOptions::default()).map_err(|e| e.to_string())?;
                let frame = frame.map_err(|e| e.to_string())?;
                let pairs = frame.as_raw().iter().zip(want.as_raw());
                let sum: u64 = pairs.map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
                let mean = sum as f64 / want.as_raw().len() as f64;
                let same_program = info.n_frames > 0 && programs_are_those_of_the_goldens();
                let limit = if same_program { 0.0 } else { MEAN_TOLERANCE };
                if frame.size() != want.size() || mean > limit {
                    return Err(format!("{image}: differs by {mean:.3} on average, at most {limit} allowed"));
                }
            }
            Ok(())
        },
    );
}

/// Whether ffmpeg is the version that the goldens were made with, which the manifest names.
fn programs_are_those_of_the_goldens() -> bool {
    #[derive(Deserialize)]
    struct Manifest {
        ffmpeg: String,
    }
    let manifest: Manifest = qwen2vl_testkit::read_json(&golden("video/MANIFEST.json"));
    let upstream = |version: &str| version.split('-').next().unwrap_or_default().to_owned();
    let found = qwen2vl_video::Ffmpeg::find(None).unwrap();
    upstream(found.version()) == upstream(&manifest.ffmpeg)
}
