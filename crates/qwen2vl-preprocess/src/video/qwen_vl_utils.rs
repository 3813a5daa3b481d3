//! Frame sampling of the Python package qwen-vl-utils 0.0.14, `vision_process.py`, for a video file.
//!
//! Times and indices are those of its torchcodec and decord readers, which cut by frame number; its torchvision reader
//! cuts by time stamp. A list of frames is not sampled by it at all and is not handled here.

use qwen2vl_types::PatchGeometry;

use super::{FrameSelection, VideoInfo, check_count, check_rate, selection, torch};
use crate::{Error, ImageSize, MAX_ASPECT_RATIO};

const FPS: f64 = 2.0;
const FRAME_FACTOR: u64 = 2;
const IMAGE_MIN_TOKENS: f64 = 4.0;
const IMAGE_MAX_TOKENS: f64 = 16_384.0;
const VIDEO_MIN_TOKENS: u64 = 128;
const VIDEO_MAX_TOKENS: f64 = 768.0;
/// `MODEL_SEQ_LEN`, which the reference reads from the environment, and the part of it that a video may fill.
const MODEL_TOKENS: f64 = 128_000.0;
const VIDEO_SHARE: f64 = 0.9;

/// The keys of a video element, under the package's own names.
///
/// A number that the package would take but that means nothing (an `fps` of 0) is an error.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct QwenVlUtilsSampling {
    /// Frames a second to choose; 2 where neither this nor `nframes` is given.
    pub fps: Option<f64>,
    /// Frames to choose, rounded to an even number, ties to a multiple of 4. Excludes `fps`.
    pub nframes: Option<u32>,
    /// Fewest frames by `fps`, rounded up to even; `max_frames` wins where they contradict.
    pub min_frames: u32,
    /// Most frames by `fps`, rounded down to even.
    pub max_frames: u32,
    /// Fewest pixels of a frame; 128 tokens if not given.
    pub min_pixels: Option<u64>,
    /// Most pixels of a frame, on top of the limit that `total_pixels` sets; 768 tokens are the most in any case.
    pub max_pixels: Option<u64>,
    /// Most pixels of all temporal patches together (as if each were one frame); 90 % of 128,000 tokens if not given.
    /// `min_pixels * 1.05` wins where there are too many frames for it.
    pub total_pixels: Option<u64>,
    /// `resized_height` and `resized_width`: a size to be rounded, in place of all limits.
    pub resized: Option<ImageSize>,
    /// `video_start`: seconds from the beginning. Before it no frame is taken.
    pub start_s: Option<f64>,
    /// `video_end`: seconds from the beginning. After it no frame is taken.
    pub end_s: Option<f64>,
}

impl Default for QwenVlUtilsSampling {
    fn default() -> Self {
        Self {
            fps: None,
            nframes: None,
            min_frames: 4,
            max_frames: 768,
            min_pixels: None,
            max_pixels: None,
            total_pixels: None,
            resized: None,
            start_s: None,
            end_s: None,
        }
    }
}

/// Frames to choose from, both ends included.
#[derive(Clone, Copy)]
struct FrameRange {
    first: u64,
    last: u64,
}

impl FrameRange {
    fn len(self) -> u64 {
        self.last - self.first + 1
    }
}

impl QwenVlUtilsSampling {
    /// `_read_video_torchcodec`, then the size of `fetch_video`.
    pub(super) fn select(&self, video: &VideoInfo, geometry: PatchGeometry) -> Result<FrameSelection, Error> {
        let range = self.range(video)?;
        let count = check_count(self.count(range.len(), video.fps)?)?;
        let resized = self.size(video.size, count, geometry.factor())?;
        let indices = torch::linspace_rounded(range.first, range.last, count);
        Ok(selection(indices, range.len(), video, resized, geometry))
    }

    /// `calculate_video_frame_range`.
    fn range(&self, video: &VideoInfo) -> Result<FrameRange, Error> {
        let all = FrameRange { first: 0, last: video.n_frames - 1 };
        if self.start_s.is_none() && self.end_s.is_none() {
            return Ok(all);
        }
        for (name, time) in [("start_s", self.start_s), ("end_s", self.end_s)] {
            if time.is_some_and(f64::is_nan) {
                return Err(Error::Option { name, value: "NaN".to_owned(), rule: "it must be a number" });
            }
        }
        let fps = video.fps.ok_or(Error::UnknownFrameRate { option: "start_s and end_s" })?;
        let duration_s = video.n_frames as f64 / fps;
        let frame = |time: f64| time.min(duration_s).max(0.0) * fps;
        // A start at the very end is the frame behind the last one, and fails below.
        let first = self.start_s.map_or(all.first, |time| frame(time).ceil() as u64);
        let last = self.end_s.map_or(all.last, |time| (frame(time).floor() as u64).min(all.last));
        if first >= last {
            let (start_s, end_s) = (self.start_s.unwrap_or(0.0), self.end_s.unwrap_or(duration_s));
            return Err(Error::TimeRange { start_s, end_s, duration_s });
        }
        Ok(FrameRange { first, last })
    }

    /// `smart_nframes`: an even number, at least 2 and at most `n_frames`.
    fn count(&self, n_frames: u64, video_fps: Option<f64>) -> Result<u64, Error> {
        check_rate("fps", self.fps)?;
        if n_frames < FRAME_FACTOR {
            return Err(Error::TooFewFrames { n_frames, needed: FRAME_FACTOR });
        }
        if let Some(asked) = self.nframes {
            if self.fps.is_some() {
                return Err(Error::Exclusive { first: "fps", second: "nframes" });
            }
            let wanted = (f64::from(asked) / 2.0).round_ties_even() as u64 * FRAME_FACTOR;
            return match wanted {
                0 => Err(Error::TooFewSampled { chosen: asked.into(), needed: FRAME_FACTOR }),
                _ if wanted > n_frames => Err(Error::FrameCount { name: "nframes", wanted, n_frames }),
                _ => Ok(wanted),
            };
        }
        let video_fps = video_fps.ok_or(Error::UnknownFrameRate { option: "fps" })?;
        let least = u64::from(self.min_frames).next_multiple_of(FRAME_FACTOR);
        let most = u64::from(self.max_frames) / FRAME_FACTOR * FRAME_FACTOR;
        let wanted = n_frames as f64 / video_fps * self.fps.unwrap_or(FPS);
        let wanted = wanted.max(least as f64).min(most as f64).min(n_frames as f64);
        match (wanted / 2.0).floor() as u64 * FRAME_FACTOR {
            0 => Err(Error::TooFewSampled { chosen: wanted as u64, needed: FRAME_FACTOR }),
            count => Ok(count),
        }
    }

    /// The second half of `fetch_video`: the budget of a frame and its size. `factor` squared is a token.
    fn size(&self, size: ImageSize, count: usize, factor: u32) -> Result<ImageSize, Error> {
        let token = f64::from(factor) * f64::from(factor);
        if let Some(wanted) = self.resized {
            return smart_resize(wanted, factor, IMAGE_MIN_TOKENS * token, IMAGE_MAX_TOKENS * token);
        }
        let min_pixels = self.min_pixels.unwrap_or(VIDEO_MIN_TOKENS * u64::from(factor).pow(2));
        let total = self.total_pixels.map_or(MODEL_TOKENS * token * VIDEO_SHARE, |total| total as f64);
        let share = total / count as f64 * FRAME_FACTOR as f64;
        let limit = (VIDEO_MAX_TOKENS * token).min(share).max((min_pixels as f64 * 1.05).trunc());
        let max_pixels = match self.max_pixels {
            Some(max_pixels) if max_pixels < min_pixels => {
                return Err(Error::PixelRange { min_pixels, max_pixels });
            }
            Some(max_pixels) => limit.min(max_pixels as f64),
            None => limit,
        };
        smart_resize(size, factor, min_pixels as f64, max_pixels)
    }
}

/// `smart_resize` of qwen-vl-utils. Other than that of transformers it rounds a small side up to `factor` first, takes
/// fractions of a pixel as limits, and lets a thin strip shrink to nothing, which is an error here.
fn smart_resize(size: ImageSize, factor: u32, min_pixels: f64, max_pixels: f64) -> Result<ImageSize, Error> {
    let ImageSize { height, width } = size;
    if height == 0 || width == 0 {
        return Err(Error::NoPixels { height, width });
    }
    if max_pixels < 1.0 {
        let value = max_pixels.to_string();
        return Err(Error::Option { name: "max_pixels", value, rule: "it must be at least 1" });
    }
    let ratio = f64::from(height.max(width)) / f64::from(height.min(width));
    if ratio > MAX_ASPECT_RATIO {
        return Err(Error::AspectRatio { height, width, ratio, limit: MAX_ASPECT_RATIO });
    }
    let (h, w, f) = (f64::from(height), f64::from(width), f64::from(factor));
    let pixels = size.pixels() as f64;
    let round = |side: f64| ((side / f).round_ties_even() * f).max(f);
    let (mut new_h, mut new_w) = (round(h), round(w));
    if new_h * new_w > max_pixels {
        let beta = (pixels / max_pixels).sqrt();
        (new_h, new_w) = ((h / beta / f).floor() * f, (w / beta / f).floor() * f);
    } else if new_h * new_w < min_pixels {
        let beta = (min_pixels / pixels).sqrt();
        (new_h, new_w) = ((h * beta / f).ceil() * f, (w * beta / f).ceil() * f);
    }
    if new_h > f64::from(u32::MAX) || new_w > f64::from(u32::MAX) {
        return Err(Error::ResizedTooLarge { height, width, min_pixels: min_pixels as u64 });
    }
    let resized = ImageSize { height: new_h as u32, width: new_w as u32 };
    if resized.pixels() == 0 {
        return Err(Error::ResizedToNothing { height, width, max_pixels: max_pixels as u64 });
    }
    Ok(resized)
}
