//! The parser: marks first, free forms outside of them. One character at a time, so that it cannot matter how the text
//! is cut; all that it holds is bounded.

use super::free::{Free, FreeForms};
use super::marks::{Lexer, Mark, Piece, Shape};
use super::numbers::{Figure, figure, numbers_in};
use super::place::{Mentions, picture_named_in};
use super::{BoxForms, Corners, MAX_EVENTS, MAX_TEXT_CHARS, MalformedBox, push_bounded};

/// A box as the model wrote it: coordinates from 0 to 1000 of the original image.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct FoundBox {
    /// What is in it.
    pub label: Option<String>,
    /// The rectangle, within 0 to 1000; around the quadrilateral if it is one.
    pub corners: Corners,
    /// The corners `[x, y]` of a quadrilateral, in the order the model wrote them.
    pub quad: Option<[[f64; 2]; 4]>,
    /// Whether the model wrote a coordinate beyond 0 to 1000, which was moved to the edge.
    pub clamped: bool,
    /// The picture that the label, or the text before, names: `Picture 2`, `image 2`. Counted from 1.
    pub picture: Option<usize>,
}

/// What the parser finds.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum BoxEvent {
    /// A box.
    Box(FoundBox),
    /// What was meant as one.
    Malformed(MalformedBox),
}

/// Reads boxes from an answer that comes in pieces, in bounded memory. However the text is cut, the boxes are the same.
///
/// The answer must have its special tokens, as [`crate::Annotator::run_stream`] hands it out unless
/// `skip_special_tokens` is set.
///
/// ```
/// use qwen2vl_pipeline::{BoxEvent, BoxForms, BoxParser};
///
/// let mut parser = BoxParser::new(BoxForms::Marked);
/// let mut events = parser.push("<|object_ref_start|>dog<|object_ref_end|><|box_start|>(10,20),");
/// events.extend(parser.push("(300,400)<|box_end|>"));
/// events.extend(parser.finish());
/// let [BoxEvent::Box(dog)] = &events[..] else { panic!("one box") };
/// assert_eq!((dog.label.as_deref(), dog.corners.x2), (Some("dog"), 300.0));
/// ```
#[derive(Debug, Clone)]
pub struct BoxParser {
    forms: BoxForms,
    lexer: Lexer,
    state: State,
    free: FreeForms,
    label: Option<Label>,
    mentions: Mentions,
    n_events: usize,
    out: Vec<BoxEvent>,
}

#[derive(Debug, Clone, PartialEq)]
enum State {
    Text,
    /// Within a label.
    Label(String),
    /// Within the marks of a box.
    Figure(Shape, String),
}

/// A label waits for its boxes. Words may stand before the first; behind it a word ends the label.
#[derive(Debug, Clone, PartialEq)]
struct Label {
    text: String,
    n_boxes: usize,
}

impl BoxParser {
    /// A parser of these forms.
    pub fn new(forms: BoxForms) -> Self {
        Self {
            forms,
            lexer: Lexer::new(forms == BoxForms::Any),
            state: State::Text,
            free: FreeForms::default(),
            label: None,
            mentions: Mentions::default(),
            n_events: 0,
            out: Vec::new(),
        }
    }

    /// All boxes of a whole text.
    pub fn parse(text: &str, forms: BoxForms) -> Vec<BoxEvent> {
        let mut parser = Self::new(forms);
        let mut events = parser.push(text);
        events.extend(parser.finish());
        events
    }

    /// Takes the next piece of the answer; the boxes that end in it.
    pub fn push(&mut self, text: &str) -> Vec<BoxEvent> {
        if self.forms == BoxForms::Off {
            return Vec::new();
        }
        for character in text.chars() {
            let mut pieces = Vec::new();
            self.lexer.push(character, |piece| pieces.push(piece));
            pieces.into_iter().for_each(|piece| self.piece(piece));
        }
        std::mem::take(&mut self.out)
    }

    /// Ends the answer: what is cut off is reported.
    pub fn finish(mut self) -> Vec<BoxEvent> {
        let mut pieces = Vec::new();
        self.lexer.finish(|piece| pieces.push(piece));
        pieces.into_iter().for_each(|piece| self.piece(piece));
        let found = self.free.finish(true);
        self.take(found);
        self.abandon("cut off");
        self.end_label();
        self.out
    }

    fn piece(&mut self, piece: Piece) {
        match piece {
            Piece::Char(character) => self.character(character),
            Piece::Mark(mark, text) => self.mark(mark, text),
        }
    }

    fn character(&mut self, character: char) {
        match &mut self.state {
            State::Text => {
                self.mentions.push(character);
                if self.label.as_ref().is_some_and(|l| l.n_boxes > 0) && character.is_alphabetic() {
                    self.label = None;
                }
                if self.forms == BoxForms::Any {
                    let found = self.free.push(character);
                    self.take(found);
                }
            }
            State::Label(text) | State::Figure(_, text) => push_bounded(text, character),
        }
    }

    fn mark(&mut self, mark: Mark, text: &str) {
        if self.state == State::Text {
            let found = self.free.finish(false);
            self.take(found);
        }
        match (std::mem::replace(&mut self.state, State::Text), mark) {
            (State::Label(label), Mark::RefEnd | Mark::Start(_)) => {
                self.begin_label(&label);
                if let Mark::Start(shape) = mark {
                    self.state = State::Figure(shape, String::new());
                }
            }
            (State::Figure(shape, inner), Mark::End(end)) if shape == end => self.figure(shape, &inner),
            (State::Text, Mark::RefEnd | Mark::End(_)) => {
                self.malformed(text, format!("{text} without its beginning"));
            }
            (state, mark) => {
                self.state = state;
                self.abandon(&format!("{text} where it has not ended"));
                self.state = match mark {
                    Mark::RefStart => {
                        self.end_label();
                        State::Label(String::new())
                    }
                    Mark::Start(shape) => State::Figure(shape, String::new()),
                    Mark::RefEnd | Mark::End(_) => State::Text,
                };
            }
        }
    }

    fn begin_label(&mut self, text: &str) {
        self.end_label();
        if text.chars().count() > MAX_TEXT_CHARS {
            self.malformed(text, format!("a label of more than {MAX_TEXT_CHARS} characters"));
        }
        let text = super::shortened(text.trim());
        self.mentions.clear_word();
        if !text.is_empty() {
            self.label = Some(Label { text, n_boxes: 0 });
        }
    }

    /// A label must have had a box.
    fn end_label(&mut self) {
        if let Some(label) = self.label.take()
            && label.n_boxes == 0
        {
            self.malformed(&label.text, "a label without a box");
        }
    }

    /// The label had its box, or what was meant as one.
    fn use_label(&mut self) {
        self.label.iter_mut().for_each(|l| l.n_boxes += 1);
    }

    /// Reports a label or box that does not end.
    fn abandon(&mut self, reason: &str) {
        match std::mem::replace(&mut self.state, State::Text) {
            State::Text => {}
            State::Label(text) => self.malformed(&format!("<|object_ref_start|>{text}"), reason),
            State::Figure(shape, text) => {
                self.use_label();
                self.malformed(&format!("<|{}_start|>{text}", shape.name()), reason);
            }
        }
    }

    fn figure(&mut self, shape: Shape, inner: &str) {
        let numbers = if inner.chars().count() > MAX_TEXT_CHARS {
            Err(format!("more than {MAX_TEXT_CHARS} characters"))
        } else {
            numbers_in(inner)
        };
        let figure = numbers.and_then(|numbers| match numbers.len() {
            n if n == shape.len() => figure(&numbers),
            n => Err(format!("{n} numbers, a {} has {}", shape.name(), shape.len())),
        });
        match figure {
            Ok(figure) => self.found(&figure, None),
            Err(reason) => {
                let name = shape.name();
                self.use_label();
                self.malformed(&format!("<|{name}_start|>{inner}<|{name}_end|>"), reason);
            }
        }
    }

    fn take(&mut self, found: Vec<Free>) {
        for one in found {
            match one {
                Free::Figure(figure, label) => self.found(&figure, label),
                Free::Malformed(text, reason) => {
                    self.use_label();
                    self.malformed(&text, reason);
                }
            }
        }
    }

    fn found(&mut self, figure: &Figure, label: Option<String>) {
        let marked = self.label.as_mut().map(|l| {
            l.n_boxes += 1;
            l.text.clone()
        });
        let label = label.map(|l| super::shortened(l.trim())).filter(|l| !l.is_empty()).or(marked);
        let picture = label.as_deref().and_then(picture_named_in).or(self.mentions.last());
        let Figure { corners, quad, clamped } = *figure;
        self.event(BoxEvent::Box(FoundBox { label, corners, quad, clamped, picture }));
    }

    fn malformed(&mut self, text: &str, reason: impl Into<String>) {
        self.event(BoxEvent::Malformed(MalformedBox::new(text, reason)));
    }

    fn event(&mut self, event: BoxEvent) {
        self.n_events += 1;
        if self.n_events <= MAX_EVENTS {
            self.out.push(event);
        } else if self.n_events == MAX_EVENTS + 1 {
            let reason = format!("more than {MAX_EVENTS} boxes, these and those behind are left out");
            self.out.push(BoxEvent::Malformed(MalformedBox::new("", reason)));
        }
    }
}
