//! Animated GIF, as Pillow 13's `GifImagePlugin` shows it after its first frame: in RGB or RGBA.

use std::borrow::Cow;
use std::io::Cursor;
use std::time::Duration;

use gif::Decoder;

use super::super::gif::{convert, open};
use super::super::{DecodeLimits, DecodeOptions};
use super::canvas::{Area, CLEAR, Canvas, Extent, Pixel};
use super::{Compose, Outline};
use crate::{Error, ImageSize};

const FORMAT: &str = "GIF";

/// A frame's descriptor and the control block before it.
pub(super) struct Frame {
    area: Area,
    pub delay: Duration,
    /// Bits 2 to 4 of the control block's flags; 0 where there is none.
    disposal: u8,
    transparent: Option<u8>,
}

/// Walks over the blocks of a file.
struct Blocks<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Blocks<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], Error> {
        let taken = self.bytes.get(self.at..).and_then(|rest| rest.get(..len));
        self.at += len;
        taken.ok_or(Error::Truncated { format: FORMAT, bytes: self.bytes.len() })
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let taken = self.take(N)?;
        Ok(std::array::from_fn(|i| taken[i]))
    }

    /// Skips a palette if the flags of its descriptor announce one.
    fn palette(&mut self, flags: u8) -> Result<(), Error> {
        if flags & 0x80 != 0 {
            self.take(3 << ((flags & 7) + 1))?;
        }
        Ok(())
    }

    /// The next of a chain of blocks; an empty one ends it.
    fn sub_block(&mut self) -> Result<&'a [u8], Error> {
        let [len] = self.bytes()?;
        self.take(usize::from(len))
    }

    fn skip_chain(&mut self) -> Result<(), Error> {
        while !self.sub_block()?.is_empty() {}
        Ok(())
    }
}

/// Finds the frames. The canvas is as large as the largest of them needs.
pub(super) fn outline(bytes: &[u8]) -> Result<Outline<Frame>, Error> {
    let mut blocks = Blocks { bytes, at: 6 };
    let [w0, w1, h0, h1, flags, _, _] = blocks.bytes()?;
    let word = |low: u8, high: u8| u32::from(u16::from_le_bytes([low, high]));
    let size = ImageSize { height: word(h0, h1), width: word(w0, w1) };
    let mut outline = Outline { size, frames: Vec::new(), end: None };
    blocks.palette(flags)?;
    loop {
        match next_frame(&mut blocks) {
            Ok(Some(frame)) => {
                let end = frame.area.end();
                outline.size.height = outline.size.height.max(end.height);
                outline.size.width = outline.size.width.max(end.width);
                outline.push(frame)?;
            }
            Ok(None) => return Ok(outline),
            Err(error) => {
                outline.end = Some(error);
                return Ok(outline);
            }
        }
    }
}

/// The frame up to which the blocks lead; `None` at the end of the file, with or without its mark, as in Pillow.
fn next_frame(blocks: &mut Blocks<'_>) -> Result<Option<Frame>, Error> {
    let mut frame = Frame { area: Area::default(), delay: Duration::ZERO, disposal: 0, transparent: None };
    while blocks.at < blocks.bytes.len() {
        match blocks.bytes()? {
            [b';'] => return Ok(None),
            [b'!'] => {
                let [label] = blocks.bytes()?;
                let block = blocks.sub_block()?;
                if let (0xF9, [flags, low, high, index, ..]) = (label, block) {
                    frame.delay = Duration::from_millis(10 * u64::from(u16::from_le_bytes([*low, *high])));
                    frame.transparent = (flags & 1 != 0).then_some(*index).or(frame.transparent);
                    frame.disposal = Some((flags >> 2) & 7).filter(|d| *d != 0).unwrap_or(frame.disposal);
                }
                if !block.is_empty() {
                    blocks.skip_chain()?;
                }
            }
            [b','] => {
                let [x0, x1, y0, y1, w0, w1, h0, h1, flags] = blocks.bytes()?;
                let word = |low: u8, high: u8| u32::from(u16::from_le_bytes([low, high]));
                let size = Extent { height: word(h0, h1), width: word(w0, w1) };
                frame.area = Area { left: word(x0, x1), top: word(y0, y1), size };
                blocks.palette(flags)?;
                blocks.take(1)?;
                blocks.skip_chain()?;
                return Ok(Some(frame));
            }
            [other] => {
                let reason = format!("an unknown block, {other:#04x}, at byte {}", blocks.at - 1);
                return Err(Error::Corrupt { format: FORMAT, reason });
            }
        }
    }
    Ok(None)
}

/// What happens to a frame's area before the next frame is drawn.
enum Disposal {
    Nothing,
    Fill(Area, Pixel),
    Restore(Area, Vec<Pixel>),
}

/// Draws the frames.
pub(super) struct Gif<'a> {
    decoder: Decoder<Cursor<Cow<'a, [u8]>>>,
    /// Bytes of the file.
    len: usize,
    limits: DecodeLimits,
    frames: std::vec::IntoIter<Frame>,
    /// Index of the background color.
    background: u8,
    canvas: Canvas,
    /// Of the canvas, what there is in Pillow by now.
    shown: ImageSize,
    is_first: bool,
    /// The last disposal method that was not 0: frames without one of their own take it, as in Pillow.
    method: u8,
    disposal: Disposal,
    indices: Vec<u8>,
}

impl<'a> Gif<'a> {
    pub fn new(
        bytes: Cow<'a, [u8]>,
        outline: Outline<Frame>,
        options: &DecodeOptions,
    ) -> Result<Self, Error> {
        let len = bytes.len();
        let screen = |at: usize| bytes.get(at).copied().unwrap_or_default();
        let word = |at: usize| u32::from(u16::from_le_bytes([screen(at), screen(at + 1)]));
        Ok(Self {
            shown: ImageSize { height: word(8), width: word(6) },
            background: if screen(10) & 0x80 != 0 { screen(11) } else { 0 },
            limits: options.limits,
            len,
            decoder: open(Cursor::new(bytes), len, &options.limits)?,
            canvas: Canvas::new(outline.size),
            frames: outline.frames.into_iter(),
            is_first: true,
            method: 0,
            disposal: Disposal::Nothing,
            indices: Vec::new(),
        })
    }

    /// Decodes the palette indices of the next frame; what its colors look like.
    fn decode(&mut self, frame: &Frame) -> Result<[Pixel; 256], Error> {
        let (len, limits) = (self.len, self.limits);
        let convert = |e| convert(e, len, &limits);
        let info = self.decoder.next_frame_info().map_err(convert)?;
        let found = info.map(|f| (u32::from(f.height), u32::from(f.width)));
        if found != Some((frame.area.size.height, frame.area.size.width)) {
            let reason = "its frames are not where its blocks say".to_owned();
            return Err(Error::Corrupt { format: FORMAT, reason });
        }
        self.indices.clear();
        self.indices.resize(self.decoder.buffer_size(), 0);
        self.decoder.read_into_buffer(&mut self.indices).map_err(convert)?;
        let local = self.decoder.current_frame_info().and_then(|f| f.palette.as_deref());
        let palette = local.or(self.decoder.global_palette()).unwrap_or_default();
        Ok(colors(palette, frame.transparent))
    }

    /// What is to become of a frame that is about to be drawn.
    fn disposal_of(&mut self, frame: &Frame, table: &[Pixel; 256]) -> Disposal {
        match (self.method, frame.transparent) {
            (0 | 1, _) => Disposal::Nothing,
            (2, Some(index)) => Disposal::Fill(frame.area, table[usize::from(index)]),
            (2, None) => Disposal::Fill(frame.area, table[usize::from(self.background)]),
            // Before the first frame there was nothing.
            (_, Some(index)) if self.is_first => Disposal::Fill(frame.area, table[usize::from(index)]),
            (_, None) if self.is_first => Disposal::Nothing,
            _ => Disposal::Restore(frame.area, self.canvas.save(frame.area)),
        }
    }

    /// Pillow's canvas grows for frames that stick out; what is new has a color.
    fn grow(&mut self, frame: &Frame, table: &[Pixel; 256]) {
        let end = frame.area.end();
        let old = self.shown;
        self.shown = ImageSize { height: old.height.max(end.height), width: old.width.max(end.width) };
        let color = match frame.transparent {
            Some(index) if self.is_first => table[usize::from(index)],
            Some(_) => CLEAR,
            None => table[0],
        };
        let (known, new) = (if self.is_first { ImageSize { height: 0, width: 0 } } else { old }, self.shown);
        let below = Extent { height: new.height - known.height, width: new.width };
        self.canvas.fill(Area { left: 0, top: known.height, size: below }, color);
        let beside = Extent { height: known.height, width: new.width - known.width };
        self.canvas.fill(Area { left: known.width, top: 0, size: beside }, color);
    }
}

impl Compose for Gif<'_> {
    fn advance(&mut self) -> Result<(), Error> {
        self.canvas.allocate()?;
        let Some(frame) = self.frames.next() else { return Ok(()) };
        let table = self.decode(&frame)?;
        match std::mem::replace(&mut self.disposal, Disposal::Nothing) {
            Disposal::Nothing => {}
            Disposal::Fill(area, color) => self.canvas.fill(area, color),
            Disposal::Restore(area, saved) => self.canvas.restore(area, &saved),
        }
        if frame.disposal != 0 {
            self.method = frame.disposal;
        }
        self.disposal = self.disposal_of(&frame, &table);
        self.grow(&frame, &table);
        let hides = if self.is_first { None } else { frame.transparent };
        self.canvas.draw(frame.area, &self.indices, |_, _, pixel, index| {
            if hides != Some(index) {
                *pixel = table[usize::from(index)];
            }
        });
        self.is_first = false;
        Ok(())
    }

    fn canvas(&self) -> &Canvas {
        &self.canvas
    }
}

/// What each index looks like. Past the end of a short palette Pillow has grey levels.
fn colors(palette: &[u8], transparent: Option<u8>) -> [Pixel; 256] {
    let mut table: [Pixel; 256] = std::array::from_fn(|i| [i as u8, i as u8, i as u8, 255]);
    for (color, [r, g, b]) in table.iter_mut().zip(palette.as_chunks::<3>().0) {
        *color = [*r, *g, *b, 255];
    }
    if let Some(index) = transparent {
        table[usize::from(index)][3] = 0;
    }
    table
}
