//! Sizes and `smart_resize`, which decides how large an image is when the model sees it.
//!
//! Follows Hugging Face transformers 4.57.6, `models/qwen2_vl/image_processing_qwen2_vl.py`, in 64-bit floats as Python
//! computes. qwen-vl-utils orders the steps differently and is not followed.

use std::fmt;

use crate::Error;

/// The largest allowed ratio of the longer to the shorter side; exactly this much is still allowed.
pub const MAX_ASPECT_RATIO: f64 = 200.0;

/// Height and width in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ImageSize {
    /// Rows.
    pub height: u32,
    /// Columns.
    pub width: u32,
}

impl ImageSize {
    /// `height * width`.
    pub fn pixels(&self) -> u64 {
        u64::from(self.height) * u64::from(self.width)
    }

    /// The size after a quarter turn.
    #[must_use]
    pub fn transposed(self) -> Self {
        Self { height: self.width, width: self.height }
    }
}

/// As people write it: width first.
impl fmt::Display for ImageSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.width, self.height)
    }
}

/// How many pixels a resized image may have.
///
/// Both are aims of `smart_resize`, not hard bounds: rounding a side to a whole number of tokens comes after scaling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PixelLimits {
    /// Smaller images are enlarged to about this many pixels.
    pub min_pixels: u64,
    /// Larger images are reduced to at most this many pixels, unless a strip one token wide needs more.
    pub max_pixels: u64,
}

impl PixelLimits {
    /// What Hugging Face's image processor class assumes where a config says nothing.
    pub const IMAGE_CLASS_DEFAULT: Self = Self { min_pixels: 56 * 56, max_pixels: 28 * 28 * 1280 };

    /// What Hugging Face's video processor class assumes where a config says nothing.
    pub const VIDEO_CLASS_DEFAULT: Self = Self { min_pixels: 128 * 28 * 28, max_pixels: 28 * 28 * 768 };

    /// Limits from both spellings of `preprocessor_config.json`: `min_pixels`/`max_pixels`, which win where both are
    /// given, and `size: {shortest_edge, longest_edge}`, which despite its names also counts pixels.
    ///
    /// ```
    /// use qwen2vl_preprocess::PixelLimits;
    ///
    /// let limits = PixelLimits::from_spellings(None, Some(1_003_520), Some(3136), None, PixelLimits::default());
    /// assert_eq!((limits.min_pixels, limits.max_pixels), (3136, 1_003_520));
    /// ```
    #[must_use]
    pub fn from_spellings(
        min_pixels: Option<u64>,
        max_pixels: Option<u64>,
        shortest_edge: Option<u64>,
        longest_edge: Option<u64>,
        default: Self,
    ) -> Self {
        Self {
            min_pixels: min_pixels.or(shortest_edge).unwrap_or(default.min_pixels),
            max_pixels: max_pixels.or(longest_edge).unwrap_or(default.max_pixels),
        }
    }
}

/// Those of Qwen2-VL-2B-Instruct's `preprocessor_config.json`: 3,136 (4 tokens) and 12,845,056 (16,384 tokens).
impl Default for PixelLimits {
    fn default() -> Self {
        Self { min_pixels: 56 * 56, max_pixels: 16384 * 28 * 28 }
    }
}

/// The size an image is resized to: both sides multiples of `factor`, the number of pixels within `limits`, the aspect
/// ratio kept as well as that allows.
///
/// ```
/// use qwen2vl_preprocess::{ImageSize, PixelLimits, smart_resize};
///
/// let size = smart_resize(ImageSize { height: 480, width: 640 }, 28, PixelLimits::default())?;
/// assert_eq!(size, ImageSize { height: 476, width: 644 });
/// # Ok::<(), qwen2vl_preprocess::Error>(())
/// ```
///
/// # Errors
///
/// [`Error::NoPixels`], [`Error::AspectRatio`] over 200, [`Error::Option`] for a `factor` or `max_pixels` of 0,
/// [`Error::ResizedTooLarge`] if `min_pixels` asks for more than 32 bits a side.
pub fn smart_resize(size: ImageSize, factor: u32, limits: PixelLimits) -> Result<ImageSize, Error> {
    let ImageSize { height, width } = size;
    if height == 0 || width == 0 {
        return Err(Error::NoPixels { height, width });
    }
    let positive = |name, value: u64| match value {
        0 => Err(Error::Option { name, value: "0".to_owned(), rule: "it must be at least 1" }),
        _ => Ok(()),
    };
    positive("factor", factor.into())?;
    positive("max_pixels", limits.max_pixels)?;
    let ratio = f64::from(height.max(width)) / f64::from(height.min(width));
    if ratio > MAX_ASPECT_RATIO {
        return Err(Error::AspectRatio { height, width, ratio, limit: MAX_ASPECT_RATIO });
    }

    let (h, w, f) = (f64::from(height), f64::from(width), f64::from(factor));
    let pixels = size.pixels() as f64;
    // Python's round() takes ties to the even side: 70 pixels are 2.5 tokens and become 2.
    let (mut new_h, mut new_w) = ((h / f).round_ties_even() * f, (w / f).round_ties_even() * f);
    if new_h * new_w > limits.max_pixels as f64 {
        let beta = (pixels / limits.max_pixels as f64).sqrt();
        new_h = ((h / beta / f).floor() * f).max(f);
        new_w = ((w / beta / f).floor() * f).max(f);
    } else if new_h * new_w < limits.min_pixels as f64 {
        let beta = (limits.min_pixels as f64 / pixels).sqrt();
        new_h = (h * beta / f).ceil() * f;
        new_w = (w * beta / f).ceil() * f;
    }
    // A side rounded to nothing while `min_pixels` is 0: the reference would go on with an empty image.
    if new_h == 0.0 || new_w == 0.0 {
        return Err(Error::NoPixels { height: new_h as u32, width: new_w as u32 });
    }
    if new_h > f64::from(u32::MAX) || new_w > f64::from(u32::MAX) {
        return Err(Error::ResizedTooLarge { height, width, min_pixels: limits.min_pixels });
    }
    Ok(ImageSize { height: new_h as u32, width: new_w as u32 })
}
