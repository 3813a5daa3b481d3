//! From the scale of 0 to 1000 to pixels, and which image a box is in.
//!
//! Of several images the one counts that is named: by the box's label, else by the last name before it in the answer,
//! else by the question if it names exactly one, else the first image. Names are `Picture N`, `image N`, `photo N`,
//! `img N`, counted from 1; a number that no image has names nothing. A request without images has its boxes in the
//! first video.

use qwen2vl_preprocess::ImageSize;
use serde::Serialize;

use super::{BoxEvent, BoxForms, BoxParser, Corners, FoundBox, MalformedBox, SCALE};
use crate::MediaInfo;

/// A box in pixels of the original image, after the EXIF turn.
///
/// Serialized as `{"label", "image", "bbox", "bbox_1000"}`, with `"quad"` if it is one and `"clamped": true` if a
/// coordinate was out of range.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct AnswerBox {
    /// What is in it, if the model says so.
    pub label: Option<String>,
    /// Index into the annotation's `media`: which image it is in, counted from 0.
    pub image: usize,
    /// The rectangle in pixels, from the left and the top edge; `x2` is at most the width, `y2` at most the height.
    pub bbox: Corners,
    /// The rectangle as the model wrote it, from 0 to 1000.
    pub bbox_1000: Corners,
    /// The corners `[x, y]` of a quadrilateral in pixels, in the order the model wrote them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quad: Option<[[f64; 2]; 4]>,
    /// Whether the model wrote a coordinate beyond 0 to 1000, which was moved to the edge.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub clamped: bool,
}

/// All boxes of an answer.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct AnswerBoxes {
    /// Those that are right, in the order of the answer.
    pub boxes: Vec<AnswerBox>,
    /// Those that are not.
    pub malformed: Vec<MalformedBox>,
}

impl AnswerBoxes {
    /// Reads the boxes of a whole answer with special tokens about these media, of which the first `n_images` are
    /// images. `question_picture` is the image that the question names, counted from 1.
    pub(crate) fn read(
        answer: &str,
        forms: BoxForms,
        media: &[MediaInfo],
        n_images: usize,
        question_picture: Option<usize>,
    ) -> Self {
        let mut boxes = Self::default();
        for event in BoxParser::parse(answer, forms) {
            match event {
                BoxEvent::Malformed(malformed) => boxes.malformed.push(malformed),
                BoxEvent::Box(found) => {
                    let named = [found.picture, question_picture].into_iter().flatten();
                    let image = named.map(|n| n.wrapping_sub(1)).find(|i| *i < n_images).unwrap_or(0);
                    match media.get(image) {
                        Some(info) => boxes.boxes.push(found.in_image(image, info.size)),
                        None => {
                            boxes.malformed.push(MalformedBox::new(&written(&found), "a box, but no image"));
                        }
                    }
                }
            }
        }
        boxes
    }

    /// The boxes in one image, by its index in the annotation's `media`.
    pub fn of_image(&self, image: usize) -> impl Iterator<Item = &AnswerBox> {
        self.boxes.iter().filter(move |b| b.image == image)
    }
}

fn written(found: &FoundBox) -> String {
    let Corners { x1, y1, x2, y2 } = found.corners;
    format!("{}({x1},{y1}),({x2},{y2})", found.label.as_deref().unwrap_or_default())
}

impl FoundBox {
    /// The box in pixels of the image of this index, which has this size after the EXIF turn.
    pub fn in_image(self, image: usize, size: ImageSize) -> AnswerBox {
        let (width, height) = (f64::from(size.width), f64::from(size.height));
        // Multiplied first: 1000 is exactly the width.
        let (x, y) = (|x: f64| x * width / SCALE, |y: f64| y * height / SCALE);
        let Corners { x1, y1, x2, y2 } = self.corners;
        AnswerBox {
            label: self.label,
            image,
            bbox: Corners { x1: x(x1), y1: y(y1), x2: x(x2), y2: y(y2) },
            bbox_1000: self.corners,
            quad: self.quad.map(|quad| quad.map(|[px, py]| [x(px), y(py)])),
            clamped: self.clamped,
        }
    }
}

/// Words that name an image if a number follows.
const NAMES: [&str; 4] = ["picture", "image", "photo", "img"];

/// Finds names of images in text that comes character by character.
#[derive(Debug, Clone, Default)]
pub struct Mentions {
    /// The word so far in lower case, as long as it may be a name.
    word: String,
    /// Whether a name came just before, and the number behind it so far.
    number: Option<usize>,
    after_name: bool,
    last: Option<usize>,
}

impl Mentions {
    /// Takes the next character; the number that ends before it, if it is a name's.
    pub fn push(&mut self, character: char) -> Option<usize> {
        if self.after_name
            && let Some(digit) = character.to_digit(10)
        {
            let number = self.number.unwrap_or(0).saturating_mul(10).saturating_add(digit as usize);
            self.number = Some(number);
            return None;
        }
        let ended = self.number.take();
        if let Some(number) = ended {
            self.last = Some(number);
            self.after_name = false;
        }
        if character.is_alphanumeric() {
            self.after_name = false;
            // One more than the longest name, so that "pictures" is none.
            if self.word.len() < 8 {
                self.word.extend(character.to_lowercase());
            }
        } else {
            self.after_name = match self.word.is_empty() {
                true => self.after_name && matches!(character, ' ' | '#'),
                false => matches!(character, ' ' | '#') && NAMES.contains(&self.word.as_str()),
            };
            self.word.clear();
        }
        ended
    }

    /// A mark ends words.
    pub fn clear_word(&mut self) {
        self.push('\n');
    }

    /// The last image that was named, its number ended or not.
    pub fn last(&self) -> Option<usize> {
        self.number.or(self.last)
    }
}

/// The last image that a text names.
pub fn picture_named_in(text: &str) -> Option<usize> {
    let mut mentions = Mentions::default();
    text.chars().for_each(|c| {
        mentions.push(c);
    });
    mentions.last()
}

/// The image that a question names, if it is one.
pub fn question_picture(question: &str) -> Option<usize> {
    let mut mentions = Mentions::default();
    let mut named: Option<usize> = None;
    for number in question.chars().chain(['\n']).filter_map(|c| mentions.push(c)) {
        if named.is_some_and(|n| n != number) {
            return None;
        }
        named = Some(number);
    }
    named
}
