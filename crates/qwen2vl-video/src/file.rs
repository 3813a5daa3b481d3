//! A video file: what is known of it before any frame is decoded.

use std::path::{Path, PathBuf};
use std::time::Duration;

use qwen2vl_preprocess::{DecodeLimits, FrameSelection, ImageSize, VideoInfo};

use crate::frames::{Damage, Frames};
use crate::packets::Packets;
use crate::process::Limits;
use crate::{Error, Ffmpeg, probe};

pub use crate::plan::Decoding;

/// What becomes of a video of which a part cannot be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OnBroken {
    /// [`Error::Broken`].
    #[default]
    Error,
    /// Use what can be decoded, and tell how much that is.
    KeepDecoded,
}

/// How a video file is read.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct VideoFileOptions {
    /// What a frame may have; only `max_pixels` and `max_alloc_bytes` matter, a file is never in memory.
    pub limits: DecodeLimits,
    /// What becomes of a broken video.
    pub on_broken: OnBroken,
    /// Longest time that ffmpeg may go on without decoding a frame; one minute if not changed.
    pub stall: Duration,
    /// How frames are reached.
    pub decoding: Decoding,
}

impl Default for VideoFileOptions {
    fn default() -> Self {
        Self {
            limits: DecodeLimits::default(),
            on_broken: OnBroken::default(),
            stall: Duration::from_secs(60),
            decoding: Decoding::default(),
        }
    }
}

/// How far a picture is turned clockwise before it is shown, as its display matrix says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rotation {
    /// From 0 to 360, rounded.
    pub degrees: f64,
}

impl Rotation {
    /// Whether height and width change places. ffmpeg takes a degree more or less for the same.
    pub fn transposes(self) -> bool {
        [90.0, 270.0].iter().any(|quarter| (self.degrees - quarter).abs() < 1.0)
    }
}

/// A video file whose frames are counted and timed. Holds no frame, and no open file.
#[derive(Debug)]
pub struct VideoFile {
    pub(crate) path: PathBuf,
    pub(crate) programs: Ffmpeg,
    pub(crate) options: VideoFileOptions,
    pub(crate) stream: u32,
    pub(crate) packets: Packets,
    pub(crate) size: ImageSize,
    /// Whether the file says where its key frames are.
    pub(crate) is_indexed: bool,
    /// Seconds of one unit of the time stamps, as a ratio.
    pub(crate) time_base: (u32, u32),
    codec: String,
    rotation: Rotation,
    sample_aspect_ratio: Option<(u32, u32)>,
    fps: Option<f64>,
    shortfall: Option<Damage>,
}

impl VideoFile {
    /// Looks at a file by ffprobe: its first call describes the streams, its second counts the frames, which reads the
    /// whole file but decodes nothing.
    ///
    /// The name is never taken for anything but a local file: not for an option, not for a URL.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] for a file that cannot be opened, [`Error::NotAVideo`], [`Error::NoVideoStream`],
    /// [`Error::NoFrames`], [`Error::TooLong`], [`Error::Frame`] for frames over the limits, [`Error::Broken`] for a file
    /// that ends early if that is to be an error, [`Error::Stalled`].
    pub fn open(path: &Path, programs: &Ffmpeg, options: &VideoFileOptions) -> Result<Self, Error> {
        Self::open_unless(path, programs, options, None)
    }

    /// [`VideoFile::open`], which ends with [`Error::Cancelled`] soon after `cancelled` returns `true`.
    ///
    /// # Errors
    ///
    /// As [`VideoFile::open`].
    pub fn open_unless(
        path: &Path,
        programs: &Ffmpeg,
        options: &VideoFileOptions,
        cancelled: Option<&(dyn Fn() -> bool + Send + Sync)>,
    ) -> Result<Self, Error> {
        check_file(path)?;
        let limits = || Limits { stall: options.stall, cancelled };
        let description = probe::describe(programs, path, limits())?;
        let stream = probe::choose(&description)?;
        let rotation = Rotation { degrees: stream.rotation() };
        let coded = ImageSize { height: stream.height, width: stream.width };
        check_size(coded, &options.limits)?;
        let time_base = probe::ratio(&stream.time_base).unwrap_or((1, 1));
        let packets = Packets::read(programs, path, stream.index, limits())?;
        if packets.len() == 0 {
            return Err(Error::NoFrames { reason: packets.complaint });
        }
        let average = probe::ratio(&stream.avg_frame_rate).map(|(num, den)| f64::from(num) / f64::from(den));
        let shortfall = shortfall(stream, &packets, time_base, average);
        match (&shortfall, options.on_broken) {
            (Some(damage), OnBroken::Error) => return Err(damage.clone().into()),
            (Some(damage), OnBroken::KeepDecoded) => tracing::debug!(path = %path.display(), %damage),
            (None, _) => {}
        }
        Ok(Self {
            path: path.to_owned(),
            programs: programs.clone(),
            options: options.clone(),
            stream: stream.index,
            size: if rotation.transposes() { coded.transposed() } else { coded },
            is_indexed: ["mov", "matroska"]
                .iter()
                .any(|kind| description.format.format_name.starts_with(kind)),
            time_base,
            codec: stream.codec_name.clone(),
            rotation,
            sample_aspect_ratio: stream.sample_aspect_ratio.as_deref().and_then(probe::ratio),
            fps: rate(&packets, time_base).or(average),
            shortfall,
            packets,
        })
    }

    /// What the choice of frames needs to know. The rate is the average, the number of frames over their time, as
    /// torchcodec computes it.
    pub fn info(&self) -> VideoInfo {
        VideoInfo { n_frames: self.packets.len() as u64, fps: self.fps, size: self.size }
    }

    /// Which file it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// ffmpeg's name of the codec.
    pub fn codec(&self) -> &str {
        &self.codec
    }

    /// How the picture is turned; [`VideoFile::info`] has the size after that.
    pub fn rotation(&self) -> Rotation {
        self.rotation
    }

    /// Width over height of a pixel as `(width, height)`. The references show pixels as squares whatever it says, and so
    /// does [`VideoFile::frames`].
    pub fn sample_aspect_ratio(&self) -> Option<(u32, u32)> {
        self.sample_aspect_ratio
    }

    /// When a frame is shown, in seconds from the first; nothing for frames that the file does not time.
    pub fn timestamp_s(&self, index: u64) -> Option<f64> {
        let stamp = self.packets.stamps.get(usize::try_from(index).ok()?)?;
        let first = self.packets.stamps.first()?;
        self.packets.timed.then(|| seconds(stamp.saturating_sub(*first), self.time_base))
    }

    /// What a file that ends early lacks.
    pub fn shortfall(&self) -> Option<&Damage> {
        self.shortfall.as_ref()
    }

    /// Decodes the chosen frames, one after the other. Nothing runs before the first is asked for.
    pub fn frames(&self, selection: &FrameSelection) -> Frames<'_> {
        self.frames_at(&selection.frame_indices)
    }

    /// Decodes the frames with these numbers, which ascend; one may come twice.
    pub fn frames_at(&self, indices: &[u64]) -> Frames<'_> {
        Frames::new(self, indices)
    }
}

fn check_file(path: &Path) -> Result<(), Error> {
    let metadata = std::fs::metadata(path)?;
    let reason = if metadata.is_dir() {
        "it is a folder"
    } else if !metadata.is_file() {
        "it is not a regular file"
    } else if metadata.len() == 0 {
        "the file is empty (0 bytes)"
    } else {
        // Rights, told in the system's words.
        std::fs::File::open(path)?;
        return Ok(());
    };
    Err(Error::NotAVideo { reason: reason.to_owned() })
}

/// Refuses frames before one is decoded.
fn check_size(size: ImageSize, limits: &DecodeLimits) -> Result<(), Error> {
    use qwen2vl_preprocess::Error as Frame;
    let ImageSize { height, width } = size;
    let pixels = size.pixels();
    if pixels == 0 {
        return Err(Error::NoFrames { reason: format!("it is {width}x{height}") });
    }
    if pixels > limits.max_pixels {
        return Err(Frame::TooManyPixels { height, width, pixels, limit: limits.max_pixels }.into());
    }
    let bytes = pixels.saturating_mul(3);
    if bytes > limits.max_alloc_bytes || usize::try_from(bytes).is_err() {
        return Err(Frame::MemoryLimit { bytes, limit: limits.max_alloc_bytes }.into());
    }
    Ok(())
}

pub(crate) fn seconds(units: i64, time_base: (u32, u32)) -> f64 {
    units as f64 * f64::from(time_base.0) / f64::from(time_base.1)
}

/// Frames over the time from the first one's beginning to the last one's end.
fn rate(packets: &Packets, time_base: (u32, u32)) -> Option<f64> {
    let (first, end) = (*packets.stamps.first()?, packets.end?);
    // Without durations of the last frames the end lies before them.
    let last = *packets.stamps.last()?;
    let duration_s = seconds(end.checked_sub(first)?, time_base);
    (end > last && duration_s > 0.0).then(|| packets.len() as f64 / duration_s)
}

/// What is missing of a file that ends early: ffprobe complained, and there is less than the file declares. Neither says
/// much alone: edit lists leave frames out, and ffprobe complains of small things.
fn shortfall(
    stream: &probe::Stream,
    packets: &Packets,
    time_base: (u32, u32),
    average: Option<f64>,
) -> Option<Damage> {
    if packets.complaint.is_empty() {
        return None;
    }
    let counted = stream.nb_frames.as_deref().and_then(|text| text.parse::<u64>().ok()).filter(|n| *n > 0);
    let (available, expected) = match counted {
        Some(expected) => (packets.n_packets, expected),
        None => {
            let rate = rate(packets, time_base).or(average)?;
            let declared = stream.declared_seconds()?;
            let there = packets.len() as f64 / rate;
            // Containers round, and streams of one file end at different times.
            if declared - there < 1.0_f64.max(declared * 0.02) {
                return None;
            }
            (packets.len() as u64, (declared * rate).round() as u64)
        }
    };
    (available < expected).then(|| Damage {
        available,
        expected,
        what: "frames are in the file, which ends early",
        reason: packets.complaint.clone(),
    })
}
