//! Encoded bytes to RGB, with every limit checked on the header, before any pixel is decoded.
//!
//! Follows Hugging Face's `load_image`: Pillow's decoders, then `exif_transpose`, then `convert("RGB")`. Reads the first
//! frame of an animation; `animation` reads all. PDFs are in `pdf`, HEIC and AVIF in `heif`. Nothing is read
//! from a URL.

mod animation;
mod generic;
mod gif;
mod heif;
mod jpeg;
mod orientation;
mod pdf;

use std::panic::{AssertUnwindSafe, catch_unwind};

use image::ImageFormat;

use crate::{AlphaMode, Error, ImageSize, RgbImage};

pub use animation::{Animation, AnimationInfo, decode_animation, read_animation};
pub use pdf::{count_pdf_pages, decode_pdf_page, is_pdf, read_pdf_page_size};

/// What a decoder may use. The defaults fit photographs of unknown origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeLimits {
    /// Most pixels (height times width). By default 178,956,970, where Pillow raises `DecompressionBombError`.
    pub max_pixels: u64,
    /// Most bytes of the encoded file. By default 512 MiB.
    pub max_file_bytes: u64,
    /// Most bytes that decoding may allocate, as far as the decoders tell. By default 2 GiB.
    pub max_alloc_bytes: u64,
}

impl Default for DecodeLimits {
    fn default() -> Self {
        Self { max_pixels: 178_956_970, max_file_bytes: 512 << 20, max_alloc_bytes: 2 << 30 }
    }
}

impl DecodeLimits {
    /// No limits: for files that are trusted.
    pub const NONE: Self = Self { max_pixels: u64::MAX, max_file_bytes: u64::MAX, max_alloc_bytes: u64::MAX };

    /// Refuses a size, or the memory that decoding it takes.
    fn check(&self, size: ImageSize, bytes_per_pixel: u64) -> Result<(), Error> {
        let ImageSize { height, width } = size;
        if height == 0 || width == 0 {
            return Err(Error::NoPixels { height, width });
        }
        let pixels = size.pixels();
        if pixels > self.max_pixels {
            return Err(Error::TooManyPixels { height, width, pixels, limit: self.max_pixels });
        }
        let bytes = pixels.saturating_mul(bytes_per_pixel);
        if bytes > self.max_alloc_bytes || usize::try_from(bytes).is_err() {
            return Err(Error::MemoryLimit { bytes, limit: self.max_alloc_bytes });
        }
        Ok(())
    }
}

/// How bytes become an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeOptions {
    /// What the decoder may use.
    pub limits: DecodeLimits,
    /// What becomes of transparency.
    pub alpha: AlphaMode,
    /// Dots an inch at which pages of PDFs are rendered, from 1 to 2400. By default 150: a page of A4 has 1240x1754 pixels then,
    /// about twice what the model sees of it by default, and a text of 6 points is still 12 pixels high.
    pub pdf_dpi: u32,
}

impl Default for DecodeOptions {
    fn default() -> Self {
        Self { limits: DecodeLimits::default(), alpha: AlphaMode::default(), pdf_dpi: 150 }
    }
}

/// Decodes a JPEG, PNG, GIF, BMP, TIFF, WebP or PNM file, turns it as its EXIF data says, and makes it RGB. With the feature
/// `heif` also HEIC and AVIF, with the feature `pdf` also the page of a PDF that has only one.
///
/// # Errors
///
/// Of empty, unknown, damaged or truncated files, and of files over the limits; never panics on their content.
pub fn decode_image(bytes: &[u8], options: &DecodeOptions) -> Result<RgbImage, Error> {
    let given = bytes.len() as u64;
    if given > options.limits.max_file_bytes {
        return Err(Error::FileTooLarge { bytes: given, limit: options.limits.max_file_bytes });
    }
    let format = match sniff(bytes)? {
        Kind::Image(format) => format,
        Kind::Heif(format) => return guarded(format, || heif::decode(bytes, format, options)),
        Kind::Pdf => return decode_pdf_page(bytes, None, options),
    };
    let (image, orientation) = guarded(name(format), || match format {
        ImageFormat::Jpeg => jpeg::decode(bytes, &options.limits),
        ImageFormat::Gif => gif::decode(bytes, options),
        ImageFormat::WebP if animation::is_animated_webp(bytes) => {
            animation::first_webp_frame(bytes, options)
        }
        _ => generic::decode(bytes, format, options),
    })?;
    Ok(orientation::apply(image, orientation))
}

/// The size of an image as [`decode_image`] would give it with the default options, from the header alone.
///
/// # Errors
///
/// Of files without a readable header. The limits are not checked here.
pub fn read_size(bytes: &[u8]) -> Result<ImageSize, Error> {
    let format = match sniff(bytes)? {
        Kind::Image(format) => format,
        Kind::Heif(format) => return guarded(format, || heif::read_size(bytes, format)),
        Kind::Pdf => return read_pdf_page_size(bytes, None, &DecodeOptions::default()),
    };
    let (size, orientation) = guarded(name(format), || match format {
        ImageFormat::Jpeg => jpeg::read_size(bytes),
        ImageFormat::Gif => gif::read_size(bytes),
        ImageFormat::WebP if animation::is_animated_webp(bytes) => animation::read_webp_size(bytes),
        _ => generic::read_size(bytes, format),
    })?;
    let ImageSize { height, width } = size;
    if height == 0 || width == 0 {
        return Err(Error::NoPixels { height, width });
    }
    Ok(if orientation::transposes(orientation) { size.transposed() } else { size })
}

/// What kind of file bytes are, by their beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Image(ImageFormat),
    /// With the name of its kind.
    Heif(&'static str),
    Pdf,
}

fn sniff(bytes: &[u8]) -> Result<Kind, Error> {
    if bytes.is_empty() {
        return Err(Error::Empty);
    }
    if let Some(format) = heif::recognize(bytes) {
        return Ok(Kind::Heif(format));
    }
    match image::guess_format(bytes) {
        Ok(format) => Ok(Kind::Image(format)),
        Err(_) if is_pdf(bytes) => Ok(Kind::Pdf),
        Err(_) => {
            let start = bytes.iter().take(8).map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(" ");
            Err(Error::UnknownFormat { start })
        }
    }
}

/// libjpeg reports errors by unwinding, without the panic hook; a bug in another decoder must not end a batch either.
fn guarded<T>(format: &'static str, decode: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(decode)).unwrap_or_else(|payload| {
        let text = payload.downcast_ref::<String>().map_or("the decoder gave up", String::as_str);
        let reason = text.trim_start_matches("libjpeg fatal error: ").to_owned();
        Err(Error::Corrupt { format, reason })
    })
}

/// A format's usual name.
fn name(format: ImageFormat) -> &'static str {
    match format {
        ImageFormat::Jpeg => "JPEG",
        ImageFormat::Png => "PNG",
        ImageFormat::Gif => "GIF",
        ImageFormat::Bmp => "BMP",
        ImageFormat::Tiff => "TIFF",
        ImageFormat::WebP => "WebP",
        ImageFormat::Pnm => "PNM",
        ImageFormat::Ico => "ICO",
        ImageFormat::Hdr => "Radiance HDR",
        ImageFormat::OpenExr => "OpenEXR",
        ImageFormat::Dds => "DDS",
        ImageFormat::Qoi => "QOI",
        ImageFormat::Farbfeld => "farbfeld",
        _ => "image",
    }
}
