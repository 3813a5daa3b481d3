//! APNG, as Pillow 13's `PngImagePlugin` shows it. Each frame is written out as a PNG of its own and decoded as one.
//!
//! Deliberate differences: the canvas is empty before the first frame; blending a palette's half-transparent colors blends
//! colors, where Pillow blends their indices; what a frame covered comes back (`DISPOSE_OP_PREVIOUS`) whether Pillow was
//! asked for the frame's pixels or not.

use std::borrow::Cow;
use std::ops::Range;
use std::time::Duration;

use image::ImageFormat;

use super::super::{DecodeLimits, generic};
use super::canvas::{Area, CLEAR, Canvas, Extent, Pixel};
use super::{Compose, Outline};
use crate::rgb::{div_255, rgba_pixels};
use crate::{Error, ImageSize};

const FORMAT: &str = "PNG";
const SIGNATURE_LEN: usize = 8;

/// Disposal methods of a frame.
const TO_BACKGROUND: u8 = 1;
const TO_PREVIOUS: u8 = 2;
/// Blending instead of overwriting.
const OVER: u8 = 1;

struct Chunk<'a> {
    kind: &'a [u8],
    data: &'a [u8],
    /// Where it lies in the file, with its length and checksum.
    place: Range<usize>,
}

/// The chunk that starts at `at`; `None` if the file ends before it does.
fn chunk(bytes: &[u8], at: usize) -> Option<Chunk<'_>> {
    let len = u32_at(bytes, at)? as usize;
    let end = at.checked_add(8)?.checked_add(len)?;
    bytes.get(end..end.checked_add(4)?)?;
    Some(Chunk { kind: &bytes[at + 4..at + 8], data: &bytes[at + 8..end], place: at..end + 4 })
}

fn chunks(bytes: &[u8], mut at: usize) -> impl Iterator<Item = Chunk<'_>> {
    std::iter::from_fn(move || {
        let chunk = chunk(bytes, at)?;
        at = chunk.place.end;
        Some(chunk)
    })
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at.checked_add(4)?)?.first_chunk::<4>().map(|b| u32::from_be_bytes(*b))
}

/// Whether there is a control chunk before the first image data.
pub(super) fn is_animated(bytes: &[u8]) -> bool {
    n_promised(bytes) > 0
}

/// The number of frames that the file says it has.
fn n_promised(bytes: &[u8]) -> usize {
    let mut before_data = chunks(bytes, SIGNATURE_LEN).take_while(|c| c.kind != b"IDAT");
    before_data.find(|c| c.kind == b"acTL").and_then(|c| u32_at(c.data, 0)).map_or(0, |n| n as usize)
}

/// A frame's control chunk and where its data are.
pub(super) struct Frame {
    area: Area,
    pub delay: Duration,
    dispose: u8,
    blend: u8,
    /// From its first data chunk on.
    data: Range<usize>,
}

/// Finds the frames.
pub(super) fn outline(bytes: &[u8]) -> Result<Outline<Frame>, Error> {
    let header = chunk(bytes, SIGNATURE_LEN).filter(|c| c.kind == b"IHDR" && c.data.len() == 13);
    let Some(header) = header else {
        return Err(Error::Corrupt { format: FORMAT, reason: "it does not start with a header".to_owned() });
    };
    let side = |at| u32_at(header.data, at).unwrap_or_default();
    let size = ImageSize { height: side(4), width: side(0) };
    let mut outline = Outline { size, frames: Vec::new(), end: None };
    let promised = n_promised(bytes);
    match walk(bytes, promised, &mut outline) {
        Err(error @ Error::TooManyAnimationFrames { .. }) => return Err(error),
        Err(error) => outline.end = Some(error),
        Ok(()) if outline.frames.len() < promised => {
            let reason = format!("it says {promised} frames, but has {}", outline.frames.len());
            outline.end = Some(Error::Corrupt { format: FORMAT, reason });
        }
        Ok(()) => {}
    }
    Ok(outline)
}

fn walk(bytes: &[u8], promised: usize, outline: &mut Outline<Frame>) -> Result<(), Error> {
    let mut open: Option<Frame> = None;
    let (mut sequence, mut at) = (0, SIGNATURE_LEN);
    while outline.frames.len() < promised {
        let chunk = chunk(bytes, at).ok_or(Error::Truncated { format: FORMAT, bytes: bytes.len() })?;
        at = chunk.place.end;
        if matches!(chunk.kind, b"fcTL" | b"fdAT") {
            if u32_at(chunk.data, 0) != Some(sequence) {
                return Err(corrupt(format!("piece {sequence} of its animation is missing")));
            }
            sequence += 1;
        }
        match chunk.kind {
            b"fcTL" | b"IEND" => {
                if let Some(frame) = open.take() {
                    if frame.data.is_empty() {
                        return Err(corrupt(format!("frame {} has no data", outline.frames.len())));
                    }
                    outline.push(frame)?;
                }
                if chunk.kind == b"IEND" {
                    break;
                }
                open = Some(control(&chunk, outline.size)?);
            }
            b"IDAT" | b"fdAT" => {
                if let Some(frame) = &mut open {
                    let start = if frame.data.is_empty() { chunk.place.start } else { frame.data.start };
                    frame.data = start..chunk.place.end;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn corrupt(reason: String) -> Error {
    Error::Corrupt { format: FORMAT, reason }
}

fn control(chunk: &Chunk<'_>, canvas: ImageSize) -> Result<Frame, Error> {
    let Some(data) = chunk.data.first_chunk::<26>() else {
        return Err(corrupt("a frame's control chunk is too short".to_owned()));
    };
    let number = |at: usize| u32_at(data, at).unwrap_or_default();
    let short = |at: usize| u64::from(u16::from_be_bytes([data[at], data[at + 1]]));
    let area =
        Area { left: number(12), top: number(16), size: Extent { height: number(8), width: number(4) } };
    if area.size.height == 0 || area.size.width == 0 || !area.is_within(canvas) {
        let Extent { height, width } = area.size;
        let reason =
            format!("a frame of {width}x{height} at {}, {} is not within {canvas}", area.left, area.top);
        return Err(corrupt(reason));
    }
    let denominator = if short(22) == 0 { 100 } else { short(22) };
    let delay = Duration::from_micros(short(20) * 1_000_000 / denominator);
    Ok(Frame { area, delay, dispose: data[24], blend: data[25], data: 0..0 })
}

/// Draws the frames.
pub(super) struct Png<'a> {
    bytes: Cow<'a, [u8]>,
    limits: DecodeLimits,
    frames: std::vec::IntoIter<Frame>,
    canvas: Canvas,
    is_first: bool,
    /// What is put back before the next frame.
    covered: Option<(Area, Vec<Pixel>)>,
}

impl<'a> Png<'a> {
    pub fn new(bytes: Cow<'a, [u8]>, outline: Outline<Frame>, limits: DecodeLimits) -> Self {
        let canvas = Canvas::new(outline.size);
        Self { bytes, limits, frames: outline.frames.into_iter(), canvas, is_first: true, covered: None }
    }

    /// What an area is filled with: all channels 0, which is a palette's first color.
    fn background(&self) -> Pixel {
        let first =
            chunks(&self.bytes, SIGNATURE_LEN).take_while(|c| c.kind != b"IDAT").find(|c| c.kind == b"PLTE");
        let is_palette = self.bytes.get(25) == Some(&3);
        match first.filter(|_| is_palette).and_then(|c| c.data.first_chunk::<3>()) {
            Some([r, g, b]) => [*r, *g, *b, 0],
            None => CLEAR,
        }
    }

    fn decode(&self, frame: &Frame) -> Result<Vec<Pixel>, Error> {
        let file = written_out(&self.bytes, frame);
        let (image, _) = generic::decode_pixels(&file, ImageFormat::Png, &self.limits)?;
        Ok(rgba_pixels(image))
    }
}

impl Compose for Png<'_> {
    fn advance(&mut self) -> Result<(), Error> {
        self.canvas.allocate()?;
        let Some(frame) = self.frames.next() else { return Ok(()) };
        let pixels = self.decode(&frame)?;
        if let Some((area, covered)) = self.covered.take() {
            self.canvas.restore(area, &covered);
        }
        self.covered = match frame.dispose {
            TO_PREVIOUS if !self.is_first => Some((frame.area, self.canvas.save(frame.area))),
            TO_BACKGROUND | TO_PREVIOUS => Some((frame.area, vec![self.background(); pixels.len()])),
            _ => None,
        };
        let blends = frame.blend == OVER && !self.is_first;
        self.canvas.draw(frame.area, &pixels, |_, _, pixel, new| {
            *pixel = if blends { paste(*pixel, new) } else { new };
        });
        self.is_first = false;
        Ok(())
    }

    fn canvas(&self) -> &Canvas {
        &self.canvas
    }
}

/// Pillow's `paste` with a mask: alpha is a channel like the others.
fn paste(below: Pixel, above: Pixel) -> Pixel {
    let mask = u32::from(above[3]);
    std::array::from_fn(|i| div_255(u32::from(below[i]) * (255 - mask) + u32::from(above[i]) * mask))
}

/// A frame as a file of its own: the header with its size, what colors need, and its data.
fn written_out(bytes: &[u8], frame: &Frame) -> Vec<u8> {
    let mut file = bytes[..SIGNATURE_LEN].to_vec();
    for chunk in chunks(bytes, SIGNATURE_LEN).take_while(|c| c.kind != b"IDAT") {
        match chunk.kind {
            b"IHDR" => {
                let mut header = chunk.data.to_vec();
                header[..4].copy_from_slice(&frame.area.size.width.to_be_bytes());
                header[4..8].copy_from_slice(&frame.area.size.height.to_be_bytes());
                push_chunk(&mut file, b"IHDR", &[&header]);
            }
            b"PLTE" | b"tRNS" => file.extend_from_slice(&bytes[chunk.place]),
            _ => {}
        }
    }
    for chunk in chunks(&bytes[..frame.data.end], frame.data.start) {
        match chunk.kind {
            b"IDAT" => file.extend_from_slice(&bytes[chunk.place]),
            b"fdAT" => push_chunk(&mut file, b"IDAT", &[chunk.data.get(4..).unwrap_or_default()]),
            _ => {}
        }
    }
    push_chunk(&mut file, b"IEND", &[]);
    file
}

fn push_chunk(file: &mut Vec<u8>, kind: &[u8; 4], data: &[&[u8]]) {
    let len: usize = data.iter().map(|d| d.len()).sum();
    file.extend_from_slice(&(len as u32).to_be_bytes());
    let start = file.len();
    file.extend_from_slice(kind);
    data.iter().for_each(|d| file.extend_from_slice(d));
    let checksum = crc32fast::hash(&file[start..]);
    file.extend_from_slice(&checksum.to_be_bytes());
}
