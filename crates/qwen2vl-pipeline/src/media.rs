//! Images and videos of a request to `pixel_values`: read, limits checked on headers, decoded, preprocessed.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use qwen2vl_preprocess::{AnimationInfo, ImageSize, PixelLimits, PixelValues, RgbImage};
use qwen2vl_runtime::available_memory_bytes;
use qwen2vl_types::GridThw;

use crate::processor::{Room, fits_into};
use crate::render::GivenMedia;
use crate::source::{Loaded, input_name};
use crate::{Error, ImageInput, MediaInfo, Processor, RequestOptions, VideoInput};

/// Media ready for the model.
#[derive(Default)]
pub(crate) struct Media {
    pub images: Vec<PixelValues>,
    pub videos: Vec<PixelValues>,
    /// Images, then videos.
    pub media: Vec<MediaInfo>,
    pub decode: Duration,
    pub resize: Duration,
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

    /// Prepares media, each of which takes its room in the context before it is decoded.
    pub(crate) fn prepare_media(
        &self,
        given: &GivenMedia<'_>,
        options: &RequestOptions,
        room: &mut Room<'_>,
    ) -> Result<Media, Error> {
        let mut media = Media::default();
        let limits = options.pixel_limits(self.model_pixel_limits());
        for (i, image) in given.images.iter().enumerate() {
            self.prepare_image(image, i, limits, room, &mut media)?;
        }
        let limits = options.pixel_limits(self.videos.options().pixel_limits);
        for (i, video) in given.videos.iter().enumerate() {
            self.prepare_video(video, i, limits, room, &mut media)?;
        }
        Ok(media)
    }

    fn prepare_image(
        &self,
        input: &ImageInput,
        index: usize,
        limits: PixelLimits,
        room: &mut Room<'_>,
        media: &mut Media,
    ) -> Result<(), Error> {
        let name = input_name(input, "image", index);
        let wrap = |source| Error::Image { input: name.clone(), source };
        let started = Instant::now();
        let loaded = Loaded::open(input, &self.decode)?;
        let size = loaded.size(&self.decode).map_err(wrap)?;
        let (_, grid) = self.images.plan(size, limits).map_err(wrap)?;
        room.take(self.tokens(grid))?;
        self.check_pixels(size, 1, grid)?;
        let image = loaded.decode(&self.decode).map_err(wrap)?;
        media.decode += started.elapsed();
        let started = Instant::now();
        let pixels = self.images.preprocess_with(&image, limits).map_err(wrap)?;
        media.resize += started.elapsed();
        media.media.push(self.info(name, &pixels, false));
        media.images.push(pixels);
        Ok(())
    }

    fn prepare_video(
        &self,
        video: &VideoInput,
        index: usize,
        limits: PixelLimits,
        room: &mut Room<'_>,
        media: &mut Media,
    ) -> Result<(), Error> {
        let name = format!("video {}", index + 1);
        let started = Instant::now();
        room.take(self.check_video(video, limits, &name)?)?;
        let frames = self.load_frames(video, index)?;
        media.decode += started.elapsed();
        let started = Instant::now();
        let pixels = self
            .videos
            .preprocess_frames(&frames, limits)
            .map_err(|source| Error::Image { input: name.clone(), source })?;
        media.resize += started.elapsed();
        media.media.push(self.info(name, &pixels, true));
        media.videos.push(pixels);
        Ok(())
    }

    /// Refuses a video from the header of its first frame if its frames do not fit into memory; its tokens otherwise.
    fn check_video(&self, video: &VideoInput, limits: PixelLimits, name: &str) -> Result<usize, Error> {
        let Some(first) = video.frames.first() else { return Ok(0) };
        let wrap = |source| Error::Image { input: name.to_owned(), source };
        let size = Loaded::open(first, &self.decode)?.size(&self.decode).map_err(wrap)?;
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
            let decoded = Loaded::open(input, &self.decode)?.decode(&self.decode);
            decoded.map(Cow::into_owned).map_err(|source| Error::Image { input: name, source })
        };
        video.frames.iter().enumerate().map(load).collect()
    }
}
