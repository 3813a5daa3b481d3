//! Numbers and what they make: rectangles and quadrilaterals on the scale from 0 to 1000.

use super::{Corners, SCALE};

/// A number has at most so many characters.
pub const MAX_NUMBER_CHARS: usize = 16;

/// A rectangle or quadrilateral within the image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Figure {
    /// The rectangle, or the one around the quadrilateral.
    pub corners: Corners,
    /// The quadrilateral's corners `[x, y]` in the order they were written.
    pub quad: Option<[[f64; 2]; 4]>,
    /// Whether a coordinate was beyond 0 to 1000.
    pub clamped: bool,
}

/// The rectangle of two opposite corners, or the quadrilateral of four.
pub fn figure(numbers: &[f64]) -> Result<Figure, String> {
    let points: Vec<[f64; 2]> =
        numbers.chunks_exact(2).map(|p| [p[0].clamp(0.0, SCALE), p[1].clamp(0.0, SCALE)]).collect();
    if !matches!(numbers.len(), 4 | 8) || !numbers.iter().all(|n| n.is_finite()) {
        return Err(format!("{} numbers, a box has 4 and a quad 8", numbers.len()));
    }
    let clamped = numbers.iter().any(|n| !(0.0..=SCALE).contains(n));
    let range = |axis: usize| {
        let values = points.iter().map(|p| p[axis]);
        (values.clone().fold(f64::INFINITY, f64::min), values.fold(0.0, f64::max))
    };
    let ((x1, x2), (y1, y2)) = (range(0), range(1));
    if x1 >= x2 || y1 >= y2 {
        let reason = if clamped { "no area within 0 to 1000" } else { "no area" };
        return Err(reason.to_owned());
    }
    Ok(Figure { corners: Corners { x1, y1, x2, y2 }, quad: points.try_into().ok(), clamped })
}

/// The numbers of a text that has nothing but numbers, brackets, commas and white space.
pub fn numbers_in(text: &str) -> Result<Vec<f64>, String> {
    let mut numbers = Vec::new();
    for word in text.split(|c: char| is_separator(c) || is_bracket(c)).filter(|w| !w.is_empty()) {
        numbers.push(number(word).ok_or_else(|| format!("{:?} is no number", super::shortened(word)))?);
    }
    Ok(numbers)
}

/// A decimal number without an exponent.
pub fn number(word: &str) -> Option<f64> {
    let digits = word.strip_prefix('-').unwrap_or(word);
    let plain = digits.starts_with(|c: char| c.is_ascii_digit())
        && digits.bytes().all(|b| b.is_ascii_digit() || b == b'.')
        && word.len() <= MAX_NUMBER_CHARS;
    plain.then(|| word.parse().ok()).flatten()
}

/// What may stand between numbers, full-width forms included.
pub fn is_separator(character: char) -> bool {
    character.is_whitespace() || matches!(character, ',' | ';' | '\u{ff0c}' | '\u{3001}')
}

pub fn is_bracket(character: char) -> bool {
    is_open(character) || is_close(character)
}

pub fn is_open(character: char) -> bool {
    matches!(character, '(' | '[' | '\u{ff08}')
}

pub fn is_close(character: char) -> bool {
    matches!(character, ')' | ']' | '\u{ff09}')
}
