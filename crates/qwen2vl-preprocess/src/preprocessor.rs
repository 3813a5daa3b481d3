//! From decoded pixels to `pixel_values`: `smart_resize`, resize, normalize, cut into patches.
//!
//! Follows `Qwen2VLImageProcessorFast` and `Qwen2VLVideoProcessor` of Hugging Face transformers 4.57.6. Which
//! frames of a video file it gets is decided in `video`.

use std::fmt;

use ndarray::ArrayView2;
use qwen2vl_types::{GridThw, PatchGeometry};
use rayon::prelude::*;

use crate::memory::zeroed;
use crate::patches::{self, Tables};
use crate::resize::resize;
use crate::{Error, ImageSize, PixelLimits, RgbImage, smart_resize};

/// What `preprocessor_config.json` says; by default that of Qwen2-VL-2B-Instruct. Resizing is bicubic (`resample` 3).
#[derive(Debug, Clone, PartialEq)]
pub struct PreprocessOptions {
    /// Patch and merge sizes.
    pub geometry: PatchGeometry,
    /// How many pixels an image may have where a call does not say.
    pub pixel_limits: PixelLimits,
    /// Whether images are resized at all.
    pub do_resize: bool,
    /// Whether values are multiplied by `rescale_factor`.
    pub do_rescale: bool,
    /// What brings 0..=255 to 0..=1.
    pub rescale_factor: f64,
    /// Whether `image_mean` is subtracted and the rest divided by `image_std`.
    pub do_normalize: bool,
    /// Mean of red, green, blue, after rescaling.
    pub image_mean: [f64; 3],
    /// Standard deviation of red, green, blue, after rescaling.
    pub image_std: [f64; 3],
}

impl Default for PreprocessOptions {
    fn default() -> Self {
        Self {
            geometry: PatchGeometry::default(),
            pixel_limits: PixelLimits::default(),
            do_resize: true,
            do_rescale: true,
            rescale_factor: 1.0 / 255.0,
            do_normalize: true,
            image_mean: [0.481_454_66, 0.457_827_5, 0.408_210_73],
            image_std: [0.268_629_54, 0.261_302_58, 0.275_777_11],
        }
    }
}

/// The vision model's input for one image or one video.
#[derive(Clone, PartialEq)]
pub struct PixelValues {
    /// `[n_patches, patch_len]`, row-major: 1176 values a patch for Qwen2-VL.
    pub data: Vec<f32>,
    /// The patch grid.
    pub grid_thw: GridThw,
    /// Size of the image, or of each frame, before resizing.
    pub original: ImageSize,
    /// Size after resizing.
    pub resized: ImageSize,
}

impl PixelValues {
    /// Values of one patch.
    pub fn patch_len(&self) -> usize {
        self.data.len() / self.grid_thw.n_patches().max(1)
    }

    /// The data as a matrix, `[n_patches, patch_len]`.
    pub fn view(&self) -> ArrayView2<'_, f32> {
        let shape = (self.grid_thw.n_patches(), self.patch_len());
        // A caller may have put together fields that do not belong together; an empty matrix then.
        ArrayView2::from_shape(shape, &self.data).unwrap_or_else(|_| ArrayView2::from(&[[0.0; 0]; 0]))
    }
}

/// Leaves out the data, which may be hundreds of megabytes.
impl fmt::Debug for PixelValues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PixelValues")
            .field("grid_thw", &self.grid_thw)
            .field("original", &self.original)
            .field("resized", &self.resized)
            .finish_non_exhaustive()
    }
}

/// Turns images into `pixel_values`. `Send + Sync`, cheap to clone, holds no scratch memory.
///
/// ```
/// use qwen2vl_preprocess::{PreprocessOptions, Preprocessor, RgbImage};
///
/// let preprocessor = Preprocessor::new(PreprocessOptions::default())?;
/// let image = RgbImage::new(480, 640, vec![128; 480 * 640 * 3])?;
/// let pixels = preprocessor.preprocess(&image)?;
/// assert_eq!(pixels.grid_thw.to_string(), "[1, 34, 46]");
/// assert_eq!(pixels.view().dim(), (1564, 1176));
/// # Ok::<(), qwen2vl_preprocess::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Preprocessor {
    options: PreprocessOptions,
    tables: Box<Tables>,
}

impl Preprocessor {
    /// Checks the options.
    ///
    /// # Errors
    ///
    /// [`Error::Option`] for sizes of 0 or over 1024, a `max_pixels` of 0, numbers that are not finite, and a
    /// `rescale_factor` or standard deviation of 0.
    pub fn new(options: PreprocessOptions) -> Result<Self, Error> {
        check_geometry(options.geometry)?;
        let max_pixels = options.pixel_limits.max_pixels;
        check("max_pixels", max_pixels, max_pixels > 0, "it must be at least 1")?;
        let usable = |v: f64| v.is_finite() && v != 0.0;
        let rule = "it must be a finite number other than 0";
        check("rescale_factor", options.rescale_factor, usable(options.rescale_factor), rule)?;
        for (mean, std) in options.image_mean.into_iter().zip(options.image_std) {
            check("image_mean", mean, mean.is_finite(), "it must be finite")?;
            check("image_std", std, usable(std), rule)?;
        }
        let tables = patches::tables(&options);
        Ok(Self { options, tables })
    }

    /// The options it was made with.
    pub fn options(&self) -> &PreprocessOptions {
        &self.options
    }

    /// What an image of this size would become, without any image.
    ///
    /// # Errors
    ///
    /// As [`smart_resize`]; without `do_resize`, [`Error::NotDivisible`].
    pub fn plan(&self, size: ImageSize, limits: PixelLimits) -> Result<(ImageSize, GridThw), Error> {
        let factor = self.options.geometry.factor();
        let resized = if self.options.do_resize { smart_resize(size, factor, limits)? } else { size };
        Ok((resized, self.frame_grid(resized)?))
    }

    /// The grid of one temporal patch of this size.
    fn frame_grid(&self, resized: ImageSize) -> Result<GridThw, Error> {
        let ImageSize { height, width } = resized;
        let factor = self.options.geometry.factor();
        if height == 0 || width == 0 {
            return Err(Error::NoPixels { height, width });
        }
        if height % factor != 0 || width % factor != 0 {
            return Err(Error::NotDivisible { height, width, factor });
        }
        let patch = self.options.geometry.patch_size;
        Ok(GridThw { t: 1, h: height / patch, w: width / patch })
    }

    /// An image, within the limits of the options.
    ///
    /// # Errors
    ///
    /// As [`Preprocessor::plan`], and [`Error::OutOfMemory`].
    pub fn preprocess(&self, image: &RgbImage) -> Result<PixelValues, Error> {
        self.preprocess_with(image, self.options.pixel_limits)
    }

    /// An image, within these limits.
    ///
    /// # Errors
    ///
    /// As [`Preprocessor::plan`], and [`Error::OutOfMemory`].
    pub fn preprocess_with(&self, image: &RgbImage, limits: PixelLimits) -> Result<PixelValues, Error> {
        self.run(std::slice::from_ref(image), limits)
    }

    /// A video: frames of one size. If their number is not a multiple of `temporal_patch_size`, the last one is
    /// repeated. The limits are those of one frame.
    ///
    /// # Errors
    ///
    /// [`Error::NoFrames`], [`Error::FrameSize`], and as [`Preprocessor::preprocess_with`].
    pub fn preprocess_frames(&self, frames: &[RgbImage], limits: PixelLimits) -> Result<PixelValues, Error> {
        let first = frames.first().ok_or(Error::NoFrames)?.size();
        for (index, frame) in frames.iter().enumerate() {
            let ImageSize { height, width } = frame.size();
            if frame.size() != first {
                let (first_height, first_width) = (first.height, first.width);
                return Err(Error::FrameSize { index, height, width, first_height, first_width });
            }
        }
        self.run(frames, limits)
    }

    /// One temporal patch of a video, for frames that come in a stream: up to `temporal_patch_size` frames, the last one
    /// repeated if there are fewer, each brought to the size `resized`, which the choice of frames says
    /// ([`FrameSelection::resized`](crate::FrameSelection)). `out` takes the rows of its patches, `[h * w, patch_len]`.
    ///
    /// # Errors
    ///
    /// [`Error::NoFrames`], [`Error::NotDivisible`], [`Error::OutOfMemory`].
    ///
    /// # Panics
    ///
    /// If there are more frames, or `out` has another length than [`Preprocessor::slice_len`].
    pub fn write_frames(
        &self,
        frames: &[RgbImage],
        resized: ImageSize,
        out: &mut [f32],
    ) -> Result<(), Error> {
        let slices = self.options.geometry.temporal_patch_size as usize;
        let last = frames.len().checked_sub(1).ok_or(Error::NoFrames)?;
        assert!(last < slices, "{} frames for a temporal patch of {slices}", frames.len());
        let grid = self.frame_grid(resized)?;
        assert_eq!(out.len(), self.slice_len(resized), "the length of a temporal patch of {resized:?}");
        let pixels: Vec<_> = frames.iter().map(|frame| resize(frame, resized)).collect::<Result<_, _>>()?;
        // A single frame is repeated by `cut`, which is cheaper.
        let n_frames = if last == 0 { 1 } else { slices };
        let group: Vec<&[u8]> = (0..n_frames).map(|slice| pixels[slice.min(last)].as_ref()).collect();
        patches::cut(&group, grid, self.options.geometry, &self.tables, out);
        Ok(())
    }

    /// Values of one temporal patch of frames of this size.
    pub fn slice_len(&self, resized: ImageSize) -> usize {
        let patch = self.options.geometry.patch_size;
        let grid = GridThw { t: 1, h: resized.height / patch, w: resized.width / patch };
        grid.n_patches().saturating_mul(self.options.geometry.patch_len())
    }

    /// Many images at once, on the threads of the caller's rayon pool. One result per image, in order, each equal to
    /// that of [`Preprocessor::preprocess_with`].
    pub fn preprocess_batch(
        &self,
        images: &[RgbImage],
        limits: PixelLimits,
    ) -> Vec<Result<PixelValues, Error>> {
        images.par_iter().map(|image| self.preprocess_with(image, limits)).collect()
    }

    /// All temporal patches, one after the other.
    fn run(&self, frames: &[RgbImage], limits: PixelLimits) -> Result<PixelValues, Error> {
        let original = frames[0].size();
        let (resized, grid) = self.plan(original, limits)?;
        let groups = frames.chunks(self.options.geometry.temporal_patch_size as usize);
        let grid_thw = GridThw { t: groups.len() as u32, ..grid };
        let slice_len = self.slice_len(resized);
        let len = slice_len.saturating_mul(groups.len());
        let mut data = zeroed(len, |len| vec![0.0_f32; len])
            .ok_or(Error::OutOfMemory { bytes: (len as u64).saturating_mul(4) })?;
        for (group, out) in groups.zip(data.chunks_exact_mut(slice_len)) {
            self.write_frames(group, resized, out)?;
        }
        Ok(PixelValues { data, grid_thw, original, resized })
    }
}

/// Sizes that can be multiplied without care.
pub(crate) fn check_geometry(geometry: PatchGeometry) -> Result<(), Error> {
    for (name, value) in [
        ("patch_size", geometry.patch_size),
        ("temporal_patch_size", geometry.temporal_patch_size),
        ("merge_size", geometry.merge_size),
    ] {
        check(name, value, (1..=1024).contains(&value), "it must be from 1 to 1024")?;
    }
    Ok(())
}

fn check(
    name: &'static str,
    value: impl ToString + Copy,
    good: bool,
    rule: &'static str,
) -> Result<(), Error> {
    if good { Ok(()) } else { Err(Error::Option { name, value: value.to_string(), rule }) }
}
