//! The special tokens of boxes, found in text that comes character by character.

/// What begins or ends a label, a box or a quadrilateral.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    RefStart,
    RefEnd,
    Start(Shape),
    End(Shape),
}

/// What the numbers between two marks are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    Box,
    Quad,
}

impl Shape {
    pub fn name(self) -> &'static str {
        match self {
            Self::Box => "box",
            Self::Quad => "quad",
        }
    }

    /// Numbers of one.
    pub fn len(self) -> usize {
        match self {
            Self::Box => 4,
            Self::Quad => 8,
        }
    }
}

/// Qwen2-VL's special tokens.
const TOKENS: [(&str, Mark); 6] = [
    ("<|object_ref_start|>", Mark::RefStart),
    ("<|object_ref_end|>", Mark::RefEnd),
    ("<|box_start|>", Mark::Start(Shape::Box)),
    ("<|box_end|>", Mark::End(Shape::Box)),
    ("<|quad_start|>", Mark::Start(Shape::Quad)),
    ("<|quad_end|>", Mark::End(Shape::Quad)),
];

/// The same as Qwen-VL wrote them, in plain text.
const TAGS: [(&str, Mark); 6] = [
    ("<ref>", Mark::RefStart),
    ("</ref>", Mark::RefEnd),
    ("<box>", Mark::Start(Shape::Box)),
    ("</box>", Mark::End(Shape::Box)),
    ("<quad>", Mark::Start(Shape::Quad)),
    ("</quad>", Mark::End(Shape::Quad)),
];

/// A character, or a mark with its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece {
    Char(char),
    Mark(Mark, &'static str),
}

/// Cuts marks out of text.
#[derive(Debug, Clone)]
pub struct Lexer {
    tags: bool,
    /// The beginning of a mark, shorter than the longest mark.
    held: String,
}

impl Lexer {
    /// `tags`: `<box>` and its like are marks as well.
    pub fn new(tags: bool) -> Self {
        Self { tags, held: String::new() }
    }

    /// Takes the next character.
    pub fn push(&mut self, character: char, mut out: impl FnMut(Piece)) {
        self.held.push(character);
        while !self.held.is_empty() {
            if let Some((text, mark)) = self.marks().find(|(text, _)| *text == self.held) {
                self.held.clear();
                out(Piece::Mark(mark, text));
                return;
            }
            if self.marks().any(|(text, _)| text.starts_with(&self.held)) {
                return;
            }
            out(Piece::Char(self.held.remove(0)));
        }
    }

    /// Ends the text.
    pub fn finish(&mut self, mut out: impl FnMut(Piece)) {
        std::mem::take(&mut self.held).chars().for_each(|c| out(Piece::Char(c)));
    }

    fn marks(&self) -> impl Iterator<Item = (&'static str, Mark)> + use<> {
        let tags = if self.tags { TAGS.as_slice() } else { &[] };
        TOKENS.iter().chain(tags).copied()
    }
}
