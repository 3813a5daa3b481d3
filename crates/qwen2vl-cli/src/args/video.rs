//! Which frames of videos are seen, as flags.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use qwen2vl_pipeline::{OnBroken, Sampling, VideoOptions};

#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Videos")]
pub struct VideoArgs {
    /// Which reference chooses frames [default: qwen-vl-utils]
    #[arg(long, value_enum, value_name = "NAME", env = "QWEN2VL_VIDEO_SAMPLING")]
    pub video_sampling: Option<SamplingArg>,
    /// Frames a second to choose [default: 2; with hf all frames]
    #[arg(long, value_name = "RATE", env = "QWEN2VL_FPS", conflicts_with = "nframes")]
    pub fps: Option<f64>,
    /// Frames to choose
    #[arg(long, value_name = "N", env = "QWEN2VL_NFRAMES")]
    pub nframes: Option<u32>,
    /// Fewest frames by --fps [default: 4]
    #[arg(long, value_name = "N", env = "QWEN2VL_MIN_FRAMES")]
    pub min_frames: Option<u32>,
    /// Most frames by --fps [default: 768]
    #[arg(long, value_name = "N", env = "QWEN2VL_MAX_FRAMES")]
    pub max_frames: Option<u32>,
    /// Fewest pixels of a frame [default: 100352 (128 tokens), or --min-pixels]
    #[arg(long, value_name = "N", env = "QWEN2VL_VIDEO_MIN_PIXELS")]
    pub video_min_pixels: Option<u64>,
    /// Most pixels of a frame [default: 602112 (768 tokens), or --max-pixels]
    #[arg(long, value_name = "N", env = "QWEN2VL_VIDEO_MAX_PIXELS")]
    pub video_max_pixels: Option<u64>,
    /// Most pixels of all frames together [default: 90316800 (115200 tokens)]
    #[arg(long, value_name = "N", env = "QWEN2VL_TOTAL_PIXELS")]
    pub total_pixels: Option<u64>,
    /// Take no frame before this many seconds
    #[arg(long, value_name = "SECONDS", env = "QWEN2VL_VIDEO_START")]
    pub video_start: Option<f64>,
    /// Take no frame after this many seconds
    #[arg(long, value_name = "SECONDS", env = "QWEN2VL_VIDEO_END")]
    pub video_end: Option<f64>,
    /// What becomes of a video of which a part cannot be decoded [default: error]
    #[arg(long, value_enum, value_name = "WHAT", env = "QWEN2VL_ON_BROKEN_VIDEO")]
    pub on_broken_video: Option<OnBrokenArg>,
    /// Show animated GIF, PNG and WebP files as videos, not as their first frame
    #[arg(long, env = "QWEN2VL_ANIMATIONS_AS_VIDEOS")]
    pub animations_as_videos: bool,
    /// ffmpeg, or the folder that it and ffprobe are in [default: those on PATH]
    #[arg(long, value_name = "PATH", env = "QWEN2VL_FFMPEG")]
    pub ffmpeg: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum SamplingArg {
    /// As qwen-vl-utils: 2 frames a second, 4 to 768 of them
    QwenVlUtils,
    /// As Hugging Face's video processor: all frames, or by --fps or --nframes
    Hf,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum OnBrokenArg {
    /// An error
    Error,
    /// Use what can be decoded, with a warning
    Keep,
}

impl VideoArgs {
    /// As options of a request.
    pub fn options(&self) -> VideoOptions {
        let mut options = VideoOptions::default();
        options.sampling = self.video_sampling.map(|sampling| match sampling {
            SamplingArg::QwenVlUtils => Sampling::QwenVlUtils,
            SamplingArg::Hf => Sampling::Hf,
        });
        options.fps = self.fps;
        options.nframes = self.nframes;
        options.min_frames = self.min_frames;
        options.max_frames = self.max_frames;
        options.min_pixels = self.video_min_pixels;
        options.max_pixels = self.video_max_pixels;
        options.total_pixels = self.total_pixels;
        options.start_s = self.video_start;
        options.end_s = self.video_end;
        options.on_broken = self.on_broken_video.map(|what| match what {
            OnBrokenArg::Error => OnBroken::Error,
            OnBrokenArg::Keep => OnBroken::KeepDecoded,
        });
        options.ffmpeg = self.ffmpeg.clone();
        options
    }
}
