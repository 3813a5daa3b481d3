//! The first frame of a GIF, as Pillow 13's `GifImagePlugin` shows it: the canvas grows to hold the frame, what the
//! frame leaves free takes the transparent color or color 0, and transparent pixels keep their palette color.

use std::io::{self, Read};
use std::num::NonZeroU64;

use gif::{ColorOutput, Decoder, DecodingError, Frame, MemoryLimit};
use image::metadata::Orientation;

use super::{DecodeLimits, DecodeOptions};
use crate::{AlphaMode, Error, ImageSize, RgbImage};

const FORMAT: &str = "GIF";

pub(super) fn decode(bytes: &[u8], options: &DecodeOptions) -> Result<(RgbImage, Orientation), Error> {
    let mut decoder = open(bytes, bytes.len(), &options.limits)?;
    let size = first_frame(&mut decoder, bytes)?.1;
    // Indices of the frame, then RGB of the canvas.
    options.limits.check(size, 1 + 3)?;
    let mut indices = vec![0; decoder.buffer_size()];
    decoder.read_into_buffer(&mut indices).map_err(|e| convert(e, bytes.len(), &options.limits))?;
    let frame = decoder
        .current_frame_info()
        .ok_or_else(|| Error::Corrupt { format: FORMAT, reason: "no frame".to_owned() })?;
    let palette = frame.palette.as_deref().or(decoder.global_palette()).unwrap_or_default();
    let colors = Colors::new(palette, frame.transparent, options.alpha);
    Ok((paint(size, frame, &indices, &colors), Orientation::NoTransforms))
}

pub(super) fn read_size(bytes: &[u8]) -> Result<(ImageSize, Orientation), Error> {
    let mut decoder = open(bytes, bytes.len(), &DecodeLimits::default())?;
    Ok((first_frame(&mut decoder, bytes)?.1, Orientation::NoTransforms))
}

/// Opens a file of `len` bytes.
pub(super) fn open<R: Read>(file: R, len: usize, limits: &DecodeLimits) -> Result<Decoder<R>, Error> {
    let mut options = gif::DecodeOptions::new();
    options.set_color_output(ColorOutput::Indexed);
    options.set_memory_limit(
        NonZeroU64::new(limits.max_alloc_bytes).map_or(MemoryLimit::Unlimited, MemoryLimit::Bytes),
    );
    options.read_info(file).map_err(|e| convert(e, len, limits))
}

/// The first frame's header, and the canvas that holds it.
fn first_frame<'a>(
    decoder: &'a mut Decoder<&[u8]>,
    bytes: &[u8],
) -> Result<(&'a Frame<'static>, ImageSize), Error> {
    let (width, height) = (u32::from(decoder.width()), u32::from(decoder.height()));
    let frame = decoder
        .next_frame_info()
        .map_err(|e| convert(e, bytes.len(), &DecodeLimits::default()))?
        .ok_or_else(|| Error::Corrupt { format: FORMAT, reason: "it holds no image".to_owned() })?;
    let size = ImageSize {
        height: height.max(u32::from(frame.top) + u32::from(frame.height)),
        width: width.max(u32::from(frame.left) + u32::from(frame.width)),
    };
    Ok((frame, size))
}

/// What each index looks like.
struct Colors {
    table: [[u8; 3]; 256],
    /// Of the canvas around the frame.
    around: [u8; 3],
}

impl Colors {
    fn new(palette: &[u8], transparent: Option<u8>, alpha: AlphaMode) -> Self {
        // Past the end of a short palette Pillow has grey levels. A GIF without any palette is refused by the decoder.
        let mut table: [[u8; 3]; 256] = std::array::from_fn(|i| [i as u8; 3]);
        for (color, entry) in table.iter_mut().zip(palette.as_chunks::<3>().0) {
            *color = *entry;
        }
        if let Some(index) = transparent {
            let color = &mut table[usize::from(index)];
            *color = alpha.apply(*color, 0);
        }
        Self { table, around: table[usize::from(transparent.unwrap_or(0))] }
    }
}

fn paint(size: ImageSize, frame: &Frame<'_>, indices: &[u8], colors: &Colors) -> RgbImage {
    let (width, frame_width) = (size.width as usize, usize::from(frame.width));
    let (left, top) = (usize::from(frame.left), usize::from(frame.top));
    let mut pixels = vec![colors.around; width * size.height as usize];
    let rows = pixels.chunks_exact_mut(width).skip(top);
    for (row, line) in rows.zip(indices.chunks_exact(frame_width.max(1))) {
        for (pixel, &index) in row[left..left + frame_width].iter_mut().zip(line) {
            *pixel = colors.table[usize::from(index)];
        }
    }
    RgbImage::from_parts(size, pixels.into_flattened())
}

pub(super) fn convert(error: DecodingError, len: usize, limits: &DecodeLimits) -> Error {
    match error {
        DecodingError::UnexpectedEof => Error::Truncated { format: FORMAT, bytes: len },
        DecodingError::Io(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
            Error::Truncated { format: FORMAT, bytes: len }
        }
        DecodingError::MemoryLimit | DecodingError::OutOfMemory => Error::MemoryLimit {
            bytes: limits.max_alloc_bytes.saturating_add(1),
            limit: limits.max_alloc_bytes,
        },
        other => Error::Corrupt { format: FORMAT, reason: other.to_string() },
    }
}
