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
    let convert = |error| convert(&error, bytes, format, &options.limits);
    let mut decoder = open(bytes, format, &options.limits)?;
    let size = size_of(&decoder);
    // The decoder's own pixels, then RGB.
    let bytes_per_pixel = u64::from(decoder.color_type().bytes_per_pixel()) + 3;
    options.limits.check(size, bytes_per_pixel)?;
    let orientation = orientation_of(&mut decoder, format);
    let image = DynamicImage::from_decoder(decoder).map_err(convert)?;
    Ok((RgbImage::from_dynamic_owned(image, options.alpha), orientation))
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
