//! Pages by hayro: opened, measured, checked, rendered.

use std::sync::Arc;

use hayro::hayro_interpret::InterpreterSettings;
use hayro::hayro_interpret::util::TransformExt;
use hayro::hayro_syntax::object::Object;
use hayro::hayro_syntax::page::Page;
use hayro::hayro_syntax::{DecryptionError, LoadPdfError, Pdf};
use hayro::kurbo::Affine;
use hayro::vello_cpu::color::palette::css::WHITE;
use hayro::vello_cpu::{Pixmap, RasterizerSettings, RenderContext, Resources, TargetInit};
use hayro::{RenderCache, RenderSettings, render_into};

use super::super::{DecodeLimits, DecodeOptions, guarded};
use super::{FORMAT, check_len, is_pdf, meter};
use crate::{Error, ImageSize, RgbImage};

/// Most pixels of a rendered page; larger ones are rendered smaller. Four times what the model ever sees of it.
const MAX_PAGE_PIXELS: u64 = 4 * 12_845_056;

/// Longest side of a rendered page, the renderer's own limit being 65,535.
const MAX_SIDE: f64 = 32_768.0;

/// Most pages of a file.
const MAX_PAGES: usize = 100_000;

/// Dots an inch that can be asked for.
const DPI: std::ops::RangeInclusive<u32> = 1..=2400;

/// Forms nest, and each level of them takes some stack.
const STACK_BYTES: usize = 32 << 20;

/// The number of pages of a PDF.
///
/// # Errors
///
/// [`Error::PdfPassword`] for an encrypted file, [`Error::Corrupt`] for one that is none or has no pages,
/// [`Error::TooManyPages`], and [`Error::FileTooLarge`].
pub fn count_pdf_pages(bytes: &[u8], options: &DecodeOptions) -> Result<u32, Error> {
    with_pdf(bytes, options, |pdf| Ok(pdf.pages().len() as u32))
}

/// The size that [`decode_pdf_page`] gives a page.
///
/// # Errors
///
/// Those of [`count_pdf_pages`], and [`Error::PdfPage`] for a page that is not there.
pub fn read_pdf_page_size(
    bytes: &[u8],
    page: Option<u32>,
    options: &DecodeOptions,
) -> Result<ImageSize, Error> {
    with_pdf(bytes, options, |pdf| Ok(Scale::of(choose(pdf, page)?, options)?.size))
}

/// Renders a page, numbered from 1, at [`DecodeOptions::pdf_dpi`], or smaller where that is more than 51 million pixels or
/// [`DecodeLimits::max_pixels`]. Without a number the file must have one page only.
///
/// # Errors
///
/// Those of [`read_pdf_page_size`], [`Error::PdfPages`] where a page has to be named, and
/// [`Error::TooManyPixels`] for an image in the file that is over the limits.
pub fn decode_pdf_page(bytes: &[u8], page: Option<u32>, options: &DecodeOptions) -> Result<RgbImage, Error> {
    with_pdf(bytes, options, |pdf| {
        let page = choose(pdf, page)?;
        let scale = Scale::of(page, options)?;
        // Four bytes a pixel in each of a few layers, then RGB.
        options.limits.check(scale.size, 4 * 4 + 3)?;
        check_images(pdf, &options.limits)?;
        meter::check(page)?;
        Ok(render(page, &scale))
    })
}

/// Opens a file on a stack large enough, and makes an error of a panic.
fn with_pdf<T: Send>(
    bytes: &[u8],
    options: &DecodeOptions,
    read: impl FnOnce(&Pdf) -> Result<T, Error> + Send,
) -> Result<T, Error> {
    check_len(bytes, options)?;
    let open = || {
        let pdf = Pdf::new(Arc::new(bytes.to_vec())).map_err(|error| refused(bytes, error))?;
        match pdf.pages().len() {
            0 => Err(Error::Corrupt { format: FORMAT, reason: "it has no pages".to_owned() }),
            n_pages if n_pages > MAX_PAGES => Err(Error::TooManyPages { n_pages, limit: MAX_PAGES }),
            _ => read(&pdf),
        }
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
        let spawned = thread.spawn_scoped(scope, || guarded(FORMAT, open));
        let failed = || Error::OutOfMemory { bytes: STACK_BYTES as u64 };
        spawned.map_err(|_| failed())?.join().unwrap_or_else(|_| Err(failed()))
    })
}

fn refused(bytes: &[u8], error: LoadPdfError) -> Error {
    let unsupported = |reason: &str| Error::Unsupported { format: FORMAT, reason: reason.to_owned() };
    match error {
        LoadPdfError::Decryption(DecryptionError::PasswordProtected) => Error::PdfPassword,
        LoadPdfError::Decryption(DecryptionError::UnsupportedAlgorithm) => {
            unsupported("its encryption is of an unknown kind")
        }
        LoadPdfError::Decryption(_) => {
            Error::Corrupt { format: FORMAT, reason: "its encryption is not valid".to_owned() }
        }
        LoadPdfError::Invalid if is_pdf(bytes) => {
            Error::Corrupt { format: FORMAT, reason: "no pages can be found in it".to_owned() }
        }
        LoadPdfError::Invalid => Error::Corrupt { format: FORMAT, reason: "it is no PDF".to_owned() },
    }
}

fn choose<'a>(pdf: &'a Pdf, page: Option<u32>) -> Result<&'a Page<'a>, Error> {
    let pages = pdf.pages();
    let n_pages = pages.len() as u32;
    let number = match page {
        Some(number) => number,
        None if n_pages == 1 => 1,
        None => return Err(Error::PdfPages { n_pages }),
    };
    let index = number.checked_sub(1).map(|index| index as usize);
    index.and_then(|index| pages.get(index)).ok_or(Error::PdfPage { page: number, n_pages })
}

/// From points to pixels.
struct Scale {
    size: ImageSize,
    /// Pixels a point.
    factor: f64,
}

impl Scale {
    fn of(page: &Page<'_>, options: &DecodeOptions) -> Result<Self, Error> {
        if !DPI.contains(&options.pdf_dpi) {
            let rule = "must be from 1 to 2400";
            return Err(Error::Option { name: "pdf_dpi", value: options.pdf_dpi.to_string(), rule });
        }
        let (width, height) = page.render_dimensions();
        let (width, height) = (f64::from(width), f64::from(height));
        let limit = MAX_PAGE_PIXELS.min(options.limits.max_pixels);
        let factor = (f64::from(options.pdf_dpi) / 72.0)
            .min((limit as f64 / (width * height)).sqrt())
            .min(MAX_SIDE / width.max(height));
        let sides = |round: fn(f64) -> f64| {
            let side = |points: f64| round(points * factor + 1e-6).max(1.0) as u32;
            ImageSize { height: side(height), width: side(width) }
        };
        let rounded = sides(f64::round);
        let size = if rounded.pixels() <= limit { rounded } else { sides(f64::floor) };
        Ok(Self { size, factor })
    }
}

/// Refuses images whose decoded size is over the limits, wherever they are in the file.
fn check_images(pdf: &Pdf, limits: &DecodeLimits) -> Result<(), Error> {
    for object in pdf.objects() {
        let Object::Stream(stream) = object else { continue };
        let side = |key: &[u8]| stream.dict().get::<u32>(key);
        if let (Some(height), Some(width)) = (side(b"Height"), side(b"Width"))
            && height > 0
            && width > 0
        {
            limits.check(ImageSize { height, width }, 4)?;
        }
    }
    Ok(())
}

fn render(page: &Page<'_>, scale: &Scale) -> RgbImage {
    let ImageSize { height, width } = scale.size;
    // At most `MAX_SIDE`.
    let (width_px, height_px) = (width as u16, height as u16);
    let mut context = RenderContext::new(width_px, height_px);
    let transform = Affine::scale(scale.factor) * page.initial_transform(true).to_kurbo();
    let settings = InterpreterSettings::default();
    render_into(page, &RenderCache::new(), &settings, &RenderSettings::default(), &mut context, transform);
    context.flush();
    let mut pixmap = Pixmap::new(width_px, height_px);
    let white = RasterizerSettings { target_init: TargetInit::Clear(WHITE), ..Default::default() };
    context.render_with(&mut pixmap, &mut Resources::default(), white);
    let data = pixmap.data().iter().flat_map(|pixel| [pixel.r, pixel.g, pixel.b]).collect();
    RgbImage::from_parts(scale.size, data)
}
