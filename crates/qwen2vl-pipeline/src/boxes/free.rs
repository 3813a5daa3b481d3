//! Boxes without special tokens: bracketed numbers, lines of four numbers, JSON objects.
//!
//! Numbers that make no box are text: prose has years and sums in brackets too. Reported is what cannot be anything
//! else: a corner with a comma and no second corner, a JSON object with a box's key, and what the end of the text cuts.

use super::numbers::{self, Figure, MAX_NUMBER_CHARS, figure, is_close, is_open, is_separator};
use super::{json, push_bounded};

/// Brackets in brackets, at most: `[[[x, y], [x, y]], …]` has three.
const MAX_DEPTH: usize = 4;
/// A quadrilateral has 8 numbers, or 4 points.
const MAX_MEMBERS: usize = 9;

/// What was found.
#[derive(Debug, Clone, PartialEq)]
pub enum Free {
    /// A figure and its label.
    Figure(Figure, Option<String>),
    /// A text that was meant as a box, and why it is none.
    Malformed(String, String),
}

/// Finds boxes in text that comes character by character.
#[derive(Debug, Clone, Default)]
pub struct FreeForms {
    objects: json::Objects,
    groups: Groups,
    line: Line,
    out: Vec<Free>,
}

impl FreeForms {
    /// Takes the next character.
    pub fn push(&mut self, character: char) -> Vec<Free> {
        let found = self.objects.push(character);
        self.take(found);
        std::mem::take(&mut self.out)
    }

    /// Ends the text, or the part before a mark.
    pub fn finish(&mut self, end_of_text: bool) -> Vec<Free> {
        let found = self.objects.finish(end_of_text);
        self.take(found);
        self.line.end(&mut self.out);
        self.groups.end(end_of_text, &mut self.out);
        std::mem::take(&mut self.out)
    }

    fn take(&mut self, found: json::Found) {
        let json::Found { events, text } = found;
        if !events.is_empty() {
            self.line.interrupt();
            self.groups.end(false, &mut self.out);
            self.out.extend(events);
        }
        for character in text.chars() {
            self.text(character);
        }
    }

    /// A character that is in no JSON object.
    fn text(&mut self, character: char) {
        if character == '\n' {
            self.line.end(&mut self.out);
        }
        if is_open(character) && self.groups.is_idle() {
            self.groups.label = self.line.label();
        }
        let before = self.out.len();
        self.groups.push(character, &mut self.out);
        if self.out.len() > before {
            self.line.interrupt();
        } else {
            self.line.push(character);
        }
    }
}

/// Bracketed numbers.
#[derive(Debug, Clone, Default)]
struct Groups {
    frames: Vec<Frame>,
    number: String,
    /// A point outside of brackets, which may be the first corner, and whether a comma followed.
    corner: Option<([f64; 2], bool)>,
    source: String,
    label: Option<String>,
}

#[derive(Debug, Clone, Default)]
struct Frame {
    numbers: Vec<f64>,
    points: Vec<[f64; 2]>,
    /// Whether something in it makes it no figure by itself.
    mixed: bool,
}

impl Groups {
    fn is_idle(&self) -> bool {
        self.frames.is_empty() && self.corner.is_none()
    }

    fn push(&mut self, character: char, out: &mut Vec<Free>) {
        if !self.is_idle() || is_open(character) {
            push_bounded(&mut self.source, character);
        }
        match character {
            '0'..='9' | '.' | '-' if !self.frames.is_empty() => {
                if self.number.len() < MAX_NUMBER_CHARS {
                    self.number.push(character);
                } else {
                    self.end(false, out);
                }
            }
            c if is_separator(c) => {
                self.end_number();
                if let (true, Some((_, comma))) =
                    (self.frames.is_empty() && !c.is_whitespace(), &mut self.corner)
                {
                    *comma = true;
                }
            }
            c if is_open(c) && self.frames.len() < MAX_DEPTH => {
                self.end_number();
                self.frames.push(Frame::default());
            }
            c if is_close(c) && !self.frames.is_empty() => {
                self.end_number();
                self.close(out);
            }
            _ => self.end(false, out),
        }
    }

    fn end_number(&mut self) {
        let word = std::mem::take(&mut self.number);
        if let (false, Some(frame)) = (word.is_empty(), self.frames.last_mut()) {
            match numbers::number(&word) {
                Some(number) if frame.numbers.len() < MAX_MEMBERS => frame.numbers.push(number),
                _ => frame.mixed = true,
            }
        }
    }

    /// Ends the innermost brackets.
    fn close(&mut self, out: &mut Vec<Free>) {
        let Some(frame) = self.frames.pop() else { return };
        let outermost = self.frames.is_empty();
        let members: Vec<f64> = match (frame.numbers.is_empty(), frame.points.is_empty(), frame.mixed) {
            (false, true, false) => frame.numbers,
            (true, false, false) => frame.points.into_iter().flatten().collect(),
            _ => Vec::new(),
        };
        match (members.as_slice(), self.corner) {
            (&[x, y], _) if !outermost => {
                let parent = self.frames.last_mut().expect("not the outermost");
                if parent.points.len() < MAX_MEMBERS {
                    parent.points.push([x, y]);
                } else {
                    parent.mixed = true;
                }
                return;
            }
            (&[x, y], None) => {
                self.corner = Some(([x, y], false));
                return;
            }
            (&[x2, y2], Some(([x1, y1], _))) => self.emit(&[x1, y1, x2, y2], out),
            ([_, _, _, _] | [_, _, _, _, _, _, _, _], _) => self.emit(&members, out),
            (_, Some((_, true))) => {
                let source = std::mem::take(&mut self.source);
                out.push(Free::Malformed(source, "one corner, a box has two".to_owned()));
            }
            _ => {}
        }
        self.corner = None;
        match self.frames.last_mut() {
            Some(parent) => parent.mixed = true,
            None => self.source.clear(),
        }
    }

    fn emit(&mut self, numbers: &[f64], out: &mut Vec<Free>) {
        out.push(match figure(numbers) {
            Ok(figure) => Free::Figure(figure, self.label.clone()),
            Err(reason) => Free::Malformed(self.source.clone(), reason),
        });
        self.source.clear();
    }

    /// Something else came.
    fn end(&mut self, end_of_text: bool, out: &mut Vec<Free>) {
        self.end_number();
        let open: usize = self.frames.iter().map(|f| f.numbers.len() + 2 * f.points.len()).sum();
        let second = matches!(self.corner, Some((_, true))) && !self.frames.is_empty();
        let reason = match (end_of_text, second) {
            (true, _) if second || open >= 2 => Some("cut off"),
            (false, true) => Some("one corner, a box has two"),
            _ => None,
        };
        let source = std::mem::take(&mut self.source);
        out.extend(reason.map(|reason| Free::Malformed(source, reason.to_owned())));
        self.frames.clear();
        self.corner = None;
        self.label = None;
    }
}

/// The line so far: it may be the label of what follows, or all of it four numbers.
#[derive(Debug, Clone, Default)]
struct Line {
    /// Since the line's beginning or the last box in it.
    text: String,
    /// Whether there was a box in it.
    interrupted: bool,
    label: Option<String>,
}

impl Line {
    fn push(&mut self, character: char) {
        push_bounded(&mut self.text, character);
    }

    fn interrupt(&mut self) {
        self.text.clear();
        self.interrupted = true;
    }

    /// The label of the box that begins here: `label:` before it, or the line's last one if no word came since.
    fn label(&mut self) -> Option<String> {
        let text = self.text.trim();
        if let Some(label) = text.strip_suffix([':', '\u{ff1a}']) {
            self.label = own_label(label);
        } else if text.contains(char::is_alphanumeric) {
            self.label = None;
        }
        self.label.clone()
    }

    fn end(&mut self, out: &mut Vec<Free>) {
        let line = std::mem::take(self);
        let (label, rest) = match line.text.rsplit_once([':', '\u{ff1a}']) {
            Some((label, rest)) => (own_label(label), rest),
            None => (None, line.text.as_str()),
        };
        let rest = rest.trim().trim_end_matches(['.', ',']);
        let plain =
            !line.interrupted && rest.contains([',', '\u{ff0c}']) && !rest.contains(numbers::is_bracket);
        if let (true, Ok(numbers)) = (plain, numbers::numbers_in(rest))
            && numbers.len() == 4
        {
            out.push(match figure(&numbers) {
                Ok(figure) => Free::Figure(figure, label),
                Err(reason) => Free::Malformed(line.text.clone(), reason),
            });
        }
    }
}

/// The label without the marks and numbers of a list, quotes and emphasis.
fn own_label(text: &str) -> Option<String> {
    let text = text.trim_start_matches(|c: char| !c.is_alphanumeric());
    let text = match text.split_once(". ") {
        Some((number, rest)) if number.bytes().all(|b| b.is_ascii_digit()) => rest,
        _ => text,
    };
    let text = text.trim_matches(|c: char| c.is_whitespace() || matches!(c, '*' | '"' | '`' | '\'' | ','));
    (!text.is_empty()).then(|| text.to_owned())
}
