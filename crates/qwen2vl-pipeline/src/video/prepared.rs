//! A video whose frames are chosen and not yet decoded: they flow through while the vision tower runs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use qwen2vl_preprocess::{
    Animation, DecodeOptions, FrameSelection, ImageSize, PixelValues, Preprocessor, RgbImage, VideoInfo,
};
use qwen2vl_types::GridThw;
use qwen2vl_video::{Ffmpeg, Frames, OnBroken, VideoFile, VideoFileOptions};

use super::{FrameLimits, VideoContent, VideoInput, VideoOptions};
use crate::source::{Loaded, input_name};
use crate::vision_cache::{Key, VisionCache};
use crate::{Error, ImageInput};

/// A video ready for the model: which frames it is made of, and how they become pixel values. Holds none of them.
#[derive(Debug, Clone)]
pub struct PreparedVideo {
    name: String,
    source: Source,
    selection: FrameSelection,
    original: ImageSize,
    on_broken: OnBroken,
    preprocessor: Preprocessor,
    decode: DecodeOptions,
}

#[derive(Debug, Clone)]
enum Source {
    /// Frames, and which video of the request they are, for their names.
    Frames(Arc<[ImageInput]>, usize),
    /// A file, and the version of ffmpeg that decodes it.
    File(Arc<VideoFile>, String),
    Animation(Arc<ImageInput>),
}

/// The longest choice of fewer frames than `all` that fits, where `all` do not and the options name no number.
fn most_that_fit(
    options: &VideoOptions,
    all: &FrameSelection,
    select: &dyn Fn(&VideoOptions) -> Result<FrameSelection, Error>,
    fits: &dyn Fn(GridThw) -> bool,
) -> Option<FrameSelection> {
    let VideoOptions { fps, nframes, max_frames, .. } = options;
    if fps.is_some() || nframes.is_some() || max_frames.is_some() || fits(all.grid_thw) {
        return None;
    }
    let mut best = None;
    let (mut low, mut high) = (4, u32::try_from(all.frame_indices.len()).unwrap_or(u32::MAX));
    while low < high {
        let middle = low + (high - low) / 2;
        match select(&VideoOptions { max_frames: Some(middle), ..options.clone() }) {
            Ok(selection) if fits(selection.grid_thw) => (low, best) = (middle + 1, Some(selection)),
            _ => high = middle,
        }
    }
    best
}

/// What preparing needs beside the video.
pub(crate) struct Preparing<'a> {
    pub preprocessor: &'a Preprocessor,
    pub decode: &'a DecodeOptions,
    pub limits: FrameLimits,
    pub index: usize,
}

impl PreparedVideo {
    /// Chooses frames; where nobody says how many, no more than `fits`. Warnings are about that, and about what is missing
    /// of a file that is kept nevertheless.
    pub(crate) fn new(
        video: &VideoInput,
        options: &VideoOptions,
        preparing: &Preparing<'_>,
        fits: &dyn Fn(GridThw) -> bool,
        warnings: &mut Vec<String>,
    ) -> Result<Self, Error> {
        let Preparing { preprocessor, decode, limits, index } = preparing;
        let on_broken = options.on_broken.unwrap_or_default();
        let geometry = preprocessor.options().geometry;
        let numbered = format!("video {}", index + 1);
        let mut fewer = None;
        let mut sampled = |name: &str, info: &VideoInfo| {
            let select = |options: &VideoOptions| {
                let sampling = options.sampling(*limits, geometry.factor())?;
                let selected = sampling.select(info, geometry);
                selected.map_err(|source| Error::Image { input: name.to_owned(), source })
            };
            let all = select(options)?;
            let chosen = most_that_fit(options, &all, &select, fits);
            fewer = chosen.as_ref().map(|chosen| (chosen.frame_indices.len(), all.frame_indices.len()));
            Ok::<_, Error>(chosen.unwrap_or(all))
        };
        let (name, source, selection, original) = match &video.content {
            VideoContent::Frames(frames) => {
                let (selection, size) = all_frames(frames, &numbered, options, preparing)?;
                (numbered, Source::Frames(frames.clone(), *index), selection, size)
            }
            VideoContent::File(path) => {
                let name = path.display().to_string();
                let (file, version) = open(path, options, decode)
                    .map_err(|source| Error::Video { input: name.clone(), source })?;
                warnings.extend(file.shortfall().map(|damage| format!("{name}: {damage}")));
                let info = file.info();
                (name.clone(), Source::File(Arc::new(file), version), sampled(&name, &info)?, info.size)
            }
            VideoContent::Animation(image) => {
                let name = image.name().unwrap_or(numbered);
                let wrap = |source| Error::Image { input: name.clone(), source };
                let loaded = Loaded::open(image, decode)?;
                let info = loaded.animation().map_err(wrap)?.ok_or_else(|| Error::Source {
                    input: name.clone(),
                    reason: "pixels and pages of PDFs are no animation; give a list of frames".to_owned(),
                })?;
                let n_frames = info.n_frames() as u64;
                let info = VideoInfo { n_frames, fps: Some(info.fps()), size: info.size };
                (name.clone(), Source::Animation(image.clone()), sampled(&name, &info)?, info.size)
            }
        };
        warnings.extend(fewer.map(|(taken, wanted)| {
            format!(
                "{name}: {taken} frames are taken instead of {wanted}, which the model's context does not hold; \
                 max_frames, nframes or fps choose them otherwise"
            )
        }));
        let preprocessor = (*preprocessor).clone();
        Ok(Self { name, source, selection, original, on_broken, preprocessor, decode: **decode })
    }

    /// The file's path, or which video of the request it is.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Which frames were chosen, their size after resizing, and the patch grid.
    pub fn selection(&self) -> &FrameSelection {
        &self.selection
    }

    /// Size of the frames, after the turn that the file asks for.
    pub fn original(&self) -> ImageSize {
        self.original
    }

    /// The pixel values of the whole video, which may be gigabytes: for looking at them. The annotator takes them piece
    /// by piece.
    ///
    /// # Errors
    ///
    /// As for frames that cannot be decoded.
    pub fn pixel_values(&self) -> Result<PixelValues, Error> {
        let never = || false;
        let mut stream = self.stream(&never)?;
        let grid_thw = self.selection.grid_thw;
        let slice_len = self.preprocessor.slice_len(self.selection.resized);
        let len = slice_len.saturating_mul(grid_thw.t as usize);
        let mut data = Vec::new();
        data.try_reserve_exact(len).map_err(|_| {
            let bytes = (len as u64).saturating_mul(4);
            self.wrap(qwen2vl_preprocess::Error::OutOfMemory { bytes })
        })?;
        data.resize(len, 0.0);
        for slice in data.chunks_exact_mut(slice_len) {
            stream.fill(slice)?;
        }
        Ok(PixelValues { data, grid_thw, original: self.original, resized: self.selection.resized })
    }

    /// The grid of the whole video.
    pub(crate) fn grid(&self) -> GridThw {
        self.selection.grid_thw
    }

    /// Begins decoding.
    pub(crate) fn stream<'v>(
        &'v self,
        cancelled: &'v (dyn Fn() -> bool + Send + Sync),
    ) -> Result<VideoStream<'v>, Error> {
        let frames = match &self.source {
            Source::Frames(frames, _) => Decoding::List(frames.iter()),
            Source::File(file, _) => Decoding::File(Box::new(file.frames(&self.selection).unless(cancelled))),
            Source::Animation(image) => {
                let frames = Loaded::open(image, &self.decode)?
                    .into_animation(&self.decode)
                    .map_err(|source| self.wrap(source))?;
                Decoding::Animation { frames: Box::new(frames), next: 0, latest: None, missing: 0 }
            }
        };
        Ok(VideoStream { video: self, frames, given: 0, decode: Duration::ZERO, resize: Duration::ZERO })
    }

    /// What the vision tower's work on it is found by: the files' contents, the choice of frames, and how they are decoded.
    pub(crate) fn key(&self, cache: &VisionCache) -> Option<Key> {
        cache.video_key(self.selection.resized, self.preprocessor.options(), |hasher| {
            hasher.update(format!("{:?} {:?}", self.on_broken, self.selection.frame_indices).as_bytes());
            let mut hash = |image: &ImageInput| {
                Loaded::open(image, &self.decode).ok()?.hash(&self.decode, hasher);
                Some(())
            };
            match &self.source {
                Source::Frames(frames, _) => frames.iter().try_for_each(hash),
                Source::Animation(image) => hash(image),
                Source::File(file, version) => {
                    hasher.update(version.as_bytes());
                    hasher.update_reader(std::fs::File::open(file.path()).ok()?).ok()?;
                    Some(())
                }
            }
        })
    }

    /// Sizes and times of the files that it is read from: while these are the same, so is what was hashed.
    pub(crate) fn files(&self) -> Vec<Option<(u64, SystemTime)>> {
        let stamp = |path: &Path| {
            let metadata = std::fs::metadata(path).ok()?;
            Some((metadata.len(), metadata.modified().ok()?))
        };
        match &self.source {
            Source::Frames(frames, _) => frames.iter().filter_map(ImageInput::file).map(stamp).collect(),
            Source::Animation(image) => image.file().map(stamp).into_iter().collect(),
            Source::File(file, _) => vec![stamp(file.path())],
        }
    }

    fn wrap(&self, source: qwen2vl_preprocess::Error) -> Error {
        Error::Image { input: self.name.clone(), source }
    }
}

/// A video being decoded, resized and cut into patches.
pub(crate) struct VideoStream<'v> {
    video: &'v PreparedVideo,
    frames: Decoding<'v>,
    given: usize,
    /// Time of decoding.
    pub decode: Duration,
    /// Time of resizing and cutting.
    pub resize: Duration,
}

enum Decoding<'v> {
    List(std::slice::Iter<'v, ImageInput>),
    File(Box<Frames<'v>>),
    Animation {
        frames: Box<Animation<'v>>,
        /// Number of the frame that comes next.
        next: u64,
        latest: Option<RgbImage>,
        missing: usize,
    },
}

impl VideoStream<'_> {
    /// Writes the next temporal patch.
    pub fn fill(&mut self, out: &mut [f32]) -> Result<(), Error> {
        let started = Instant::now();
        let slices = self.video.preprocessor.options().geometry.temporal_patch_size as usize;
        let rest = self.video.selection.frame_indices.len() - self.given;
        let mut group = Vec::with_capacity(slices);
        for _ in 0..slices.min(rest) {
            group.push(self.frame()?);
            self.given += 1;
        }
        self.decode += started.elapsed();
        let started = Instant::now();
        let resized = self.video.selection.resized;
        self.video
            .preprocessor
            .write_frames(&group, resized, out)
            .map_err(|source| self.video.wrap(source))?;
        self.resize += started.elapsed();
        Ok(())
    }

    /// What could not be decoded so far.
    pub fn warning(&self) -> Option<String> {
        let missing = match &self.frames {
            Decoding::List(_) => None,
            Decoding::File(frames) => frames.damage().map(|damage| damage.to_string()),
            Decoding::Animation { missing: 0, .. } => None,
            Decoding::Animation { missing, .. } => {
                Some(format!("{} of {} chosen frames could be decoded", self.given - missing, self.given))
            }
        };
        missing.map(|text| format!("{}: {text}", self.video.name))
    }

    fn frame(&mut self) -> Result<RgbImage, Error> {
        let Self { video, frames, given, .. } = self;
        match frames {
            Decoding::List(inputs) => {
                let input = inputs.next().ok_or_else(|| video.wrap(qwen2vl_preprocess::Error::NoFrames))?;
                video.listed(input, *given)
            }
            Decoding::File(frames) => {
                let frame = frames.next().ok_or_else(|| video.wrap(qwen2vl_preprocess::Error::NoFrames))?;
                frame.map_err(|source| Error::Video { input: video.name.clone(), source })
            }
            Decoding::Animation { frames, next, latest, missing } => {
                let index = video.selection.frame_indices[*given];
                while *next <= index {
                    match frames.nth((index - *next) as usize) {
                        Some(Ok(frame)) => *latest = Some(frame),
                        other if video.on_broken == OnBroken::Error || latest.is_none() => {
                            let error = other.and_then(Result::err);
                            return Err(video.wrap(error.unwrap_or(qwen2vl_preprocess::Error::NoFrames)));
                        }
                        _ => *missing += 1,
                    }
                    *next = index + 1;
                }
                latest.clone().ok_or_else(|| video.wrap(qwen2vl_preprocess::Error::NoFrames))
            }
        }
    }
}

impl PreparedVideo {
    /// A frame of a list, which has to have the size of the first.
    fn listed(&self, input: &ImageInput, index: usize) -> Result<RgbImage, Error> {
        let Source::Frames(_, video_index) = &self.source else {
            return Err(self.wrap(qwen2vl_preprocess::Error::NoFrames));
        };
        let name = || input_name(input, &format!("frame of video {}", video_index + 1), index);
        let frame = Loaded::open(input, &self.decode)?
            .decode(&self.decode)
            .map_err(|source| Error::Image { input: name(), source })?
            .into_owned();
        if frame.size() != self.original {
            let ImageSize { height, width } = frame.size();
            let (first_height, first_width) = (self.original.height, self.original.width);
            return Err(self.wrap(qwen2vl_preprocess::Error::FrameSize {
                index,
                height,
                width,
                first_height,
                first_width,
            }));
        }
        Ok(frame)
    }
}

/// Every frame of a list, in the size that the first one's header gives.
fn all_frames(
    frames: &[ImageInput],
    name: &str,
    options: &VideoOptions,
    preparing: &Preparing<'_>,
) -> Result<(FrameSelection, ImageSize), Error> {
    let Preparing { preprocessor, decode, limits, index } = preparing;
    let wrap = |source| Error::Image { input: name.to_owned(), source };
    let first = frames.first().ok_or_else(|| wrap(qwen2vl_preprocess::Error::NoFrames))?;
    let first_name = input_name(first, &format!("frame of video {}", index + 1), 0);
    let size = Loaded::open(first, decode)?
        .size(decode)
        .map_err(|source| Error::Image { input: first_name, source })?;
    let pixel_limits = qwen2vl_preprocess::PixelLimits {
        min_pixels: options.min_pixels.or(limits.min_pixels).unwrap_or(limits.model.min_pixels),
        max_pixels: options.max_pixels.or(limits.max_pixels).unwrap_or(limits.model.max_pixels),
    };
    let (resized, grid) = preprocessor.plan(size, pixel_limits).map_err(wrap)?;
    let slices = frames.len().div_ceil(preprocessor.options().geometry.temporal_patch_size as usize);
    let selection = FrameSelection {
        frame_indices: (0..frames.len() as u64).collect(),
        sample_fps: None,
        resized,
        grid_thw: GridThw { t: u32::try_from(slices).unwrap_or(u32::MAX), ..grid },
    };
    Ok((selection, size))
}

fn open(
    path: &Path,
    options: &VideoOptions,
    decode: &DecodeOptions,
) -> Result<(VideoFile, String), qwen2vl_video::Error> {
    let mut file_options = VideoFileOptions::default();
    file_options.limits = decode.limits;
    file_options.on_broken = options.on_broken.unwrap_or_default();
    let programs = programs(options.ffmpeg.as_deref())?;
    let version = programs.version().to_owned();
    Ok((VideoFile::open(path, &programs, &file_options)?, version))
}

/// Where the repository's set-up puts ffmpeg, below the cache's root; xtask has the same.
const FETCHED_FFMPEG: &str = "ffmpeg/6.0/ffmpeg/binaries";

/// Finds ffmpeg, see [`Ffmpeg::find_or`]: what a set-up has fetched into the per-user cache is its last resort.
///
/// # Errors
///
/// As [`Ffmpeg::find`].
pub fn find_ffmpeg(given: Option<&Path>) -> Result<Ffmpeg, qwen2vl_video::Error> {
    let fetched = qwen2vl_package::cache_root().ok().map(|root| root.join(FETCHED_FFMPEG));
    Ffmpeg::find_or(given, fetched.as_deref())
}

/// ffmpeg, asked for its version once in a process and not once a video.
fn programs(given: Option<&Path>) -> Result<Ffmpeg, qwen2vl_video::Error> {
    static FOUND: Mutex<BTreeMap<Option<PathBuf>, Ffmpeg>> = Mutex::new(BTreeMap::new());
    let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    let key = given.map(Path::to_owned);
    if let Some(programs) = found.get(&key) {
        return Ok(programs.clone());
    }
    let programs = find_ffmpeg(given)?;
    found.insert(key, programs.clone());
    Ok(programs)
}
