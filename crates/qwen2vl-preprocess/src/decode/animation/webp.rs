//! Animated WebP, as libwebp 1.6's `WebPAnimDecoder` shows it, which is what Pillow 13 calls. Each frame is written out as a
//! WebP of its own and decoded as one.

use std::borrow::Cow;
use std::ops::Range;
use std::time::Duration;

use image::ImageFormat;
use image::metadata::Orientation;

use super::super::{DecodeLimits, generic, orientation};
use super::canvas::{Area, CLEAR, Canvas, Extent, Pixel};
use super::{Compose, Outline};
use crate::rgb::rgba_pixels;
use crate::{AlphaMode, Error, ImageSize};

const FORMAT: &str = "WebP";
/// Behind `RIFF`, the length, and `WEBP`.
const FIRST_CHUNK: usize = 12;

/// Bits of the flags of the first chunk and of a frame.
const HAS_ANIMATION: u8 = 0x02;
const HAS_ALPHA: u8 = 0x10;
const TO_BACKGROUND: u8 = 0x01;
const OVERWRITES: u8 = 0x02;

struct Chunk<'a> {
    kind: &'a [u8],
    data: &'a [u8],
    /// Of the whole chunk, padding included, from the beginning of what was searched.
    place: Range<usize>,
}

fn chunk(bytes: &[u8], at: usize) -> Option<Chunk<'_>> {
    let header = bytes.get(at..at.checked_add(8)?)?;
    let len = u32::from_le_bytes(*header[4..].first_chunk::<4>()?) as usize;
    let end = at.checked_add(8)?.checked_add(len)?;
    let data = bytes.get(at + 8..end)?;
    Some(Chunk { kind: &header[..4], data, place: at..(end + len % 2).min(bytes.len()) })
}

fn chunks(bytes: &[u8], mut at: usize) -> impl Iterator<Item = Chunk<'_>> {
    std::iter::from_fn(move || {
        let chunk = chunk(bytes, at)?;
        at = chunk.place.end;
        Some(chunk)
    })
}

/// Whether the first chunk announces frames.
pub(super) fn is_animated(bytes: &[u8]) -> bool {
    flags(bytes) & HAS_ANIMATION != 0
}

fn flags(bytes: &[u8]) -> u8 {
    let first = chunk(bytes, FIRST_CHUNK).filter(|c| c.kind == b"VP8X");
    first.and_then(|c| c.data.first().copied()).unwrap_or_default()
}

/// The turn that EXIF or XMP asks for.
pub(super) fn turn(bytes: &[u8]) -> Orientation {
    let find = |kind: &[u8]| chunks(bytes, FIRST_CHUNK).find(|c| c.kind == kind).map(|c| c.data);
    orientation::from_metadata(find(b"EXIF"), find(b"XMP "))
}

/// Three bytes, the lowest first.
fn number(data: &[u8], at: usize) -> u32 {
    (0..3).rev().fold(0, |n, i| n << 8 | u32::from(data.get(at + i).copied().unwrap_or_default()))
}

/// A frame's header and where its chunks are.
pub(super) struct Frame {
    area: Area,
    pub delay: Duration,
    flags: u8,
    data: Range<usize>,
}

/// The canvas.
pub(super) fn size(bytes: &[u8]) -> Result<ImageSize, Error> {
    let first = chunk(bytes, FIRST_CHUNK).filter(|c| c.data.len() >= 10);
    let data = first.ok_or(Error::Truncated { format: FORMAT, bytes: bytes.len() })?.data;
    Ok(ImageSize { height: number(data, 7) + 1, width: number(data, 4) + 1 })
}

/// Finds the frames.
pub(super) fn outline(bytes: &[u8]) -> Result<Outline<Frame>, Error> {
    let size = size(bytes)?;
    let mut outline = Outline { size, frames: Vec::new(), end: None };
    for chunk in chunks(bytes, FIRST_CHUNK).filter(|c| c.kind == b"ANMF") {
        match frame(&chunk, size) {
            Ok(frame) => outline.push(frame)?,
            Err(error) => {
                outline.end = Some(error);
                return Ok(outline);
            }
        }
    }
    let is_cut = |len: &[u8; 4]| (u32::from_le_bytes(*len) as usize).saturating_add(8) > bytes.len();
    if bytes[4..].first_chunk::<4>().is_some_and(is_cut) {
        outline.end = Some(Error::Truncated { format: FORMAT, bytes: bytes.len() });
    }
    Ok(outline)
}

fn frame(chunk: &Chunk<'_>, canvas: ImageSize) -> Result<Frame, Error> {
    let data = chunk.data;
    let size = Extent { height: number(data, 9) + 1, width: number(data, 6) + 1 };
    let area = Area { left: 2 * number(data, 0), top: 2 * number(data, 3), size };
    if data.len() < 16 || !area.is_within(canvas) {
        let Extent { height, width } = size;
        let reason =
            format!("a frame of {width}x{height} at {}, {} is not within {canvas}", area.left, area.top);
        return Err(Error::Corrupt { format: FORMAT, reason });
    }
    let start = chunk.place.start + 8;
    Ok(Frame {
        area,
        delay: Duration::from_millis(u64::from(number(data, 12))),
        flags: data[15],
        data: start + 16..start + data.len(),
    })
}

/// Draws the frames.
pub(super) struct WebP<'a> {
    bytes: Cow<'a, [u8]>,
    limits: DecodeLimits,
    frames: std::vec::IntoIter<Frame>,
    canvas: Canvas,
    last: Option<Last>,
}

/// What the frame before was.
struct Last {
    area: Area,
    disposed: bool,
    /// Drawn on an empty canvas.
    is_key: bool,
}

impl<'a> WebP<'a> {
    pub fn new(bytes: Cow<'a, [u8]>, outline: Outline<Frame>, limits: DecodeLimits) -> Self {
        let canvas = Canvas::new(outline.size);
        Self { bytes, limits, frames: outline.frames.into_iter(), canvas, last: None }
    }

    /// The frame's pixels, and whether it has transparency.
    fn decode(&self, frame: &Frame) -> Result<(Vec<Pixel>, bool), Error> {
        let file = written_out(&self.bytes[frame.data.clone()], frame.area.size).ok_or_else(|| {
            Error::Corrupt { format: FORMAT, reason: "a frame without image data".to_owned() }
        })?;
        let (image, _) = generic::decode_pixels(&file, ImageFormat::WebP, &self.limits)?;
        let Extent { height, width } = frame.area.size;
        if (image.height(), image.width()) != (height, width) {
            let (h, w) = (image.height(), image.width());
            let reason = format!("a frame is {w}x{h}, but its header says {width}x{height}");
            return Err(Error::Corrupt { format: FORMAT, reason });
        }
        let has_alpha = image.color().has_alpha();
        Ok((rgba_pixels(image), has_alpha))
    }
}

impl Compose for WebP<'_> {
    fn advance(&mut self) -> Result<(), Error> {
        self.canvas.allocate()?;
        let Some(frame) = self.frames.next() else { return Ok(()) };
        let (pixels, has_alpha) = self.decode(&frame)?;
        let size = self.canvas.size();
        let overwrites = frame.flags & OVERWRITES != 0;
        let is_key = match &self.last {
            None => true,
            Some(_) if (!has_alpha || overwrites) && frame.area.covers(size) => true,
            Some(last) => last.disposed && (last.area.covers(size) || last.is_key),
        };
        let gone = self.last.as_ref().filter(|last| last.disposed).map(|last| last.area);
        match gone {
            _ if is_key => self.canvas.fill(whole(size), CLEAR),
            Some(area) => self.canvas.fill(area, CLEAR),
            None => {}
        }
        // Where the last frame was taken away there is nothing to blend with.
        let is_gone = |x, y| gone.is_some_and(|area| area.contains(x, y));
        self.canvas.draw(frame.area, &pixels, |x, y, pixel, new| {
            let alone = is_key || overwrites || is_gone(x, y);
            *pixel = if alone { new } else { blend(*pixel, new) };
        });
        let disposed = frame.flags & TO_BACKGROUND != 0;
        self.last = Some(Last { area: frame.area, disposed, is_key });
        Ok(())
    }

    fn canvas(&self) -> &Canvas {
        &self.canvas
    }

    /// Of a file that says it has no transparency, Pillow sees none.
    fn alpha(&self, asked: AlphaMode) -> AlphaMode {
        if flags(&self.bytes) & HAS_ALPHA != 0 { asked } else { AlphaMode::Drop }
    }
}

fn whole(size: ImageSize) -> Area {
    Area { left: 0, top: 0, size: Extent { height: size.height, width: size.width } }
}

/// libwebp's `BlendPixelRowNonPremult`, in its integers.
fn blend(below: Pixel, above: Pixel) -> Pixel {
    let alpha = u32::from(above[3]);
    if matches!(alpha, 0 | 255) {
        return if alpha == 0 { below } else { above };
    }
    let rest = (u32::from(below[3]) * (256 - alpha)) >> 8;
    let sum = alpha + rest;
    let scale = (1 << 24) / sum;
    let channel =
        |i: usize| (((u32::from(above[i]) * alpha + u32::from(below[i]) * rest) * scale) >> 24) as u8;
    [channel(0), channel(1), channel(2), sum as u8]
}

/// A frame as a file of its own; `None` if there is no image in it.
fn written_out(data: &[u8], size: Extent) -> Option<Vec<u8>> {
    let mut file = b"RIFF\0\0\0\0WEBP".to_vec();
    let image = chunks(data, 0).find(|c| matches!(c.kind, b"VP8 " | b"VP8L"))?;
    let alpha = chunks(&data[..image.place.start], 0).find(|c| c.kind == b"ALPH");
    if let Some(alpha) = alpha.filter(|_| image.kind == b"VP8 ") {
        let [w0, w1, w2, _] = (size.width - 1).to_le_bytes();
        let [h0, h1, h2, _] = (size.height - 1).to_le_bytes();
        push_chunk(&mut file, b"VP8X", &[HAS_ALPHA, 0, 0, 0, w0, w1, w2, h0, h1, h2]);
        push_chunk(&mut file, alpha.kind, alpha.data);
    }
    push_chunk(&mut file, image.kind, image.data);
    let len = (file.len() - 8) as u32;
    file[4..8].copy_from_slice(&len.to_le_bytes());
    Some(file)
}

fn push_chunk(file: &mut Vec<u8>, kind: &[u8], data: &[u8]) {
    file.extend_from_slice(kind);
    file.extend_from_slice(&(data.len() as u32).to_le_bytes());
    file.extend_from_slice(data);
    if data.len() % 2 == 1 {
        file.push(0);
    }
}
