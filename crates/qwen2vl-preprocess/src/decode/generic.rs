//! PNG, BMP, TIFF, WebP and PNM by the `image` crate.

use std::error::Error as StdError;
use std::io::{self, Cursor};

use image::error::ImageError;
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};

use super::{DecodeLimits, DecodeOptions, name, orientation};
use crate::{Error, ImageSize, RgbImage};

pub(super) fn decode(
    bytes: &[u8],
    format: ImageFormat,
    options: &DecodeOptions,
) -> Result<(RgbImage, Orientation), Error> {
    let (image, orientation) = decode_pixels(bytes, format, &options.limits)?;
    let mut image = RgbImage::from_dynamic_owned(image, options.alpha);
    if format == ImageFormat::Bmp {
        widen_as_pillow(bytes, &mut image);
    }
    Ok((image, orientation))
}

/// The decoder's own pixels.
pub(super) fn decode_pixels(
    bytes: &[u8],
    format: ImageFormat,
    limits: &DecodeLimits,
) -> Result<(DynamicImage, Orientation), Error> {
    if format == ImageFormat::WebP && webp_len(bytes) > bytes.len() as u64 {
        return Err(Error::Truncated { format: name(format), bytes: bytes.len() });
    }
    let mut decoder = open(bytes, format, limits)?;
    // These pixels, then RGB.
    let bytes_per_pixel = u64::from(decoder.color_type().bytes_per_pixel()) + 3;
    limits.check(size_of(&decoder), bytes_per_pixel)?;
    let orientation = orientation_of(&mut decoder, format);
    let image = DynamicImage::from_decoder(decoder).map_err(|e| convert(&e, bytes, format, limits))?;
    Ok((image, orientation))
}

/// The length that a WebP file says it has: like libwebp, refuse one that lacks even its last bytes.
fn webp_len(bytes: &[u8]) -> u64 {
    let field = bytes.get(4..8).and_then(|b| b.first_chunk::<4>());
    field.map_or(0, |len| u64::from(u32::from_le_bytes(*len)) + 8)
}

/// Brings the 5- and 6-bit channels of a 16-bit BMP to 8 bits as Pillow does, by `v * 255 / 31`; the image crate repeats
/// the high bits instead, which differs by one level in some values.
fn widen_as_pillow(bytes: &[u8], image: &mut RgbImage) {
    let word =
        |at: usize| bytes.get(at..at + 4).and_then(|b| b.first_chunk::<4>()).map(|b| u32::from_le_bytes(*b));
    let green_bits = match (bytes.get(28..30), word(30), word(58)) {
        (Some([16, 0]), Some(0), _) | (Some([16, 0]), Some(3), Some(0x3E0)) => 5,
        (Some([16, 0]), Some(3), Some(0x7E0)) => 6,
        _ => return,
    };
    let widen = |value: u8, bits: u32| {
        let max = (1_u32 << bits) - 1;
        ((u32::from(value) >> (8 - bits)) * 255 / max) as u8
    };
    for [red, green, blue] in image.pixels_mut() {
        (*red, *green, *blue) = (widen(*red, 5), widen(*green, green_bits), widen(*blue, 5));
    }
}

pub(super) fn read_size(bytes: &[u8], format: ImageFormat) -> Result<(ImageSize, Orientation), Error> {
    let mut decoder = open(bytes, format, &DecodeLimits::default())?;
    Ok((size_of(&decoder), orientation_of(&mut decoder, format)))
}

fn open<'a>(
    bytes: &'a [u8],
    format: ImageFormat,
    limits: &DecodeLimits,
) -> Result<impl ImageDecoder + use<'a>, Error> {
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut allowed = Limits::no_limits();
    allowed.max_alloc = Some(limits.max_alloc_bytes);
    reader.limits(allowed);
    reader.into_decoder().map_err(|error| convert(&error, bytes, format, limits))
}

fn size_of(decoder: &impl ImageDecoder) -> ImageSize {
    let (width, height) = decoder.dimensions();
    ImageSize { height, width }
}

fn orientation_of(decoder: &mut impl ImageDecoder, format: ImageFormat) -> Orientation {
    if format == ImageFormat::Tiff {
        return decoder.orientation().unwrap_or(Orientation::NoTransforms);
    }
    let exif = decoder.exif_metadata().ok().flatten();
    let xmp = decoder.xmp_metadata().ok().flatten();
    orientation::from_metadata(exif.as_deref(), xmp.as_deref())
}

fn convert(error: &ImageError, bytes: &[u8], format: ImageFormat, limits: &DecodeLimits) -> Error {
    let format = name(format);
    match error {
        _ if ends_early(error) => Error::Truncated { format, bytes: bytes.len() },
        ImageError::Limits(_) => {
            let limit = limits.max_alloc_bytes;
            Error::MemoryLimit { bytes: limit.saturating_add(1), limit }
        }
        ImageError::Unsupported(_) => Error::Unsupported { format, reason: error.to_string() },
        _ => Error::Corrupt { format, reason: error.to_string() },
    }
}

/// Whether the end of the file is somewhere among the causes.
fn ends_early(error: &ImageError) -> bool {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = cause {
        let eof = |e: &io::Error| e.kind() == io::ErrorKind::UnexpectedEof;
        if error.downcast_ref::<io::Error>().is_some_and(eof) {
            return true;
        }
        if let Some(ImageError::IoError(e)) = error.downcast_ref::<ImageError>()
            && eof(e)
        {
            return true;
        }
        cause = error.source();
    }
    false
}
