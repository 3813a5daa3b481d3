//! Boxes and labels drawn into an image, in plain pixels: a line as thick as the image is large, the label on a ground
//! of the same color. One color per label. Letters are GNU Unifont's, which has the whole Basic Multilingual Plane;
//! right-to-left scripts are not shaped.

use std::io::{self, Write};

use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};
use qwen2vl_preprocess::{ImageSize, RgbImage};

use super::AnswerBox;

type Rgb = [u8; 3];

/// Okabe and Ito's colors, which people with any color vision tell apart, and three more.
const COLORS: [Rgb; 9] = [
    [213, 94, 0],
    [0, 114, 178],
    [0, 158, 115],
    [204, 121, 167],
    [230, 159, 0],
    [86, 180, 233],
    [240, 228, 66],
    [128, 0, 128],
    [160, 82, 45],
];

const GLYPH_HEIGHT: i64 = 16;
/// The most characters of a label that are drawn.
const MAX_LABEL_CHARS: usize = 64;

/// Draws the boxes, in pixels of this image.
pub fn draw_boxes<'b>(image: RgbImage, boxes: impl IntoIterator<Item = &'b AnswerBox>) -> RgbImage {
    let size = image.size();
    let shorter = i64::from(size.height.min(size.width));
    let mut canvas = Canvas { size, data: image.into_raw() };
    let (line, scale) = ((shorter / 200).max(1), (shorter / 500).max(1));
    let mut labels: Vec<Option<&str>> = Vec::new();
    let mut drawn: Vec<(&AnswerBox, Rgb)> = Vec::new();
    for one in boxes {
        let label = one.label.as_deref();
        let index = labels.iter().position(|l| *l == label).unwrap_or_else(|| {
            labels.push(label);
            labels.len() - 1
        });
        drawn.push((one, COLORS[index % COLORS.len()]));
    }
    for (one, color) in &drawn {
        canvas.figure(one, line, *color);
    }
    // Over all lines, so that each can be read.
    for (one, color) in &drawn {
        if let Some(label) = &one.label {
            canvas.label(label, one, scale, *color);
        }
    }
    RgbImage::new(size.height, size.width, canvas.data).expect("the length is the image's own")
}

/// Writes an image as PNG.
///
/// # Errors
///
/// The writer's.
pub fn encode_png(image: &RgbImage, mut writer: impl Write) -> io::Result<()> {
    let ImageSize { height, width } = image.size();
    // Into memory: the encoder hides what kind of error its writer had.
    let mut bytes = Vec::new();
    PngEncoder::new(&mut bytes)
        .write_image(image.as_raw(), width, height, ExtendedColorType::Rgb8)
        .map_err(io::Error::other)?;
    writer.write_all(&bytes)
}

struct Canvas {
    size: ImageSize,
    data: Vec<u8>,
}

/// From a corner to the one behind the opposite, in pixels; may be outside of the image.
#[derive(Clone, Copy)]
struct Area {
    left: i64,
    top: i64,
    right: i64,
    bottom: i64,
}

impl Canvas {
    fn width(&self) -> i64 {
        i64::from(self.size.width)
    }

    fn height(&self) -> i64 {
        i64::from(self.size.height)
    }

    fn fill(&mut self, area: Area, color: Rgb) {
        let (left, right) = (area.left.clamp(0, self.width()), area.right.clamp(0, self.width()));
        let (top, bottom) = (area.top.clamp(0, self.height()), area.bottom.clamp(0, self.height()));
        for y in top..bottom {
            let row = (y * self.width()) as usize;
            for x in left..right {
                let at = (row + x as usize) * 3;
                self.data[at..at + 3].copy_from_slice(&color);
            }
        }
    }

    fn figure(&mut self, one: &AnswerBox, line: i64, color: Rgb) {
        if let Some(quad) = &one.quad {
            for i in 0..4 {
                self.line(quad[i], quad[(i + 1) % 4], line, color);
            }
            return;
        }
        let area = area(one);
        for inset in 0..line {
            let Area { left, top, right, bottom } = area;
            let (l, t, r, b) = (left + inset, top + inset, right - inset, bottom - inset);
            self.fill(Area { left: l, top: t, right: r, bottom: t + 1 }, color);
            self.fill(Area { left: l, top: b - 1, right: r, bottom: b }, color);
            self.fill(Area { left: l, top: t, right: l + 1, bottom: b }, color);
            self.fill(Area { left: r - 1, top: t, right: r, bottom: b }, color);
        }
    }

    fn line(&mut self, [x1, y1]: [f64; 2], [x2, y2]: [f64; 2], line: i64, color: Rgb) {
        let steps = (x2 - x1).abs().max((y2 - y1).abs()).ceil().max(1.0) as i64;
        for step in 0..=steps {
            let t = step as f64 / steps as f64;
            // The last column and row belong to the right and lower edge.
            let left = ((x1 + (x2 - x1) * t) as i64).min(self.width() - 1) - line / 2;
            let top = ((y1 + (y2 - y1) * t) as i64).min(self.height() - 1) - line / 2;
            self.fill(Area { left, top, right: left + line, bottom: top + line }, color);
        }
    }

    /// The label above the box, where there is no room below it, else within it; moved to the left as far as it must
    /// be.
    fn label(&mut self, label: &str, one: &AnswerBox, scale: i64, color: Rgb) {
        let glyphs: Vec<_> = label.chars().take(MAX_LABEL_CHARS).filter_map(glyph).collect();
        let width = glyphs.iter().map(|g| g.get_width() as i64 * scale).sum::<i64>() + 2 * scale;
        let height = GLYPH_HEIGHT * scale;
        let area = area(one);
        let left = area.left.min(self.width() - width).max(0);
        let top = match (area.top >= height, area.bottom + height <= self.height()) {
            (true, _) => area.top - height,
            (false, true) => area.bottom,
            (false, false) => area.top,
        };
        self.fill(Area { left, top, right: left + width, bottom: top + height }, color);
        let [r, g, b] = color.map(u32::from);
        let ink = if 299 * r + 587 * g + 114 * b > 140_000 { [0; 3] } else { [255; 3] };
        let mut x = left + scale;
        for glyph in glyphs {
            for row in 0..GLYPH_HEIGHT {
                for column in 0..glyph.get_width() as i64 {
                    if glyph.get_pixel(column as usize, row as usize) {
                        let (left, top) = (x + column * scale, top + row * scale);
                        self.fill(Area { left, top, right: left + scale, bottom: top + scale }, ink);
                    }
                }
            }
            x += glyph.get_width() as i64 * scale;
        }
    }
}

/// Whole pixels around the box.
fn area(one: &AnswerBox) -> Area {
    let bbox = &one.bbox;
    Area {
        left: bbox.x1.floor() as i64,
        top: bbox.y1.floor() as i64,
        right: bbox.x2.ceil() as i64,
        bottom: bbox.y2.ceil() as i64,
    }
}

fn glyph(character: char) -> Option<&'static unifont::Glyph> {
    let shown = if character.is_control() { ' ' } else { character };
    unifont::get_glyph(shown).or_else(|| unifont::get_glyph(char::REPLACEMENT_CHARACTER))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boxes::Corners;

    fn one(x1: f64, y1: f64, x2: f64, y2: f64, label: Option<&str>) -> AnswerBox {
        let bbox = Corners { x1, y1, x2, y2 };
        AnswerBox {
            label: label.map(str::to_owned),
            image: 0,
            bbox,
            bbox_1000: bbox,
            quad: None,
            clamped: false,
        }
    }

    fn blank(height: u32, width: u32) -> RgbImage {
        RgbImage::new(height, width, vec![0; (height * width * 3) as usize]).unwrap()
    }

    /// Pixels that are not black, as `[left, top, right, bottom]` around them and their number.
    fn colored(image: &RgbImage) -> ([usize; 4], usize) {
        let width = image.size().width as usize;
        let lit = image.as_raw().chunks(3).enumerate().filter(|(_, p)| *p != [0, 0, 0]).map(|(i, _)| i);
        lit.fold(([usize::MAX, usize::MAX, 0, 0], 0), |([l, t, r, b], n), i| {
            let (x, y) = (i % width, i / width);
            ([l.min(x), t.min(y), r.max(x + 1), b.max(y + 1)], n + 1)
        })
    }

    #[test]
    fn a_rectangle_is_a_line_around_its_pixels() {
        let drawn = draw_boxes(blank(20, 30), [&one(3.0, 4.0, 10.0, 12.0, None)]);
        assert_eq!(colored(&drawn), ([3, 4, 10, 12], 2 * 7 + 2 * 6));
        // The whole image, and parts of pixels.
        let drawn = draw_boxes(blank(20, 30), [&one(0.0, 0.0, 30.0, 20.0, None)]);
        assert_eq!(colored(&drawn), ([0, 0, 30, 20], 2 * 30 + 2 * 18));
        let drawn = draw_boxes(blank(20, 30), [&one(3.9, 4.9, 4.1, 5.1, None)]);
        assert_eq!(colored(&drawn), ([3, 4, 5, 6], 4));
        // Lines of large images are thick.
        let drawn = draw_boxes(blank(600, 800), [&one(0.0, 0.0, 800.0, 600.0, None)]);
        assert_eq!(colored(&drawn).1, 800 * 600 - 794 * 594);
    }

    #[test]
    fn quadrilaterals_end_at_their_corners() {
        let mut quad = one(2.0, 2.0, 30.0, 20.0, None);
        quad.quad = Some([[16.0, 2.0], [30.0, 11.0], [16.0, 20.0], [2.0, 11.0]]);
        let (around, n) = colored(&draw_boxes(blank(20, 30), [&quad]));
        assert_eq!(around, [2, 2, 30, 20]);
        assert!((50..70).contains(&n), "{n}");
    }

    #[test]
    fn labels_have_a_ground_and_stay_in_the_image() {
        for (label, corner) in
            [("cat", 25.0), ("cat", 2.0), ("猫 🐈\n\u{7}", 60.0), (&"long ".repeat(100), 99.0)]
        {
            let drawn = draw_boxes(blank(100, 100), [&one(corner, corner, 100.0, 100.0, Some(label))]);
            let ground = drawn.as_raw().chunks(3).filter(|p| *p == COLORS[0]).count();
            let ink = drawn.as_raw().chunks(3).filter(|p| *p == [255; 3]).count();
            assert!(ground > 150 && ink > 20, "{label}: {ground}, {ink}");
        }
        // Above, below, within.
        for (top, bottom, want) in [(30.0, 90.0, 14), (10.0, 50.0, 50), (10.0, 90.0, 10)] {
            let drawn = draw_boxes(blank(100, 100), [&one(5.0, top, 60.0, bottom, Some("cat"))]);
            let white = drawn.as_raw().chunks(3).position(|p| p == [255; 3]).unwrap() / 100;
            assert!((want..want + 16).contains(&white), "{top}: {white}");
        }
        // Smaller than a letter.
        draw_boxes(blank(1, 1), [&one(0.0, 0.0, 1.0, 1.0, Some("cat"))]);
    }

    #[test]
    fn each_label_has_its_color() {
        let boxes = ["a", "b", "a"].map(|label| one(50.0, 50.0, 60.0, 60.0, Some(label)));
        let colors = |boxes: &[AnswerBox]| {
            let drawn = draw_boxes(blank(100, 100), boxes);
            COLORS.iter().filter(|c| drawn.as_raw().chunks(3).any(|p| p == *c)).count()
        };
        let moved: Vec<AnswerBox> = (0..)
            .zip(boxes)
            .map(|(i, mut b)| {
                b.bbox.x1 -= 15.0 * f64::from(i);
                b
            })
            .collect();
        assert_eq!(colors(&moved), 2);
    }

    #[test]
    fn png_is_read_back_and_a_full_disk_is_an_error() {
        let drawn = draw_boxes(blank(20, 30), [&one(3.0, 4.0, 10.0, 12.0, None)]);
        let mut bytes = Vec::new();
        encode_png(&drawn, &mut bytes).unwrap();
        assert_eq!(image::load_from_memory(&bytes).unwrap().into_rgb8().as_raw(), drawn.as_raw());
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        assert_eq!(encode_png(&drawn, Full).unwrap_err().kind(), io::ErrorKind::StorageFull);
    }
}
