//! Pages of PDFs as images, by hayro. Without the feature `pdf` they are recognized and refused.
//!
//! No reference is followed: Hugging Face reads no PDFs. Pages are rendered over white, as they would be printed.

#[cfg(feature = "pdf")]
mod meter;
#[cfg(feature = "pdf")]
mod render;

use super::DecodeOptions;
use crate::Error;

pub(super) const FORMAT: &str = "PDF";

/// Whether bytes are those of a PDF: readers look for its mark in the first kilobyte.
pub fn is_pdf(bytes: &[u8]) -> bool {
    let start = &bytes[..bytes.len().min(1024)];
    start.windows(5).any(|window| window == b"%PDF-")
}

fn check_len(bytes: &[u8], options: &DecodeOptions) -> Result<(), Error> {
    let (given, limit) = (bytes.len() as u64, options.limits.max_file_bytes);
    if given > limit { Err(Error::FileTooLarge { bytes: given, limit }) } else { Ok(()) }
}

#[cfg(feature = "pdf")]
pub use render::{count_pdf_pages, decode_pdf_page, read_pdf_page_size};
#[cfg(not(feature = "pdf"))]
pub use without::{count_pdf_pages, decode_pdf_page, read_pdf_page_size};

#[cfg(not(feature = "pdf"))]
mod without {
    use super::super::DecodeOptions;
    use super::{FORMAT, check_len};
    use crate::{Error, ImageSize, RgbImage};

    fn refused<T>(bytes: &[u8], options: &DecodeOptions) -> Result<T, Error> {
        check_len(bytes, options)?;
        Err(Error::FeatureMissing { format: FORMAT, feature: "pdf" })
    }

    /// The number of pages of a PDF.
    ///
    /// # Errors
    ///
    /// [`Error::FeatureMissing`]: this build has not the feature `pdf`.
    pub fn count_pdf_pages(bytes: &[u8], options: &DecodeOptions) -> Result<u32, Error> {
        refused(bytes, options)
    }

    /// The size that [`decode_pdf_page`] gives a page.
    ///
    /// # Errors
    ///
    /// [`Error::FeatureMissing`]: this build has not the feature `pdf`.
    pub fn read_pdf_page_size(
        bytes: &[u8],
        _page: Option<u32>,
        options: &DecodeOptions,
    ) -> Result<ImageSize, Error> {
        refused(bytes, options)
    }

    /// Renders a page, numbered from 1.
    ///
    /// # Errors
    ///
    /// [`Error::FeatureMissing`]: this build has not the feature `pdf`.
    pub fn decode_pdf_page(
        bytes: &[u8],
        _page: Option<u32>,
        options: &DecodeOptions,
    ) -> Result<RgbImage, Error> {
        refused(bytes, options)
    }
}
