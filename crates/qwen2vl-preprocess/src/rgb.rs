//! Decoded pixels: RGB, 8 bits, and how other pixel kinds become that.
//!
//! Follows Pillow 13's `convert("RGB")`, as Hugging Face's `load_image` uses it, with one deliberate deviation: 16-bit
//! grey is scaled to 8 bits as 16-bit colour is, where Pillow cuts off everything above 255 and shows mostly white.

use std::fmt;

use image::DynamicImage;

use crate::{Error, ImageSize};

/// What becomes of transparency, since the model sees no alpha channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum AlphaMode {
    /// Forget it: colors hidden under transparent pixels show. What Hugging Face does, by `convert("RGB")`.
    #[default]
    Drop,
    /// Lay the image over this color, as qwen-vl-utils does with white.
    Composite([u8; 3]),
}

/// An image in memory: `[height, width, 3]`, row-major, 8 bits a channel.
#[derive(Clone, PartialEq, Eq)]
pub struct RgbImage {
    size: ImageSize,
    data: Vec<u8>,
}

impl fmt::Debug for RgbImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RgbImage").field("size", &self.size).finish_non_exhaustive()
    }
}

impl RgbImage {
    /// An image of `height * width * 3` bytes.
    ///
    /// # Errors
    ///
    /// [`Error::NoPixels`] if a side is 0, [`Error::RawLength`] if the length does not fit.
    pub fn new(height: u32, width: u32, data: Vec<u8>) -> Result<Self, Error> {
        if height == 0 || width == 0 {
            return Err(Error::NoPixels { height, width });
        }
        let size = ImageSize { height, width };
        let expected = size.pixels().saturating_mul(3);
        if data.len() as u64 != expected {
            return Err(Error::RawLength { height, width, expected, given: data.len() });
        }
        Ok(Self { size, data })
    }

    /// For decoders that made `data` from `size`.
    pub(crate) fn from_parts(size: ImageSize, data: Vec<u8>) -> Self {
        debug_assert_eq!(data.len() as u64, size.pixels() * 3);
        Self { size, data }
    }

    /// From an image of the `image` crate, of any pixel kind.
    pub fn from_dynamic(image: &DynamicImage, alpha: AlphaMode) -> Self {
        Self::from_dynamic_owned(image.clone(), alpha)
    }

    /// As [`RgbImage::from_dynamic`], without a copy where the image is RGB8 already.
    pub(crate) fn from_dynamic_owned(image: DynamicImage, alpha: AlphaMode) -> Self {
        let size = ImageSize { height: image.height(), width: image.width() };
        let data = match image {
            DynamicImage::ImageRgb8(image) => image.into_raw(),
            DynamicImage::ImageLuma8(image) => expand(image.as_raw(), |&[l]: &[u8; 1]| [l; 3]),
            DynamicImage::ImageLumaA8(image) => expand(image.as_raw(), |&[l, a]| alpha.apply([l; 3], a)),
            DynamicImage::ImageRgba8(image) => {
                expand(image.as_raw(), |&[r, g, b, a]| alpha.apply([r, g, b], a))
            }
            DynamicImage::ImageLuma16(image) => expand(image.as_raw(), |&[l]: &[u16; 1]| [high(l); 3]),
            DynamicImage::ImageLumaA16(image) => {
                expand(image.as_raw(), |&[l, a]| alpha.apply([high(l); 3], high(a)))
            }
            DynamicImage::ImageRgb16(image) => expand(image.as_raw(), |rgb: &[u16; 3]| rgb.map(high)),
            DynamicImage::ImageRgba16(image) => {
                expand(image.as_raw(), |&[r, g, b, a]| alpha.apply([r, g, b].map(high), high(a)))
            }
            // Floating-point TIFF, and what the image crate may add: its own conversion.
            other => expand(other.into_rgba8().as_raw(), |&[r, g, b, a]| alpha.apply([r, g, b], a)),
        };
        Self { size, data }
    }

    /// Height and width.
    pub fn size(&self) -> ImageSize {
        self.size
    }

    /// The bytes: `[height, width, 3]`.
    pub fn as_raw(&self) -> &[u8] {
        &self.data
    }

    /// The pixels, to be changed in place.
    pub(crate) fn pixels_mut(&mut self) -> &mut [[u8; 3]] {
        self.data.as_chunks_mut::<3>().0
    }

    /// The bytes, given away.
    pub fn into_raw(self) -> Vec<u8> {
        self.data
    }
}

impl AlphaMode {
    pub(crate) fn apply(self, color: [u8; 3], alpha: u8) -> [u8; 3] {
        match self {
            Self::Drop => color,
            Self::Composite(back) => {
                let blend = |c: u8, b: u8| {
                    div_255(u32::from(c) * u32::from(alpha) + u32::from(b) * u32::from(255 - alpha))
                };
                [blend(color[0], back[0]), blend(color[1], back[1]), blend(color[2], back[2])]
            }
        }
    }
}

/// Divides by 255, rounding to nearest, as Pillow's `DIV255` does; exact for products of two bytes.
pub(crate) fn div_255(value: u32) -> u8 {
    let value = value + 128;
    (((value >> 8) + value) >> 8) as u8
}

/// Pillow keeps the high byte of 16-bit colors.
fn high(value: u16) -> u8 {
    (value >> 8) as u8
}

fn expand<T, const N: usize>(raw: &[T], pixel: impl Fn(&[T; N]) -> [u8; 3]) -> Vec<u8> {
    let (pixels, _) = raw.as_chunks::<N>();
    let mut rgb = vec![0; pixels.len() * 3];
    for (out, pixel_in) in rgb.as_chunks_mut::<3>().0.iter_mut().zip(pixels) {
        *out = pixel(pixel_in);
    }
    rgb
}

/// The pixels with their alpha, 8 bits a channel, by the same rules.
pub(crate) fn rgba_pixels(image: DynamicImage) -> Vec<[u8; 4]> {
    fn map<T, const N: usize>(raw: &[T], pixel: impl Fn(&[T; N]) -> [u8; 4]) -> Vec<[u8; 4]> {
        raw.as_chunks::<N>().0.iter().map(pixel).collect()
    }
    match image {
        DynamicImage::ImageRgb8(image) => map(image.as_raw(), |&[r, g, b]: &[u8; 3]| [r, g, b, 255]),
        DynamicImage::ImageLuma16(image) => {
            map(image.as_raw(), |&[l]: &[u16; 1]| [high(l), high(l), high(l), 255])
        }
        DynamicImage::ImageLumaA16(image) => {
            map(image.as_raw(), |&[l, a]: &[u16; 2]| [high(l), high(l), high(l), high(a)])
        }
        DynamicImage::ImageRgb16(image) => {
            map(image.as_raw(), |&[r, g, b]: &[u16; 3]| [high(r), high(g), high(b), 255])
        }
        DynamicImage::ImageRgba16(image) => map(image.as_raw(), |rgba: &[u16; 4]| rgba.map(high)),
        other => map(other.into_rgba8().as_raw(), |rgba: &[u8; 4]| *rgba),
    }
}
