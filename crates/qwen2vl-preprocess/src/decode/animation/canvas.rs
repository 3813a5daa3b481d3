//! What is drawn on: red, green, blue and alpha of each pixel.

use crate::{AlphaMode, Error, ImageSize, RgbImage};

pub(super) type Pixel = [u8; 4];

/// Transparent black, as canvases are at first.
pub(super) const CLEAR: Pixel = [0; 4];

/// A part of a canvas, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Area {
    pub left: u32,
    pub top: u32,
    pub size: Extent,
}

/// Height and width of an area, which may be 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Extent {
    pub height: u32,
    pub width: u32,
}

impl Area {
    /// The smallest canvas that holds it.
    pub fn end(self) -> ImageSize {
        let height = self.top.saturating_add(self.size.height);
        ImageSize { height, width: self.left.saturating_add(self.size.width) }
    }

    pub fn is_within(self, size: ImageSize) -> bool {
        self.end().height <= size.height && self.end().width <= size.width
    }

    pub fn covers(self, size: ImageSize) -> bool {
        (self.left, self.top) == (0, 0) && self.end() == size
    }

    pub fn contains(self, x: u32, y: u32) -> bool {
        (self.left..self.end().width).contains(&x) && (self.top..self.end().height).contains(&y)
    }
}

/// Transparent and without memory until it is first drawn on. Areas must lie within its size.
pub(super) struct Canvas {
    size: ImageSize,
    pixels: Vec<Pixel>,
}

impl Canvas {
    pub fn new(size: ImageSize) -> Self {
        Self { size, pixels: Vec::new() }
    }

    pub fn size(&self) -> ImageSize {
        self.size
    }

    /// Takes the memory, the first time.
    pub fn allocate(&mut self) -> Result<(), Error> {
        if self.pixels.is_empty() {
            let n_pixels = self.size.pixels();
            let out_of_memory = || Error::OutOfMemory { bytes: n_pixels.saturating_mul(4) };
            let len = usize::try_from(n_pixels).map_err(|_| out_of_memory())?;
            self.pixels.try_reserve_exact(len).map_err(|_| out_of_memory())?;
            self.pixels.resize(len, CLEAR);
        }
        Ok(())
    }

    /// The rows of an area, from the top.
    pub fn rows_mut(&mut self, area: Area) -> impl Iterator<Item = &mut [Pixel]> {
        let (left, right) = (area.left as usize, area.end().width as usize);
        let rows = self.pixels.chunks_exact_mut(self.size.width.max(1) as usize);
        rows.skip(area.top as usize).take(area.size.height as usize).map(move |row| &mut row[left..right])
    }

    pub fn fill(&mut self, area: Area, color: Pixel) {
        self.rows_mut(area).for_each(|row| row.fill(color));
    }

    /// What an area shows, to be put back by [`Canvas::restore`].
    pub fn save(&mut self, area: Area) -> Vec<Pixel> {
        self.rows_mut(area).flat_map(|row| row.iter().copied()).collect()
    }

    pub fn restore(&mut self, area: Area, saved: &[Pixel]) {
        self.draw(area, saved, |_, _, pixel, saved| *pixel = saved);
    }

    /// Calls `draw(x, y, pixel, new)` for each pixel of an area and what is to come there.
    pub fn draw<T: Copy>(&mut self, area: Area, new: &[T], mut draw: impl FnMut(u32, u32, &mut Pixel, T)) {
        let lines = new.chunks_exact(area.size.width.max(1) as usize);
        for ((row, line), y) in self.rows_mut(area).zip(lines).zip(area.top..) {
            for ((pixel, new), x) in row.iter_mut().zip(line).zip(area.left..) {
                draw(x, y, pixel, *new);
            }
        }
    }

    pub fn to_rgb(&self, alpha: AlphaMode) -> RgbImage {
        let mut data = vec![0; self.pixels.len() * 3];
        for (out, &[r, g, b, a]) in data.as_chunks_mut::<3>().0.iter_mut().zip(&self.pixels) {
            *out = alpha.apply([r, g, b], a);
        }
        RgbImage::from_parts(self.size, data)
    }
}
