//! Boxes in answers: from the text that the model writes to labels and pixels of the original image.
//!
//! Qwen2-VL writes `<|object_ref_start|>dog<|object_ref_end|><|box_start|>(100,200),(300,400)<|box_end|>` with
//! coordinates from 0 to 1000 of the original image, whatever it was resized to. [`BoxParser`] reads that from text
//! that comes in pieces, and on request the forms without special tokens that models write as well; [`AnswerBoxes`] has
//! the boxes in pixels. What was meant as a box and is none is a [`MalformedBox`], never left out in silence.
//!
//! Not here: absolute coordinates of the resized image, which Qwen2.5-VL writes.

mod draw;
mod export;
mod free;
mod json;
mod marks;
mod numbers;
mod parser;
mod place;
#[cfg(test)]
mod tests;

pub use draw::{draw_boxes, encode_png};
pub use export::{Coco, YoloClasses};
pub use parser::{BoxEvent, BoxParser, FoundBox};
pub(crate) use place::question_picture;
pub use place::{AnswerBox, AnswerBoxes};

use serde::{Deserialize, Serialize};

/// Coordinates run from 0 to this, in both directions, on any image.
pub(crate) const SCALE: f64 = 1000.0;

/// The most boxes and malformed boxes of one answer; what is behind them is one more malformed box.
pub(crate) const MAX_EVENTS: usize = 4096;

/// The most characters of a text that is kept to be shown, or of a label.
pub(crate) const MAX_TEXT_CHARS: usize = 256;

/// Which forms of boxes are read from an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum BoxForms {
    /// None.
    Off,
    /// Those between Qwen2-VL's special tokens: nothing else that an answer may say is taken for a box.
    #[default]
    Marked,
    /// Those and what models write without them: `(x1,y1),(x2,y2)`, `[x1, y1, x2, y2]`, a line of `x1,y1 x2,y2`,
    /// JSON objects with `bbox_2d`, `bbox`, `box_2d` or `box`, and the tags `<ref>`, `<box>`, `<quad>`. For answers to
    /// questions about places: elsewhere `[1, 2, 3, 4]` may be no box.
    Any,
}

/// A rectangle by its corners, `x1 < x2` and `y1 < y2`. Serialized as `[x1, y1, x2, y2]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Corners {
    /// Left.
    pub x1: f64,
    /// Top.
    pub y1: f64,
    /// Right.
    pub x2: f64,
    /// Bottom.
    pub y2: f64,
}

impl Corners {
    /// Width.
    pub fn width(&self) -> f64 {
        self.x2 - self.x1
    }

    /// Height.
    pub fn height(&self) -> f64 {
        self.y2 - self.y1
    }
}

impl Serialize for Corners {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        [self.x1, self.y1, self.x2, self.y2].serialize(serializer)
    }
}

/// What was meant as a box and is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct MalformedBox {
    /// What the model wrote, at most 256 characters of it.
    pub text: String,
    /// Why it is no box.
    pub reason: String,
}

impl MalformedBox {
    pub(crate) fn new(text: &str, reason: impl Into<String>) -> Self {
        Self { text: shortened(text), reason: reason.into() }
    }
}

/// The text, or its beginning with an ellipsis.
pub(crate) fn shortened(text: &str) -> String {
    match text.char_indices().nth(MAX_TEXT_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Appends while there is room, so that a text that never ends costs nothing.
pub(crate) fn push_bounded(text: &mut String, character: char) {
    // At most 4 bytes a character; one more than shown, so that the cut is seen.
    if text.len() < 4 * MAX_TEXT_CHARS && text.chars().count() <= MAX_TEXT_CHARS {
        text.push(character);
    }
}
