//! JPEG by mozjpeg, whose pixels equal Pillow's to the bit (libjpeg-turbo computes the same integers).
//!
//! Truncation is an error, as in Pillow: the source ends with an I/O error instead of libjpeg's faked end marker.
//! libjpeg's errors arrive by unwinding and are caught one level up.

use std::cell::Cell;
use std::io::{self, BufRead, Read};

use image::metadata::Orientation;
use mozjpeg::{ColorSpace, Decompress, Marker};

use super::{DecodeLimits, orientation};
use crate::rgb::div_255;
use crate::{Error, ImageSize, RgbImage};

const FORMAT: &str = "JPEG";
const EXIF: &[u8] = b"Exif\0\0";
const XMP: &[u8] = b"http://ns.adobe.com/xap/1.0/\0";

/// libjpeg-turbo's own fuzzers stop at as many: a small file with thousands of scans costs hours of passes.
const MAX_SCANS: usize = 500;

/// A slice whose end is an error, and that remembers having been asked for more.
struct Source<'a> {
    rest: &'a [u8],
    ended: &'a Cell<bool>,
}

impl Read for Source<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = self.fill_buf()?.read(out)?;
        self.consume(n);
        Ok(n)
    }
}

impl BufRead for Source<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.rest.is_empty() {
            self.ended.set(true);
            return Err(io::Error::other("end of file"));
        }
        Ok(self.rest)
    }

    fn consume(&mut self, n: usize) {
        self.rest = &self.rest[n.min(self.rest.len())..];
    }
}

pub(super) fn decode(bytes: &[u8], limits: &DecodeLimits) -> Result<(RgbImage, Orientation), Error> {
    let scans = count_scans(bytes);
    if scans > MAX_SCANS {
        return Err(Error::TooManyScans { scans, limit: MAX_SCANS });
    }
    // More than one scan means that all coefficients are kept: 16 bits each.
    let bytes_per_pixel = if scans > 1 { 3 + 6 } else { 3 };
    let read = |jpeg: Decompress<Source<'_>>| {
        let size = size_of(&jpeg)?;
        limits.check(size, bytes_per_pixel)?;
        let orientation = orientation_of(&jpeg);
        let data = match jpeg.components().len() {
            1 | 3 => {
                // Not finished: like Pillow, do not miss an end marker when all lines are there.
                jpeg.rgb().map_err(corrupt)?.read_scanlines::<u8>().map_err(corrupt)?
            }
            4 => {
                let mut started = jpeg.to_colorspace(ColorSpace::JCS_CMYK).map_err(corrupt)?;
                cmyk_to_rgb(&started.read_scanlines::<[u8; 4]>().map_err(corrupt)?)
            }
            n => {
                return Err(Error::Unsupported {
                    format: FORMAT,
                    reason: format!("it has {n} color components"),
                });
            }
        };
        Ok((RgbImage::from_parts(size, data), orientation))
    };
    with_jpeg(bytes, read)
}

pub(super) fn read_size(bytes: &[u8]) -> Result<(ImageSize, Orientation), Error> {
    with_jpeg(bytes, |jpeg| Ok((size_of(&jpeg)?, orientation_of(&jpeg))))
}

/// Opens the file, and tells truncation from other damage.
fn with_jpeg<T>(
    bytes: &[u8],
    read: impl FnOnce(Decompress<Source<'_>>) -> Result<T, Error>,
) -> Result<T, Error> {
    let ended = Cell::new(false);
    let result = super::guarded(FORMAT, || {
        let source = Source { rest: bytes, ended: &ended };
        let jpeg =
            Decompress::builder().with_markers(&[Marker::APP(1)]).from_reader(source).map_err(corrupt)?;
        read(jpeg)
    });
    match result {
        Err(Error::Corrupt { .. }) if ended.get() => {
            Err(Error::Truncated { format: FORMAT, bytes: bytes.len() })
        }
        other => other,
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it is given to map_err")]
fn corrupt(error: io::Error) -> Error {
    Error::Corrupt { format: FORMAT, reason: error.to_string() }
}

fn size_of(jpeg: &Decompress<Source<'_>>) -> Result<ImageSize, Error> {
    let side = |value: usize| {
        u32::try_from(value)
            .map_err(|_| Error::Corrupt { format: FORMAT, reason: format!("a side of {value} pixels") })
    };
    Ok(ImageSize { height: side(jpeg.height())?, width: side(jpeg.width())? })
}

fn orientation_of(jpeg: &Decompress<Source<'_>>) -> Orientation {
    let find = |prefix: &[u8]| jpeg.markers().find_map(|marker| marker.data.strip_prefix(prefix));
    orientation::from_metadata(find(EXIF), find(XMP))
}

/// Start-of-scan markers. Entropy-coded data cannot contain one; metadata may, so this is an upper bound.
fn count_scans(bytes: &[u8]) -> usize {
    bytes
        .chunks(1 << 16)
        .enumerate()
        .map(|(i, chunk)| {
            let after = (i + 1) << 16;
            let seam = chunk.last() == Some(&0xFF) && bytes.get(after) == Some(&0xDA);
            let inside =
                chunk.iter().zip(chunk.iter().skip(1)).filter(|&(&a, &b)| a == 0xFF && b == 0xDA).count();
            inside + usize::from(seam)
        })
        .sum()
}

/// Pillow assumes Adobe's inverted CMYK in every four-component JPEG and then takes `cmyk2rgb`.
fn cmyk_to_rgb(inverted: &[[u8; 4]]) -> Vec<u8> {
    let mut rgb = vec![0; inverted.len() * 3];
    for (out, &[c, m, y, k]) in rgb.as_chunks_mut::<3>().0.iter_mut().zip(inverted) {
        *out = [c, m, y].map(|ink| k - div_255(u32::from(255 - ink) * u32::from(k)));
    }
    rgb
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scans_are_counted_across_chunks() {
        let mut bytes = vec![0_u8; 200_000];
        for at in [0, 65_535, 131_070, 131_071, 199_998] {
            bytes[at] = 0xFF;
            bytes[at + 1] = 0xDA;
        }
        // The one at 131,070 was overwritten by its neighbor.
        assert_eq!(count_scans(&bytes), 4);
        assert_eq!((count_scans(&[]), count_scans(&[0xFF])), (0, 0));
    }

    #[test]
    fn inverted_cmyk_by_hand() {
        let rgb =
            cmyk_to_rgb(&[[255, 255, 255, 255], [0, 128, 255, 255], [255, 255, 255, 0], [255, 0, 128, 100]]);
        assert_eq!(rgb, [255, 255, 255, 0, 128, 255, 0, 0, 0, 100, 0, 50]);
    }
}
