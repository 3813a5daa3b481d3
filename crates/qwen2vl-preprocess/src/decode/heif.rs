//! HEIC and AVIF by the system's libheif. Without the feature `heif` they are recognized and refused.
//!
//! Follows pillow-heif: the primary image, turned as its properties say; EXIF says nothing about it, as the format has it.

#[cfg(not(feature = "heif"))]
use super::DecodeOptions;
#[cfg(not(feature = "heif"))]
use crate::{Error, ImageSize, RgbImage};

/// Brands of HEIF by the kind of their pictures; files of the general ones say in their further brands what they hold.
const AVIF: &[&[u8; 4]] = &[b"avif", b"avis"];
const HEIC: &[&[u8; 4]] =
    &[b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"];

/// `AVIF` or `HEIC`, by the brands at the beginning of a file.
pub(super) fn recognize(bytes: &[u8]) -> Option<&'static str> {
    let len = u32::from_be_bytes(*bytes.first_chunk::<4>()?) as usize;
    let head = bytes.get(4..bytes.len().min(len.clamp(16, 1024)))?.strip_prefix(b"ftyp")?;
    // The main brand, a version, further brands.
    let brands: Vec<&[u8; 4]> =
        head.as_chunks::<4>().0.iter().enumerate().filter(|(i, _)| *i != 1).map(|(_, brand)| brand).collect();
    let main = *brands.first()?;
    let is_any = |kind: &[&[u8; 4]]| kind.contains(&main);
    if is_any(AVIF) || (is_any(HEIC) && brands.iter().any(|brand| AVIF.contains(brand))) {
        return Some("AVIF");
    }
    is_any(HEIC).then_some("HEIC")
}

#[cfg(not(feature = "heif"))]
pub(super) fn decode(
    _bytes: &[u8],
    format: &'static str,
    _options: &DecodeOptions,
) -> Result<RgbImage, Error> {
    Err(Error::FeatureMissing { format, feature: "heif" })
}

#[cfg(not(feature = "heif"))]
pub(super) fn read_size(_bytes: &[u8], format: &'static str) -> Result<ImageSize, Error> {
    Err(Error::FeatureMissing { format, feature: "heif" })
}

#[cfg(feature = "heif")]
pub(super) use with_libheif::{decode, read_size};

#[cfg(feature = "heif")]
mod with_libheif {
    use libheif_rs::{
        ColorSpace, HeifContext, HeifError, HeifErrorCode, HeifErrorSubCode, ImageHandle, LibHeif, RgbChroma,
    };

    use super::super::DecodeOptions;
    use crate::{Error, ImageSize, RgbImage};

    pub fn decode(bytes: &[u8], format: &'static str, options: &DecodeOptions) -> Result<RgbImage, Error> {
        let convert = |error| convert(&error, bytes, format);
        let context = HeifContext::read_from_bytes(bytes).map_err(convert)?;
        let handle = context.primary_image_handle().map_err(convert)?;
        let size = size_of(&handle);
        // Planes of up to 16 bits and their colors in full, then RGBA, then RGB.
        options.limits.check(size, 4 * 2 + 4 + 3)?;
        let chroma = if handle.has_alpha_channel() { RgbChroma::Rgba } else { RgbChroma::Rgb };
        let library = LibHeif::new();
        let image = library.decode(&handle, ColorSpace::Rgb(chroma), None).map_err(convert)?;
        let plane = image.planes().interleaved.filter(|p| (p.height, p.width) == (size.height, size.width));
        let plane = plane.ok_or_else(|| Error::Corrupt {
            format,
            reason: format!("its pixels are not the {size} that its header says"),
        })?;
        let mut data = Vec::with_capacity(size.pixels() as usize * 3);
        for row in plane.data.chunks(plane.stride).take(size.height as usize) {
            let width = size.width as usize;
            if handle.has_alpha_channel() {
                let pixels = row.as_chunks::<4>().0.iter().take(width);
                data.extend(pixels.flat_map(|&[r, g, b, a]| options.alpha.apply([r, g, b], a)));
            } else {
                data.extend_from_slice(row.get(..width * 3).unwrap_or_default());
            }
        }
        RgbImage::new(size.height, size.width, data)
    }

    pub fn read_size(bytes: &[u8], format: &'static str) -> Result<ImageSize, Error> {
        let convert = |error| convert(&error, bytes, format);
        let context = HeifContext::read_from_bytes(bytes).map_err(convert)?;
        let size = size_of(&context.primary_image_handle().map_err(convert)?);
        let ImageSize { height, width } = size;
        if height == 0 || width == 0 { Err(Error::NoPixels { height, width }) } else { Ok(size) }
    }

    /// After the turn.
    fn size_of(handle: &ImageHandle) -> ImageSize {
        ImageSize { height: handle.height(), width: handle.width() }
    }

    fn convert(error: &HeifError, bytes: &[u8], format: &'static str) -> Error {
        match (error.code, error.sub_code) {
            (_, HeifErrorSubCode::EndOfData) => Error::Truncated { format, bytes: bytes.len() },
            (HeifErrorCode::UnsupportedFileType | HeifErrorCode::UnsupportedFeature, _) => {
                Error::Unsupported { format, reason: error.message.clone() }
            }
            _ => Error::Corrupt { format, reason: error.message.clone() },
        }
    }
}
