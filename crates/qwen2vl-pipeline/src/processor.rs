//! Everything before inference: media to `pixel_values`, prompt to ids and positions. The counterpart of Hugging
//! Face's `Qwen2VLProcessor`; needs no OpenVINO.

use std::borrow::Cow;
use std::path::Path;
use std::time::{Duration, Instant};

use qwen2vl_package::ModelPackage;
use qwen2vl_preprocess::{
    DecodeOptions, ImageSize, PixelLimits, PixelValues, Preprocessor, RgbImage, decode_image, read_size,
};
use qwen2vl_runtime::{EngineOptions, MemoryPlan, available_memory_bytes};
use qwen2vl_tokenizer::{ChatTemplate, EncodedPrompt, Tokenizer};
use qwen2vl_types::GridThw;

use crate::render::{Rendered, render};
use crate::{Error, ImageInput, MediaInfo, Request, RequestOptions, VideoInput};

/// Turns requests into model inputs. `Send + Sync`.
pub struct Processor {
    package: ModelPackage,
    images: Preprocessor,
    videos: Preprocessor,
    tokenizer: Tokenizer,
    template: ChatTemplate,
    decode: DecodeOptions,
}

/// A request ready for the model.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Prepared {
    /// The prompt's text, before placeholders are expanded.
    pub prompt: String,
    /// What was put right in the request.
    pub warnings: Vec<String>,
    /// Ids, positions and `rope_delta`.
    pub encoded: EncodedPrompt,
    /// `pixel_values` of each image.
    pub images: Vec<PixelValues>,
    /// `pixel_values_videos` of each video.
    pub videos: Vec<PixelValues>,
    /// Images, then videos, as the model will see them.
    pub media: Vec<MediaInfo>,
    /// Time of reading and decoding.
    pub decode: Duration,
    /// Time of resizing, normalizing and cutting into patches.
    pub resize: Duration,
}

/// What an image of some size becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImagePlan {
    /// Size after `smart_resize`.
    pub resized: ImageSize,
    /// Patch grid.
    pub grid_thw: GridThw,
    /// Merged tokens in the prompt.
    pub tokens: usize,
    /// Predicted peak memory of the process for a question about it.
    pub peak_bytes: u64,
}

/// Tokens of template and question that a plan assumes around an image.
const PLAN_TEXT_TOKENS: usize = 64;

impl Processor {
    /// Loads tokenizer and template of a package.
    ///
    /// # Errors
    ///
    /// [`Error::Prompt`] for a tokenizer or template that cannot be used, [`Error::Image`] for preprocessing options
    /// out of range.
    pub fn new(package: ModelPackage, decode: DecodeOptions) -> Result<Self, Error> {
        let options_error = |source| Error::Image { input: "preprocessor_config.json".to_owned(), source };
        Ok(Self {
            images: Preprocessor::new(package.preprocess.clone()).map_err(options_error)?,
            videos: Preprocessor::new(package.video_preprocess.clone()).map_err(options_error)?,
            tokenizer: Tokenizer::from_file(&package.tokenizer_json)?,
            template: ChatTemplate::new(&package.chat_template)?,
            package,
            decode,
        })
    }

    /// The package it was made from.
    pub fn package(&self) -> &ModelPackage {
        &self.package
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The pixel limits of the model's own `preprocessor_config.json`.
    pub fn model_pixel_limits(&self) -> PixelLimits {
        self.images.options().pixel_limits
    }

    /// What an image of this size becomes under these options, without any image.
    ///
    /// # Errors
    ///
    /// [`Error::Image`] if the size or the limits are out of range.
    pub fn plan(&self, size: ImageSize, options: &RequestOptions) -> Result<ImagePlan, Error> {
        let limits = options.pixel_limits(self.model_pixel_limits());
        let (resized, grid_thw) = self
            .images
            .plan(size, limits)
            .map_err(|source| Error::Image { input: format!("{}x{}", size.width, size.height), source })?;
        let tokens = self.tokens(grid_thw);
        let new_tokens = options.generation(&self.package.generation).max_new_tokens;
        let memory = self.memory_plan(Some(grid_thw), tokens + PLAN_TEXT_TOKENS, new_tokens);
        let decoded = size.pixels().saturating_mul(3);
        Ok(ImagePlan { resized, grid_thw, tokens, peak_bytes: memory.peak_bytes().saturating_add(decoded) })
    }

    pub(crate) fn memory_plan(
        &self,
        grid: Option<GridThw>,
        prompt_tokens: usize,
        new_tokens: usize,
    ) -> MemoryPlan {
        let chunk = EngineOptions::default().prefill_chunk_tokens;
        MemoryPlan::new(
            &self.package.model,
            self.package.weight_bytes,
            grid,
            prompt_tokens,
            new_tokens,
            chunk,
        )
    }

    fn tokens(&self, grid: GridThw) -> usize {
        grid.n_tokens(self.package.model.geometry.merge_size)
    }

    /// An image as it is decoded for the model, turned by its EXIF data, in its own size: the one that boxes in
    /// pixels are about.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] or [`Error::Image`].
    pub fn decode(&self, input: &ImageInput) -> Result<RgbImage, Error> {
        let decoded = Loaded::open(input)?.decode(&self.decode);
        let name = || input_name(input, "image", 0);
        decoded.map(Cow::into_owned).map_err(|source| Error::Image { input: name(), source })
    }

    /// Reads, decodes and preprocesses the media and encodes the prompt.
    ///
    /// # Errors
    ///
    /// The first problem of the request: see the variants of [`Error`]. An image too large for the context is refused
    /// from its header, before it is decoded.
    pub fn prepare(&self, request: &Request) -> Result<Prepared, Error> {
        self.prepare_with(request, &request.options)
    }

    /// [`Processor::prepare`] with other options than the request's own.
    pub(crate) fn prepare_with(
        &self,
        request: &Request,
        options: &RequestOptions,
    ) -> Result<Prepared, Error> {
        let Rendered { prompt, media, warnings } = render(&self.template, request, options)?;
        let max_input_tokens = options.max_input_tokens.or(self.package.generation.max_input_tokens);
        let mut decode = Duration::ZERO;
        let mut resize = Duration::ZERO;
        let mut infos = Vec::new();

        let limits = options.pixel_limits(self.model_pixel_limits());
        let mut images = Vec::with_capacity(media.images.len());
        let mut tokens = 0;
        for (i, input) in media.images.iter().enumerate() {
            let name = input_name(input, "image", i);
            let wrap = |source| Error::Image { input: name.clone(), source };
            let started = Instant::now();
            let loaded = Loaded::open(input)?;
            let size = loaded.size().map_err(wrap)?;
            let (_, grid) = self.images.plan(size, limits).map_err(wrap)?;
            tokens += self.tokens(grid);
            self.check_context(tokens, max_input_tokens)?;
            self.check_pixels(size, 1, grid)?;
            let image = loaded.decode(&self.decode).map_err(wrap)?;
            decode += started.elapsed();
            let started = Instant::now();
            let pixels = self.images.preprocess_with(&image, limits).map_err(wrap)?;
            resize += started.elapsed();
            infos.push(self.info(name, &pixels, false));
            images.push(pixels);
        }

        let limits = options.pixel_limits(self.videos.options().pixel_limits);
        let mut videos = Vec::with_capacity(media.videos.len());
        for (i, video) in media.videos.iter().enumerate() {
            let name = format!("video {}", i + 1);
            let started = Instant::now();
            tokens += self.check_video(video, limits, &name)?;
            self.check_context(tokens, max_input_tokens)?;
            let frames = self.load_frames(video, i)?;
            decode += started.elapsed();
            let started = Instant::now();
            let pixels = self
                .videos
                .preprocess_frames(&frames, limits)
                .map_err(|source| Error::Image { input: name.clone(), source })?;
            resize += started.elapsed();
            infos.push(self.info(name, &pixels, true));
            videos.push(pixels);
        }

        let grids = |pixels: &[PixelValues]| pixels.iter().map(|p| p.grid_thw).collect::<Vec<_>>();
        let merge_size = self.package.model.geometry.merge_size;
        let encoded = self.tokenizer.prepare(&prompt, &grids(&images), &grids(&videos), merge_size)?;
        self.check_context(encoded.input_ids.len(), max_input_tokens)?;
        Ok(Prepared { prompt, warnings, encoded, images, videos, media: infos, decode, resize })
    }

    fn check_context(&self, prompt_tokens: usize, max_input_tokens: Option<usize>) -> Result<(), Error> {
        if let Some(limit) = max_input_tokens.filter(|limit| prompt_tokens > *limit) {
            return Err(qwen2vl_runtime::Error::InputTooLong { prompt_tokens, limit }.into());
        }
        let limit = self.package.model.max_position_embeddings;
        if prompt_tokens >= limit {
            return Err(qwen2vl_runtime::Error::ContextExceeded { prompt_tokens, limit }.into());
        }
        Ok(())
    }

    /// Refuses a video from the header of its first frame if its frames do not fit into memory; its tokens otherwise.
    fn check_video(&self, video: &VideoInput, limits: PixelLimits, name: &str) -> Result<usize, Error> {
        let Some(first) = video.frames.first() else { return Ok(0) };
        let wrap = |source| Error::Image { input: name.to_owned(), source };
        let size = Loaded::open(first)?.size().map_err(wrap)?;
        let (_, frame) = self.videos.plan(size, limits).map_err(wrap)?;
        let n_frames = video.frames.len();
        let slices = n_frames.div_ceil(self.package.model.geometry.temporal_patch_size as usize);
        let grid = GridThw { t: u32::try_from(slices).unwrap_or(u32::MAX), ..frame };
        self.check_pixels(size, n_frames as u64, grid)?;
        Ok(self.tokens(grid))
    }

    /// Refuses decoded frames of this size and the `pixel_values` made of them where they do not fit into memory
    /// together. Frames over the limits of decoding are left to it: it knows the better words.
    fn check_pixels(&self, size: ImageSize, n_frames: u64, grid: GridThw) -> Result<(), Error> {
        if size.pixels() > self.decode.limits.max_pixels {
            return Ok(());
        }
        let patch_bytes = self.package.model.geometry.patch_len() as u64 * 4;
        let decoded = size.pixels().saturating_mul(3).saturating_mul(n_frames);
        let needed = decoded.saturating_add((grid.n_patches() as u64).saturating_mul(patch_bytes));
        fits_into(available_memory_bytes(), needed)
    }

    fn info(&self, input: String, pixels: &PixelValues, is_video: bool) -> MediaInfo {
        MediaInfo {
            input,
            is_video,
            size: pixels.original,
            resized: pixels.resized,
            grid_thw: pixels.grid_thw,
            tokens: self.tokens(pixels.grid_thw),
        }
    }

    fn load_frames(&self, video: &VideoInput, index: usize) -> Result<Vec<RgbImage>, Error> {
        let load = |(i, input): (usize, &ImageInput)| {
            let name = input_name(input, &format!("frame of video {}", index + 1), i);
            let decoded = Loaded::open(input)?.decode(&self.decode);
            decoded.map(Cow::into_owned).map_err(|source| Error::Image { input: name, source })
        };
        video.frames.iter().enumerate().map(load).collect()
    }
}

/// Refuses what does not fit into the free memory, before any of it is asked for.
pub(crate) fn fits_into(available_bytes: Option<u64>, needed_bytes: u64) -> Result<(), Error> {
    match available_bytes {
        Some(available_bytes) if available_bytes < needed_bytes => {
            Err(qwen2vl_runtime::Error::NotEnoughMemory { needed_bytes, available_bytes }.into())
        }
        _ => Ok(()),
    }
}

fn input_name(input: &ImageInput, kind: &str, index: usize) -> String {
    match input {
        ImageInput::Path(path) => path.display().to_string(),
        _ => format!("{kind} {}", index + 1),
    }
}

/// An image whose bytes are there and whose pixels are not yet.
enum Loaded<'a> {
    Borrowed(&'a [u8]),
    Owned(Vec<u8>),
    Pixels(&'a RgbImage),
}

impl<'a> Loaded<'a> {
    fn open(input: &'a ImageInput) -> Result<Self, Error> {
        Ok(match input {
            ImageInput::Path(path) => Self::Owned(read_file(path)?),
            ImageInput::Bytes(bytes) => Self::Borrowed(bytes),
            ImageInput::Rgb(image) => Self::Pixels(image),
        })
    }

    fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Borrowed(bytes) => Some(bytes),
            Self::Owned(bytes) => Some(bytes),
            Self::Pixels(_) => None,
        }
    }

    fn size(&self) -> Result<ImageSize, qwen2vl_preprocess::Error> {
        match (self, self.bytes()) {
            (Self::Pixels(image), _) => Ok(image.size()),
            (_, bytes) => read_size(bytes.unwrap_or_default()),
        }
    }

    fn decode(&self, options: &DecodeOptions) -> Result<Cow<'a, RgbImage>, qwen2vl_preprocess::Error> {
        match (self, self.bytes()) {
            (Self::Pixels(image), _) => Ok(Cow::Borrowed(*image)),
            (_, bytes) => decode_image(bytes.unwrap_or_default(), options).map(Cow::Owned),
        }
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|source| Error::Io { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_with_both_sizes() {
        assert!(fits_into(None, u64::MAX).is_ok(), "a system that does not tell");
        assert!(fits_into(Some(5 << 30), 5 << 30).is_ok());
        let error = fits_into(Some(5 << 30), 6 << 30).unwrap_err();
        assert_eq!(error.kind(), "memory");
        assert!(error.to_string().contains("6144 MiB") && error.to_string().contains("5120 MiB"), "{error}");
    }
}
