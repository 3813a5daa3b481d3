//! Which frames of a video the model sees, and how large: arithmetic on the number of frames, the frame rate and the
//! size. Decodes nothing.
//!
//! Two references, chosen by name, that agree on little: `qwen-vl-utils` 0.0.14, which the model's own documentation
//! uses, and the video processor of Hugging Face transformers 4.57.6. Where either fails late or leaves the video
//! (an index past the end, a size of 0), there is an error here, or the repair that the option's documentation names.

mod hf;
mod qwen_vl_utils;
mod torch;

use std::str::FromStr;

use qwen2vl_types::{GridThw, PatchGeometry};

use crate::preprocessor::check_geometry;
use crate::{Error, ImageSize};

pub use hf::HfSampling;
pub use qwen_vl_utils::QwenVlUtilsSampling;

/// Most frames that are chosen from one video. Two frames are at least one token, and Qwen2-VL has 32,768 positions.
pub const MAX_SAMPLED_FRAMES: u64 = 65_536;

/// What has to be known about a video.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct VideoInfo {
    /// Frames in the file.
    pub n_frames: u64,
    /// Frames a second, on average; `None` where the container does not say. Only some options need it.
    pub fps: Option<f64>,
    /// Size of each frame.
    pub size: ImageSize,
}

/// The frames chosen from a video.
#[derive(Debug, Clone, PartialEq)]
pub struct FrameSelection {
    /// Positions in the video from 0, ascending; one may come twice.
    pub frame_indices: Vec<u64>,
    /// Chosen frames a second; `None` where the video's own rate is unknown.
    pub sample_fps: Option<f64>,
    /// The size each frame is resized to.
    pub resized: ImageSize,
    /// The patch grid of the clip. An odd frame at the end is repeated, as
    /// [`Preprocessor::preprocess_frames`](crate::Preprocessor::preprocess_frames) does it.
    pub grid_thw: GridThw,
}

/// How frames are chosen, and their limits.
///
/// ```
/// use qwen2vl_preprocess::{ImageSize, VideoInfo, VideoSampling};
///
/// let sampling: VideoSampling = "qwen-vl-utils".parse()?;
/// let video = VideoInfo { n_frames: 250, fps: Some(25.0), size: ImageSize { height: 720, width: 1280 } };
/// let frames = sampling.select(&video, Default::default())?;
/// assert_eq!(frames.frame_indices[..3], [0, 13, 26]);
/// assert_eq!(frames.sample_fps, Some(2.0));
/// assert_eq!(frames.grid_thw.to_string(), "[10, 40, 72]");
/// # Ok::<(), qwen2vl_preprocess::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum VideoSampling {
    /// As qwen-vl-utils 0.0.14; its name is `qwen-vl-utils`.
    QwenVlUtils(QwenVlUtilsSampling),
    /// As Hugging Face transformers 4.57.6; its name is `hf`.
    Hf(HfSampling),
}

impl VideoSampling {
    /// The name that [`FromStr`] reads.
    pub fn name(&self) -> &'static str {
        match self {
            Self::QwenVlUtils(_) => "qwen-vl-utils",
            Self::Hf(_) => "hf",
        }
    }

    /// Chooses frames and their size.
    ///
    /// # Errors
    ///
    /// [`Error::NoFrames`], [`Error::TooFewFrames`], [`Error::TooFewSampled`], [`Error::FrameCount`],
    /// [`Error::TooManyFrames`] over [`MAX_SAMPLED_FRAMES`], [`Error::UnknownFrameRate`], [`Error::Exclusive`],
    /// [`Error::TimeRange`], [`Error::PixelRange`], [`Error::Option`] for an option out of range, and as
    /// [`smart_resize`](crate::smart_resize()).
    pub fn select(&self, video: &VideoInfo, geometry: PatchGeometry) -> Result<FrameSelection, Error> {
        check_geometry(geometry)?;
        if video.n_frames == 0 {
            return Err(Error::NoFrames);
        }
        check_rate("VideoInfo::fps", video.fps)?;
        match self {
            Self::QwenVlUtils(options) => options.select(video, geometry),
            Self::Hf(options) => options.select(video, geometry),
        }
    }
}

/// qwen-vl-utils with its own defaults.
impl Default for VideoSampling {
    fn default() -> Self {
        Self::QwenVlUtils(QwenVlUtilsSampling::default())
    }
}

/// By name, with the defaults of that reference.
impl FromStr for VideoSampling {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        match name {
            "qwen-vl-utils" => Ok(Self::QwenVlUtils(QwenVlUtilsSampling::default())),
            "hf" => Ok(Self::Hf(HfSampling::default())),
            _ => Err(Error::Option {
                name: "sampling",
                value: name.to_owned(),
                rule: "it must be `qwen-vl-utils` or `hf`",
            }),
        }
    }
}

/// Frames a second must be a number that can be divided by.
fn check_rate(name: &'static str, fps: Option<f64>) -> Result<(), Error> {
    match fps {
        Some(value) if !(value.is_finite() && value > 0.0) => {
            Err(Error::Option { name, value: value.to_string(), rule: "it must be a finite number above 0" })
        }
        _ => Ok(()),
    }
}

/// Before anything is allocated for them.
fn check_count(wanted: u64) -> Result<usize, Error> {
    match usize::try_from(wanted) {
        Ok(count) if wanted <= MAX_SAMPLED_FRAMES => Ok(count),
        _ => Err(Error::TooManyFrames { wanted, limit: MAX_SAMPLED_FRAMES }),
    }
}

/// Puts together what both references compute in the same way. `n_frames` of the video were there to choose from.
fn selection(
    frame_indices: Vec<u64>,
    n_frames: u64,
    video: &VideoInfo,
    resized: ImageSize,
    geometry: PatchGeometry,
) -> FrameSelection {
    let n_chosen = frame_indices.len();
    let patch = geometry.patch_size;
    // At most `MAX_SAMPLED_FRAMES`, which 32 bits hold.
    let t = n_chosen.div_ceil(geometry.temporal_patch_size as usize) as u32;
    FrameSelection {
        frame_indices,
        sample_fps: video.fps.map(|fps| n_chosen as f64 / n_frames as f64 * fps),
        resized,
        grid_thw: GridThw { t, h: resized.height / patch, w: resized.width / patch },
    }
}
