//! Frames, rates and grids equal to those of both references; tools/reference/video_sampling.py wrote the data. Any
//! numbers give an error or a selection that a decoder can follow.

use proptest::prelude::*;
use qwen2vl_preprocess::{
    Error, FrameSelection, HfSampling, ImageSize, MAX_SAMPLED_FRAMES, PixelLimits, QwenVlUtilsSampling,
    VideoInfo, VideoSampling,
};
use qwen2vl_testkit::{check_all, golden, read_jsonl};
use qwen2vl_types::{GridThw, PatchGeometry};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::golden::crc32;

/// Frames, frames a second, height, width.
type Video = (u64, f64, u32, u32);

/// What the reference chose, or the exception that it ended with.
#[derive(Deserialize)]
#[serde(untagged)]
enum Outcome {
    Chosen(usize, u64, String, String, GridThw),
    /// The reference adds the frame behind the last one and fails on reading it.
    PastEnd(usize, u64, String, String, GridThw, String),
    Raised(String),
}

#[derive(Deserialize)]
struct Case<O>(Video, O, Outcome);

/// The keys of a video element, as qwen-vl-utils spells them.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
struct QwenKeys {
    fps: Option<f64>,
    nframes: Option<u32>,
    min_frames: Option<u32>,
    max_frames: Option<u32>,
    min_pixels: Option<u64>,
    max_pixels: Option<u64>,
    total_pixels: Option<u64>,
    resized_height: Option<u32>,
    resized_width: Option<u32>,
    video_start: Option<f64>,
    video_end: Option<f64>,
}

impl From<&QwenKeys> for VideoSampling {
    fn from(keys: &QwenKeys) -> Self {
        let usual = QwenVlUtilsSampling::default();
        let resized =
            keys.resized_height.zip(keys.resized_width).map(|(height, width)| ImageSize { height, width });
        Self::QwenVlUtils(QwenVlUtilsSampling {
            fps: keys.fps,
            nframes: keys.nframes,
            min_frames: keys.min_frames.unwrap_or(usual.min_frames),
            max_frames: keys.max_frames.unwrap_or(usual.max_frames),
            min_pixels: keys.min_pixels,
            max_pixels: keys.max_pixels,
            total_pixels: keys.total_pixels,
            resized,
            start_s: keys.video_start,
            end_s: keys.video_end,
        })
    }
}

#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
struct HfKeys {
    num_frames: Option<u32>,
    fps: Option<f64>,
    min_frames: Option<u32>,
    max_frames: Option<u32>,
    pixel_limits: Option<[u64; 2]>,
}

impl From<&HfKeys> for VideoSampling {
    fn from(keys: &HfKeys) -> Self {
        let usual = HfSampling::default();
        let limits = |[min_pixels, max_pixels]: [u64; 2]| PixelLimits { min_pixels, max_pixels };
        Self::Hf(HfSampling {
            num_frames: keys.num_frames,
            fps: keys.fps,
            min_frames: keys.min_frames.unwrap_or(usual.min_frames),
            max_frames: keys.max_frames.unwrap_or(usual.max_frames),
            pixel_limits: keys.pixel_limits.map_or(usual.pixel_limits, limits),
        })
    }
}

fn video((n_frames, fps, height, width): Video) -> VideoInfo {
    VideoInfo { n_frames, fps: Some(fps), size: ImageSize { height, width } }
}

fn checksum(indices: &[u64]) -> String {
    let bytes: Vec<u8> = indices.iter().flat_map(|&i| (i as u32).to_le_bytes()).collect();
    format!("{:08x}", crc32(&bytes))
}

fn compare(got: Result<FrameSelection, Error>, want: &Outcome) -> Result<(), String> {
    let (got, n_chosen, last, sum, sample_fps, grid) = match (got, want) {
        (Err(_), Outcome::Raised(_)) => return Ok(()),
        (Ok(got), Outcome::Raised(name)) => return Err(format!("got {got:?}, want {name}")),
        (Err(error), _) => return Err(format!("got the error: {error}")),
        (
            Ok(got),
            Outcome::Chosen(count, last, sum, fps, grid) | Outcome::PastEnd(count, last, sum, fps, grid, _),
        ) => (got, *count, *last, sum, fps.parse::<f64>().ok(), *grid),
    };
    let indices = &got.frame_indices;
    let size = ImageSize { height: grid.h * 14, width: grid.w * 14 };
    if indices.len() != n_chosen || indices.last() != Some(&last) || checksum(indices) != *sum {
        let start = &indices[..indices.len().min(8)];
        return Err(format!(
            "got {} frames to {:?}, want {n_chosen} to {last}; {start:?} ...",
            indices.len(),
            indices.last()
        ));
    }
    if (got.sample_fps, got.grid_thw, got.resized) != (sample_fps, grid, size) {
        let (got_fps, got_grid) = (got.sample_fps, got.grid_thw);
        return Err(format!("got {got_grid} at {got_fps:?} fps, want {grid} at {sample_fps:?}"));
    }
    Ok(())
}

/// Compares with the goldens; returns in how many cases the reference fails behind the last frame.
fn check_golden<O: DeserializeOwned + std::fmt::Debug>(name: &str) -> usize
where
    VideoSampling: for<'a> From<&'a O>,
{
    let cases: Vec<Case<O>> = read_jsonl(&golden(&format!("video-sampling/{name}.jsonl")));
    assert!(cases.len() >= 740, "{} cases", cases.len());
    check_all(
        &cases,
        |Case(video, options, _)| format!("{video:?} {options:?}"),
        |Case(numbers, options, want)| {
            let sampling = VideoSampling::from(options);
            compare(sampling.select(&video(*numbers), PatchGeometry::default()), want)
        },
    );
    cases
        .iter()
        .filter(|case| matches!(&case.2, Outcome::PastEnd(.., error) if error == "IndexError"))
        .count()
}

#[test]
fn qwen_vl_utils_frames_are_equal() {
    assert_eq!(check_golden::<QwenKeys>("qwen_vl_utils"), 0);
}

#[test]
fn hf_frames_are_equal_where_the_reference_does_not_fail() {
    let repaired = check_golden::<HfKeys>("hf");
    assert!(repaired >= 5, "{repaired} cases in which the reference reads past the end");
}

const HD: ImageSize = ImageSize { height: 720, width: 1280 };

fn qwen(change: impl FnOnce(&mut QwenVlUtilsSampling)) -> VideoSampling {
    let mut options = QwenVlUtilsSampling::default();
    change(&mut options);
    VideoSampling::QwenVlUtils(options)
}

fn hf(change: impl FnOnce(&mut HfSampling)) -> VideoSampling {
    let mut options = HfSampling::default();
    change(&mut options);
    VideoSampling::Hf(options)
}

/// 250 frames in 10 seconds.
const CLIP: VideoInfo = VideoInfo { n_frames: 250, fps: Some(25.0), size: HD };

#[test]
fn errors_name_the_option_the_value_and_the_limit() {
    struct Wrong {
        sampling: VideoSampling,
        video: VideoInfo,
        message: &'static str,
    }
    let wrong = |sampling, video, message| Wrong { sampling, video, message };
    let cases = [
        wrong(qwen(|_| ()), VideoInfo { n_frames: 0, ..CLIP }, "at least one frame"),
        wrong(hf(|_| ()), VideoInfo { n_frames: 0, ..CLIP }, "at least one frame"),
        wrong(qwen(|_| ()), VideoInfo { n_frames: 1, ..CLIP }, "1 frames to choose from, but at least 2"),
        wrong(hf(|o| o.fps = Some(2.0)), VideoInfo { n_frames: 1, ..CLIP }, "1 frames to choose from"),
        wrong(qwen(|_| ()), VideoInfo { fps: Some(0.0), ..CLIP }, "`VideoInfo::fps` is 0, but it must"),
        wrong(hf(|_| ()), VideoInfo { fps: Some(f64::NAN), ..CLIP }, "`VideoInfo::fps` is NaN"),
        wrong(qwen(|_| ()), VideoInfo { fps: None, ..CLIP }, "`fps` needs the video's frame rate"),
        wrong(
            hf(|o| o.fps = Some(2.0)),
            VideoInfo { fps: None, ..CLIP },
            "`fps` needs the video's frame rate",
        ),
        wrong(qwen(|o| o.end_s = Some(3.0)), VideoInfo { fps: None, ..CLIP }, "`start_s and end_s` needs"),
        wrong(qwen(|o| o.fps = Some(0.0)), CLIP, "`fps` is 0, but it must be a finite number above 0"),
        wrong(hf(|o| o.fps = Some(-1.0)), CLIP, "`fps` is -1"),
        wrong(hf(|o| o.fps = Some(f64::INFINITY)), CLIP, "`fps` is inf"),
        wrong(qwen(|o| (o.fps, o.nframes) = (Some(1.0), Some(8))), CLIP, "`fps` and `nframes` exclude"),
        wrong(hf(|o| (o.fps, o.num_frames) = (Some(1.0), Some(8))), CLIP, "`num_frames` and `fps` exclude"),
        wrong(qwen(|o| o.nframes = Some(1)), CLIP, "choose 1 frames, fewer than the 2"),
        wrong(hf(|o| o.num_frames = Some(0)), CLIP, "choose 0 frames, fewer than the 2"),
        wrong(qwen(|o| o.max_frames = 1), CLIP, "choose 0 frames, fewer than the 2"),
        wrong(
            qwen(|o| o.nframes = Some(251)),
            CLIP,
            "`nframes` asks for 252 frames (rounded), but there are 250",
        ),
        wrong(hf(|o| o.num_frames = Some(300)), CLIP, "`num_frames` asks for 300 frames"),
        wrong(qwen(|o| o.start_s = Some(10.0)), CLIP, "from 10 s to 10 s there are fewer than 2 frames"),
        wrong(qwen(|o| (o.start_s, o.end_s) = (Some(5.0), Some(3.0))), CLIP, "from 5 s to 3 s"),
        wrong(qwen(|o| o.start_s = Some(f64::NAN)), CLIP, "`start_s` is NaN"),
        wrong(qwen(|o| o.max_pixels = Some(9)), CLIP, "`max_pixels` is 9, but must be at least `min_pixels`"),
        wrong(hf(|o| o.pixel_limits.max_pixels = 0), CLIP, "`max_pixels` is 0"),
        wrong(hf(|_| ()), VideoInfo { n_frames: 1 << 40, ..CLIP }, "more than the limit of 65536"),
        wrong(
            qwen(|_| ()),
            VideoInfo { size: ImageSize { height: 1, width: 201 }, ..CLIP },
            "ratio of 201.00",
        ),
        wrong(
            qwen(|_| ()),
            VideoInfo { size: ImageSize { height: 0, width: 9 }, ..CLIP },
            "at least 1 pixel",
        ),
        wrong(
            qwen(|o| (o.min_pixels, o.max_pixels) = (Some(784), Some(3136))),
            VideoInfo { size: ImageSize { height: 28, width: 5600 }, ..CLIP },
            "`max_pixels` = 3136 would leave nothing of 5600x28",
        ),
    ];
    check_all(
        &cases,
        |case| format!("{:?} of {:?}", case.sampling, case.video),
        |case| match case.sampling.select(&case.video, PatchGeometry::default()) {
            Err(error) if error.to_string().contains(case.message) => Ok(()),
            other => Err(format!("got {other:?}, want an error with {:?}", case.message)),
        },
    );
}

#[test]
fn names_are_read_and_written() {
    for name in ["qwen-vl-utils", "hf"] {
        assert_eq!(name.parse::<VideoSampling>().unwrap().name(), name);
    }
    assert_eq!(VideoSampling::default().name(), "qwen-vl-utils");
    let error = "qwen".parse::<VideoSampling>().unwrap_err().to_string();
    assert_eq!(error, "`sampling` is qwen, but it must be `qwen-vl-utils` or `hf`");
}

#[test]
fn without_a_frame_rate_a_number_of_frames_still_works() {
    let video = VideoInfo { fps: None, ..CLIP };
    for sampling in [qwen(|o| o.nframes = Some(6)), hf(|o| o.num_frames = Some(6))] {
        let frames = sampling.select(&video, PatchGeometry::default()).unwrap();
        assert_eq!((frames.frame_indices.len(), frames.sample_fps), (6, None));
    }
}

/// Numbers as an attacker or a broken file would give them, and plain ones.
fn any_frames() -> impl Strategy<Value = u64> {
    prop_oneof![0..20_u64, 0..2_000_u64, 0..1_u64 << 26, any::<u64>(), Just(u64::MAX)]
}

fn any_float() -> impl Strategy<Value = f64> {
    prop_oneof![0.1..60.0, any::<f64>(), Just(f64::MIN_POSITIVE), Just(5e-324), Just(f64::MAX)]
}

fn any_count() -> impl Strategy<Value = u32> {
    prop_oneof![0..40_u32, 0..1_000_u32, any::<u32>()]
}

fn any_pixels() -> impl Strategy<Value = u64> {
    prop_oneof![0..10_000_u64, 0..2_000_000_u64, any::<u64>()]
}

fn any_size() -> impl Strategy<Value = ImageSize> {
    let side = || prop_oneof![1..4_000_u32, 1..4_000_u32, any::<u32>()];
    (side(), side()).prop_map(|(height, width)| ImageSize { height, width })
}

fn any_qwen() -> impl Strategy<Value = VideoSampling> {
    let maybe_count = || prop::option::weighted(0.3, any_count());
    let maybe_float = || prop::option::weighted(0.3, any_float());
    let maybe_pixels = || prop::option::weighted(0.3, any_pixels());
    let frames = (maybe_float(), maybe_count(), maybe_count(), maybe_count());
    let sizes = (maybe_pixels(), maybe_pixels(), maybe_pixels(), prop::option::weighted(0.1, any_size()));
    (frames, sizes, maybe_float(), maybe_float()).prop_map(|(frames, sizes, start_s, end_s)| {
        let usual = QwenVlUtilsSampling::default();
        VideoSampling::QwenVlUtils(QwenVlUtilsSampling {
            fps: frames.0,
            nframes: frames.1,
            min_frames: frames.2.unwrap_or(usual.min_frames),
            max_frames: frames.3.unwrap_or(usual.max_frames),
            min_pixels: sizes.0,
            max_pixels: sizes.1,
            total_pixels: sizes.2,
            resized: sizes.3,
            start_s,
            end_s,
        })
    })
}

fn any_hf() -> impl Strategy<Value = VideoSampling> {
    let limits = (any_pixels(), any_pixels());
    let frames = (prop::option::of(any_count()), prop::option::of(any_float()), any_count(), any_count());
    (frames, prop::option::of(limits)).prop_map(|((num_frames, fps, min_frames, max_frames), limits)| {
        let limits = limits.map(|(min_pixels, max_pixels)| PixelLimits { min_pixels, max_pixels });
        let pixel_limits = limits.unwrap_or(PixelLimits::VIDEO_CLASS_DEFAULT);
        VideoSampling::Hf(HfSampling { num_frames, fps, min_frames, max_frames, pixel_limits })
    })
}

fn any_geometry() -> impl Strategy<Value = PatchGeometry> {
    let size = || prop_oneof![Just(2_u32), 1..5_u32, any::<u32>()];
    let any = (size(), size(), size()).prop_map(|(patch_size, temporal_patch_size, merge_size)| {
        PatchGeometry { patch_size, temporal_patch_size, merge_size }
    });
    prop_oneof![3 => Just(PatchGeometry::default()), 1 => any]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn any_selection_can_be_followed(
        sampling in prop_oneof![any_qwen(), any_hf()],
        n_frames in any_frames(),
        fps in prop::option::weighted(0.9, any_float()),
        size in any_size(),
        geometry in any_geometry(),
    ) {
        let Ok(got) = sampling.select(&VideoInfo { n_frames, fps, size }, geometry) else {
            return Ok(());
        };
        let (indices, grid) = (&got.frame_indices, got.grid_thw);
        prop_assert!(indices.is_sorted());
        prop_assert!(*indices.last().unwrap() < n_frames, "{:?}", indices.last());
        prop_assert!(indices.len() as u64 <= MAX_SAMPLED_FRAMES.min(n_frames));
        let slices = geometry.temporal_patch_size as usize;
        match sampling {
            VideoSampling::QwenVlUtils(_) => prop_assert_eq!(indices.len() % 2, 0),
            VideoSampling::Hf(HfSampling { num_frames: None, fps: None, .. }) => {
                prop_assert_eq!(indices.len() as u64, n_frames);
            }
            VideoSampling::Hf(_) => prop_assert_eq!(indices.len() % slices, 0),
        }
        prop_assert_eq!(grid.t as usize, indices.len().div_ceil(slices));
        let resized = ImageSize { height: grid.h * geometry.patch_size, width: grid.w * geometry.patch_size };
        prop_assert_eq!(resized, got.resized);
        prop_assert!(grid.h > 0 && grid.h % geometry.merge_size == 0);
        prop_assert!(grid.w > 0 && grid.w % geometry.merge_size == 0);
    }

    #[test]
    fn frames_of_a_part_lie_in_it(n_frames in 2..100_000_u64, fps in 0.5..120.0, from in 0.0..1.0, to in 0.0..1.0) {
        let duration_s = n_frames as f64 / fps;
        let (start_s, end_s) = (from * duration_s, to * duration_s);
        let sampling = qwen(|o| (o.start_s, o.end_s) = (Some(start_s), Some(end_s)));
        if let Ok(got) = sampling.select(&VideoInfo { n_frames, fps: Some(fps), size: HD }, PatchGeometry::default()) {
            let time_s = |i: u64| i as f64 / fps;
            // A frame at the very limit may be counted on either side of it by the last bit.
            prop_assert!(time_s(got.frame_indices[0]) >= start_s - 1e-6);
            prop_assert!(time_s(*got.frame_indices.last().unwrap()) <= end_s + 1e-6);
        }
    }
}
