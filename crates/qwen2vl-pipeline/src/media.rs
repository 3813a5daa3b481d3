//! Images and videos of a request to `pixel_values`: read, limits checked on headers, decoded, preprocessed.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use qwen2vl_preprocess::{AnimationInfo, ImageSize, PixelLimits, PixelValues, RgbImage};
use qwen2vl_runtime::{VisionEmbeddings, available_memory_bytes};
use qwen2vl_types::GridThw;

use crate::memory_limit::capped;
use crate::processor::{Room, fits_into};
use crate::render::{GivenImage, GivenMedia};
use crate::source::{Loaded, input_name};
use crate::video::{FrameLimits, Preparing};
use crate::vision_cache::{Key, VisionCache};
use crate::{Error, ImageInput, MediaInfo, PreparedVideo, Processor, RequestOptions, VideoInput};

/// Media ready for the model.
#[derive(Default)]
pub(crate) struct Media {
    pub images: Vec<PixelValues>,
    pub known: Vec<Known>,
    pub videos: Vec<PreparedVideo>,
    /// What is missing of videos that are kept nevertheless.
    pub warnings: Vec<String>,
    /// Images, then videos.
    pub media: Vec<MediaInfo>,
    pub decode: Duration,
    pub resize: Duration,
}

/// What a vision cache says of an image.
#[derive(Debug, Clone, Default)]
pub(crate) struct Known {
    /// What the embeddings are found by; `None` without a cache.
    pub key: Option<Key>,
    /// The embeddings, if they are known; the pixel values are left out then.
    pub embeddings: Option<VisionEmbeddings>,
}

impl Processor {
    /// An image as it is decoded for the model, turned by its EXIF data, in its own size: the one that boxes in
    /// pixels are about.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] or [`Error::Image`].
    pub fn decode(&self, input: &ImageInput) -> Result<RgbImage, Error> {
        let decoded = Loaded::open(input, &self.decode)?.decode(&self.decode);
        let name = || input_name(input, "image", 0);
        decoded.map(Cow::into_owned).map_err(|source| Error::Image { input: name(), source })
    }

    /// The number, delays and average rate of an image's frames, without decoding one: one frame for a still image, `None` for
    /// pixels and pages of PDFs. As an image, an animation is its first frame.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] or [`Error::Image`].
    pub fn animation(&self, input: &ImageInput) -> Result<Option<AnimationInfo>, Error> {
        let wrap = |source| Error::Image { input: input_name(input, "image", 0), source };
        Loaded::open(input, &self.decode)?.animation().map_err(wrap)
    }

    /// Prepares media, each of which takes its room in the context before it is decoded. `max_pixels` is what the memory
    /// limit leaves each image, if it is less than what they may have otherwise.
    pub(crate) fn prepare_media(
        &self,
        given: &GivenMedia<'_>,
        options: &RequestOptions,
        max_pixels: Option<u64>,
        room: &mut Room<'_>,
        cache: Option<&VisionCache>,
    ) -> Result<Media, Error> {
        let mut media = Media::default();
        let limits = options.pixel_limits(self.model_pixel_limits());
        for (i, image) in given.images.iter().enumerate() {
            self.prepare_image(image, i, capped(image.limits(limits), max_pixels), room, cache, &mut media)?;
        }
        for (i, video) in given.videos.iter().enumerate() {
            self.prepare_video(video, i, options, room, &mut media)?;
        }
        Ok(media)
    }

    fn prepare_image(
        &self,
        given: &GivenImage<'_>,
        index: usize,
        limits: PixelLimits,
        room: &mut Room<'_>,
        cache: Option<&VisionCache>,
        media: &mut Media,
    ) -> Result<(), Error> {
        let GivenImage { image: input, sizing } = given;
        let name = input_name(input, "image", index);
        let wrap = |source| Error::Image { input: name.clone(), source };
        let started = Instant::now();
        let loaded = Loaded::open(input, &self.decode)?;
        let size = loaded.size(&self.decode).map_err(wrap)?;
        // Like qwen-vl-utils, a size that is asked for is rounded as an image of that size would be.
        let (resized, grid) = self.images.plan(sizing.resized.unwrap_or(size), limits).map_err(wrap)?;
        room.take(self.tokens(grid))?;
        self.check_pixels(size, 1, grid)?;
        let image = loaded.decode(&self.decode).map_err(wrap)?;
        media.decode += started.elapsed();
        let started = Instant::now();
        let as_frame = sizing.resized.is_some();
        let key = cache.map(|cache| cache.image_key(&image, resized, self.images.options(), as_frame));
        let embeddings = cache.zip(key).and_then(|(cache, key)| cache.find(&key, grid));
        let pixels = match embeddings {
            Some(_) => PixelValues { data: Vec::new(), grid_thw: grid, original: size, resized },
            None if !as_frame => self.images.preprocess_with(&image, limits).map_err(wrap)?,
            None => {
                let mut data = vec![0.0; self.images.slice_len(resized)];
                let frame = std::slice::from_ref(image.as_ref());
                self.images.write_frames(frame, resized, &mut data).map_err(wrap)?;
                PixelValues { data, grid_thw: grid, original: size, resized }
            }
        };
        media.resize += started.elapsed();
        media.media.push(self.info(name, &pixels));
        media.images.push(pixels);
        media.known.push(Known { key, embeddings });
        Ok(())
    }

    fn prepare_video(
        &self,
        video: &VideoInput,
        index: usize,
        options: &RequestOptions,
        room: &mut Room<'_>,
        media: &mut Media,
    ) -> Result<(), Error> {
        let started = Instant::now();
        let limits = FrameLimits {
            min_pixels: options.min_pixels,
            max_pixels: options.max_pixels,
            model: self.videos.options().pixel_limits,
        };
        let preparing = Preparing { preprocessor: &self.videos, decode: &self.decode, limits, index };
        let options = video.options.or(&options.video);
        let fits = |grid| self.tokens(grid).saturating_add(TEXT_TOKENS) <= room.left();
        let prepared = PreparedVideo::new(video, &options, &preparing, &fits, &mut media.warnings)?;
        let (grid_thw, original) = (prepared.grid(), prepared.original());
        room.take(self.tokens(grid_thw))?;
        self.check_pixels(original, FRAMES_AT_ONCE, GridThw { t: 1, ..grid_thw })?;
        media.decode += started.elapsed();
        media.media.push(MediaInfo {
            input: prepared.name().to_owned(),
            is_video: true,
            size: original,
            resized: prepared.selection().resized,
            grid_thw,
            tokens: self.tokens(grid_thw),
        });
        media.videos.push(prepared);
        Ok(())
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

    fn info(&self, input: String, pixels: &PixelValues) -> MediaInfo {
        MediaInfo {
            input,
            is_video: false,
            size: pixels.original,
            resized: pixels.resized,
            grid_thw: pixels.grid_thw,
            tokens: self.tokens(pixels.grid_thw),
        }
    }
}

/// Tokens that are kept for the text around a video, where its frames are made fewer so that it fits.
const TEXT_TOKENS: usize = 512;

/// Decoded frames of a video that are in memory together, at most: those of a temporal patch, and those being read.
const FRAMES_AT_ONCE: u64 = 6;
