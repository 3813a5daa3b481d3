//! Videos of a request: where frames come from, and which of them are chosen.

mod prepared;

use std::path::PathBuf;
use std::sync::Arc;

use qwen2vl_preprocess::{HfSampling, ImageSize, PixelLimits, QwenVlUtilsSampling, VideoSampling};
use qwen2vl_tokenizer::{VideoPart, VideoSource};
use qwen2vl_video::OnBroken;

use crate::{Error, ImageInput};

pub(crate) use prepared::Preparing;
pub use prepared::{PreparedVideo, find_ffmpeg};

/// A video: a file, frames, or an animated image.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct VideoInput {
    /// Where its frames come from.
    pub content: VideoContent,
    /// How they are chosen; of a list of frames none is left out.
    pub options: VideoOptions,
}

/// Where the frames of a video come from.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum VideoContent {
    /// Frames of one size, in order, sampled by the caller; with an odd number the last is repeated, as the reference
    /// does.
    Frames(Arc<[ImageInput]>),
    /// Any file that ffmpeg reads, see `qwen2vl-video`.
    File(PathBuf),
    /// An animated GIF, WebP or APNG.
    Animation(Arc<ImageInput>),
}

/// Which reference chooses frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Sampling {
    /// qwen-vl-utils 0.0.14: 2 frames a second, 4 to 768 of them.
    #[default]
    QwenVlUtils,
    /// `Qwen2VLVideoProcessor` of Hugging Face transformers 4.57.6: all frames, if no number or rate is given.
    Hf,
}

/// How the frames of a video are chosen; `None` leaves it to the request, then to the reference. See
/// [`QwenVlUtilsSampling`] and [`HfSampling`] for what each does.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct VideoOptions {
    /// Which reference chooses.
    pub sampling: Option<Sampling>,
    /// Frames a second to choose.
    pub fps: Option<f64>,
    /// Frames to choose.
    pub nframes: Option<u32>,
    /// Fewest frames by `fps`.
    pub min_frames: Option<u32>,
    /// Most frames by `fps`.
    pub max_frames: Option<u32>,
    /// Fewest pixels of a frame.
    pub min_pixels: Option<u64>,
    /// Most pixels of a frame.
    pub max_pixels: Option<u64>,
    /// Most pixels of all frames together; qwen-vl-utils only.
    pub total_pixels: Option<u64>,
    /// A size for the frames, to be rounded, in place of all limits; qwen-vl-utils only.
    pub resized: Option<ImageSize>,
    /// Seconds from the beginning; before it no frame is taken. qwen-vl-utils only.
    pub start_s: Option<f64>,
    /// Seconds from the beginning; after it no frame is taken. qwen-vl-utils only.
    pub end_s: Option<f64>,
    /// What becomes of a video of which a part cannot be decoded; an error if not set.
    pub on_broken: Option<OnBroken>,
    /// ffmpeg's file or its folder, instead of the one found.
    pub ffmpeg: Option<PathBuf>,
}

impl VideoInput {
    /// A video file.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self { content: VideoContent::File(path.into()), options: VideoOptions::default() }
    }

    /// An animated image.
    pub fn animation(image: impl Into<ImageInput>) -> Self {
        Self { content: VideoContent::Animation(Arc::new(image.into())), options: VideoOptions::default() }
    }

    /// Sets how frames are chosen.
    #[must_use]
    pub fn options(mut self, options: VideoOptions) -> Self {
        self.options = options;
        self
    }

    /// The images it is read from: the frames of a list, or the animation.
    pub fn images(&self) -> &[ImageInput] {
        match &self.content {
            VideoContent::Frames(frames) => frames,
            VideoContent::Animation(image) => std::slice::from_ref(image.as_ref()),
            VideoContent::File(_) => &[],
        }
    }

    /// The video that a part of a message names; `None` for one given apart, whose keys come on top of the given
    /// video's options.
    pub fn of_part(part: &VideoPart) -> Option<Self> {
        let video = match &part.source {
            VideoSource::None => return None,
            VideoSource::Frames(frames) => frames.iter().map(String::as_str).collect(),
            VideoSource::File(file) => Self::named(file),
        };
        Some(video.options(VideoOptions::of_part(part)))
    }

    /// A file as messages and tables name it: a path or a `file:` URL; what is named like an animated image is one.
    pub fn named(source: &str) -> Self {
        let image = ImageInput::from(source);
        let is_image = |path: &std::path::Path| {
            let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
            ["gif", "webp", "png", "apng"].iter().any(|e| e.eq_ignore_ascii_case(extension))
        };
        match image {
            ImageInput::Path(path) if !is_image(&path) => Self::file(path),
            image => Self::animation(image),
        }
    }
}

/// Frames.
impl<I: Into<ImageInput>> FromIterator<I> for VideoInput {
    fn from_iter<T: IntoIterator<Item = I>>(frames: T) -> Self {
        let content = VideoContent::Frames(frames.into_iter().map(Into::into).collect());
        Self { content, options: VideoOptions::default() }
    }
}

impl VideoOptions {
    /// The keys of a message's part.
    pub(crate) fn of_part(part: &VideoPart) -> Self {
        let resized = part.resized_height.zip(part.resized_width);
        Self {
            fps: part.fps,
            nframes: part.nframes,
            min_frames: part.min_frames,
            max_frames: part.max_frames,
            min_pixels: part.min_pixels,
            max_pixels: part.max_pixels,
            total_pixels: part.total_pixels,
            resized: resized.map(|(height, width)| ImageSize { height, width }),
            start_s: part.video_start,
            end_s: part.video_end,
            ..Self::default()
        }
    }

    /// These options where they are set, else `defaults`. A rate and a number of frames exclude each other, so either
    /// one set here puts both of the defaults aside.
    #[must_use]
    pub fn or(&self, defaults: &Self) -> Self {
        let counts = self.fps.is_some() || self.nframes.is_some();
        Self {
            sampling: self.sampling.or(defaults.sampling),
            fps: self.fps.or(defaults.fps.filter(|_| !counts)),
            nframes: self.nframes.or(defaults.nframes.filter(|_| !counts)),
            min_frames: self.min_frames.or(defaults.min_frames),
            max_frames: self.max_frames.or(defaults.max_frames),
            min_pixels: self.min_pixels.or(defaults.min_pixels),
            max_pixels: self.max_pixels.or(defaults.max_pixels),
            total_pixels: self.total_pixels.or(defaults.total_pixels),
            resized: self.resized.or(defaults.resized),
            start_s: self.start_s.or(defaults.start_s),
            end_s: self.end_s.or(defaults.end_s),
            on_broken: self.on_broken.or(defaults.on_broken),
            ffmpeg: self.ffmpeg.clone().or_else(|| defaults.ffmpeg.clone()),
        }
    }

    /// The sampling that these options ask for; `limits` are the model's and the request's, `factor` the side of a token.
    pub(crate) fn sampling(&self, limits: FrameLimits, factor: u32) -> Result<VideoSampling, Error> {
        let min_pixels = self.min_pixels.or(limits.min_pixels);
        let max_pixels = self.max_pixels.or(limits.max_pixels);
        match self.sampling.unwrap_or_default() {
            Sampling::QwenVlUtils => {
                let defaults = QwenVlUtilsSampling::default();
                // A limit below the reference's own lower one takes that along.
                let least = 128 * u64::from(factor).pow(2);
                let min_pixels = min_pixels.or(max_pixels.filter(|max| *max < least));
                Ok(VideoSampling::QwenVlUtils(QwenVlUtilsSampling {
                    fps: self.fps,
                    nframes: self.nframes,
                    min_frames: self.min_frames.unwrap_or(defaults.min_frames),
                    max_frames: self.max_frames.unwrap_or(defaults.max_frames),
                    min_pixels,
                    max_pixels,
                    total_pixels: self.total_pixels,
                    resized: self.resized,
                    start_s: self.start_s,
                    end_s: self.end_s,
                }))
            }
            Sampling::Hf => {
                let not_there = [
                    ("total_pixels", self.total_pixels.is_some()),
                    ("resized_height and resized_width", self.resized.is_some()),
                    ("video_start", self.start_s.is_some()),
                    ("video_end", self.end_s.is_some()),
                ];
                if let Some((name, _)) = not_there.into_iter().find(|(_, set)| *set) {
                    return Err(qwen2vl_runtime::Error::InvalidOption {
                        name,
                        value: "set".to_owned(),
                        allowed: "left out with the sampling `hf`, which has no such option".into(),
                    }
                    .into());
                }
                let defaults = HfSampling::default();
                Ok(VideoSampling::Hf(HfSampling {
                    num_frames: self.nframes,
                    fps: self.fps,
                    min_frames: self.min_frames.unwrap_or(defaults.min_frames),
                    max_frames: self.max_frames.unwrap_or(defaults.max_frames),
                    pixel_limits: PixelLimits {
                        min_pixels: min_pixels.unwrap_or(limits.model.min_pixels),
                        max_pixels: max_pixels.unwrap_or(limits.model.max_pixels),
                    },
                }))
            }
        }
    }
}

/// Limits of a frame from outside of the video's options.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FrameLimits {
    pub min_pixels: Option<u64>,
    pub max_pixels: Option<u64>,
    pub model: PixelLimits,
}
