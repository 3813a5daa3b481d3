//! What can be wrong with a video file or with the programs that read it. The caller adds which file it was.

use std::path::PathBuf;

use crate::programs::FFMPEG_VARIABLE;

/// Errors of reading a video.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no ffmpeg.
    #[error(
        "video files need the program `{program}`, which is not {place}; install ffmpeg (apt-get install ffmpeg, brew \
         install ffmpeg, winget install ffmpeg), or name its file or folder by {FFMPEG_VARIABLE}"
    )]
    NoFfmpeg {
        /// `ffmpeg` or `ffprobe`.
        program: &'static str,
        /// Where it was looked for.
        place: String,
    },
    /// A program is there and does not run.
    #[error("cannot run {}: {source}", path.display())]
    Start {
        /// The program.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The file cannot be opened.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// ffmpeg does not know it as a video, or it is a kind that is refused.
    #[error("not a video that can be read: {reason}")]
    NotAVideo {
        /// ffmpeg's reason, or ours.
        reason: String,
    },
    /// A file without pictures that move.
    #[error("the file has no video, only {streams}")]
    NoVideoStream {
        /// What it has.
        streams: String,
    },
    /// A video whose frames cannot be counted or shown.
    #[error("the video has no frames{}", if reason.is_empty() { String::new() } else { format!(": {reason}") })]
    NoFrames {
        /// ffmpeg's reason, where it has one.
        reason: String,
    },
    /// More frames than are counted.
    #[error("the video has more than {limit} frames; cut it into shorter ones")]
    TooLong {
        /// The limit.
        limit: usize,
    },
    /// Frames asked for that are not there.
    #[error(
        "frame {index} was asked for, but the video has {n_frames}, numbered from 0, and they go in ascending order"
    )]
    FrameIndex {
        /// The frame.
        index: u64,
        /// Frames there are.
        n_frames: u64,
    },
    /// Frames are missing, and [`OnBroken::Error`](crate::OnBroken::Error) was asked for.
    #[error(
        "the video is broken: {available} of {expected} {what}{}; to use what is there, ask for what could be decoded \
         to be kept",
        if reason.is_empty() { String::new() } else { format!(" ({reason})") }
    )]
    Broken {
        /// Frames that are there.
        available: u64,
        /// Frames that should be.
        expected: u64,
        /// What was counted.
        what: &'static str,
        /// ffmpeg's reason, where it has one.
        reason: String,
    },
    /// A program that reads the file failed.
    #[error("{program} failed: {reason}")]
    Failed {
        /// `ffmpeg` or `ffprobe`.
        program: &'static str,
        /// The last of what it said.
        reason: String,
    },
    /// A program that reads the file made no progress.
    #[error("{program} made no progress for {seconds} s and was ended")]
    Stalled {
        /// `ffmpeg` or `ffprobe`.
        program: &'static str,
        /// The limit.
        seconds: u64,
    },
    /// The caller gave up.
    #[error("reading the video was cancelled")]
    Cancelled,
    /// A frame over the limits, or that there is no memory for.
    #[error(transparent)]
    Frame(#[from] qwen2vl_preprocess::Error),
}
