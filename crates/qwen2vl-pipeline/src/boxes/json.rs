//! Boxes in JSON objects, also where the objects lie in prose, in a list that never ends, or in Python's quotes.
//!
//! An object is read when its brace closes, so that a long list needs no more memory than its longest member. An inner
//! object that gave a box leaves a `null` in the outer one.

use serde_json::{Map, Value};

use super::free::Free;
use super::numbers::{figure, numbers_in};

/// Keys of a box, the more telling first.
const BOX_KEYS: [&str; 5] = ["bbox_2d", "box_2d", "bbox", "box", "quad"];
const LABEL_KEYS: [&str; 6] = ["label", "name", "class", "category", "object", "text"];
const CORNER_KEYS: [[&str; 4]; 2] = [["x1", "y1", "x2", "y2"], ["xmin", "ymin", "xmax", "ymax"]];

/// The most bytes of an object that is waited for.
const MAX_BYTES: usize = 4096;
const MAX_DEPTH: usize = 16;
/// The most boxes of one object.
const MAX_BOXES: usize = 256;

/// Takes objects out of text.
#[derive(Debug, Clone, Default)]
pub struct Objects {
    /// From the outermost open brace on.
    text: String,
    /// Where braces opened.
    open: Vec<usize>,
    /// The quote that began a string, and whether a backslash was the last character.
    string: Option<(char, bool)>,
    /// Whether an object within `text` gave a box.
    found: bool,
}

/// What a character completes.
#[derive(Debug, Default)]
pub struct Found {
    pub events: Vec<Free>,
    /// Text that is in no object, or in one without a box.
    pub text: String,
}

impl Objects {
    /// Takes the next character.
    pub fn push(&mut self, character: char) -> Found {
        if self.open.is_empty() && character != '{' {
            return Found { events: Vec::new(), text: character.into() };
        }
        let mut found = Found::default();
        if self.text.len() >= MAX_BYTES {
            found = self.give_up("longer than 4096 bytes");
            let rest = self.push(character);
            found.events.extend(rest.events);
            found.text.push_str(&rest.text);
            return found;
        }
        let at = self.text.len();
        self.text.push(character);
        match (self.string, character) {
            (Some((quote, true)), _) => self.string = Some((quote, false)),
            (Some((quote, _)), '\\') => self.string = Some((quote, true)),
            (Some((quote, _)), c) if c == quote => self.string = None,
            (Some(_), _) => {}
            (None, '{') if self.open.len() < MAX_DEPTH => self.open.push(at),
            (None, '{') => found = self.give_up("too many braces in braces"),
            (None, '}') => self.close(&mut found),
            (None, '"') => self.string = Some(('"', false)),
            // An apostrophe within a word of a broken object is no quote; Python's follow one of these.
            (None, '\'') if self.text[..at].trim_end().ends_with(['{', ',', ':', '[']) => {
                self.string = Some(('\'', false));
            }
            (None, _) => {}
        }
        found
    }

    /// Ends the text, or the part before a mark.
    pub fn finish(&mut self, end_of_text: bool) -> Found {
        if self.open.is_empty() {
            return Found::default();
        }
        self.give_up(if end_of_text { "cut off" } else { "an object that does not end" })
    }

    /// Ends the innermost object.
    fn close(&mut self, found: &mut Found) {
        let Some(start) = self.open.pop() else { return };
        let outermost = self.open.is_empty();
        let events = read(&self.text[start..], outermost);
        if !events.is_empty() {
            found.events.extend(events);
            self.found = true;
            self.text.truncate(start);
            self.text.push_str("null");
        }
        if outermost {
            let text = std::mem::take(&mut self.text);
            if !std::mem::take(&mut self.found) {
                found.text = text;
            }
        }
    }

    /// The waiting text is no object.
    fn give_up(&mut self, reason: &str) -> Found {
        let text = std::mem::take(&mut self.text);
        let had_box = std::mem::take(&mut self.found);
        let open = std::mem::take(&mut self.open);
        self.string = None;
        if let Some(start) = open.into_iter().rev().find(|start| has_box_key(&text[*start..])) {
            let malformed = Free::Malformed(text[start..].to_owned(), reason.to_owned());
            return Found { events: vec![malformed], text: String::new() };
        }
        Found { events: Vec::new(), text: if had_box { String::new() } else { text } }
    }
}

/// Whether a quoted key of a box is in it.
fn has_box_key(text: &str) -> bool {
    ['"', '\''].iter().any(|q| BOX_KEYS.iter().any(|key| text.contains(&format!("{q}{key}{q}"))))
}

/// Boxes of one object.
fn read(text: &str, outermost: bool) -> Vec<Free> {
    let parsed = serde_json::from_str(text)
        .or_else(|e| serde_json::from_str(&text.replace('\'', "\"")).map_err(|_| e));
    let object: Map<String, Value> = match parsed {
        Ok(object) => object,
        Err(error) if has_box_key(text) => {
            return vec![Free::Malformed(text.to_owned(), format!("no JSON: {error}"))];
        }
        Err(_) => return Vec::new(),
    };
    let label = LABEL_KEYS.iter().find_map(|key| object.get(*key)?.as_str()).map(str::to_owned);
    // `null` is "no such thing" in a model's JSON, and what is left of an inner object.
    let value = BOX_KEYS.iter().find_map(|key| object.get(*key)).filter(|value| !value.is_null());
    match value {
        // A list of other things that calls itself `box`: objects, each read by itself.
        Some(value) => boxes_of(value).unwrap_or_else(|reason| vec![Err(reason)]),
        None if outermost || label.is_some() => corners_of(&object).map(|n| figure(&n)).into_iter().collect(),
        None => Vec::new(),
    }
    .into_iter()
    .map(|figure| match figure {
        Ok(figure) => Free::Figure(figure, label.clone()),
        Err(reason) => Free::Malformed(text.to_owned(), reason),
    })
    .collect()
}

type Figures = Vec<Result<super::numbers::Figure, String>>;

/// The boxes in the value of a box's key; an error if it is nothing of the kind.
fn boxes_of(value: &Value) -> Result<Figures, String> {
    let none = || "neither 4 nor 8 numbers".to_owned();
    match value {
        Value::String(text) => Ok(vec![numbers_in(text).and_then(|n| figure(&n))]),
        Value::Object(object) => Ok(vec![corners_of(object).ok_or_else(none).and_then(|n| figure(&n))]),
        Value::Array(list) if list.iter().all(Value::is_null) => Ok(Vec::new()),
        Value::Array(list) if list.iter().all(Value::is_number) => Ok(vec![figure(&floats(list))]),
        Value::Array(list) => {
            let rows: Option<Vec<Vec<f64>>> = list
                .iter()
                .map(|row| row.as_array().filter(|r| r.iter().all(Value::is_number)).map(|r| floats(r)))
                .collect();
            let rows = rows.ok_or_else(none)?;
            if rows.iter().all(|row| row.len() == 2) {
                return Ok(vec![figure(&rows.concat())]);
            }
            if rows.len() > MAX_BOXES {
                return Err(format!("{} boxes, at most {MAX_BOXES} in one object", rows.len()));
            }
            Ok(rows.iter().map(|row| figure(row)).collect())
        }
        _ => Err(none()),
    }
}

fn corners_of(object: &Map<String, Value>) -> Option<Vec<f64>> {
    CORNER_KEYS.iter().find_map(|keys| keys.iter().map(|key| object.get(*key)?.as_f64()).collect())
}

fn floats(list: &[Value]) -> Vec<f64> {
    list.iter().filter_map(Value::as_f64).collect()
}
