//! Texts that end an answer. Works on the deltas of the detokenizer, so that nothing is handed on that a stop string
//! might still begin with: what was handed on is never taken back.
//!
//! The stop string that ends first counts, of those that end together the longest; so the answer does not depend on
//! how tokens cut the text.

use std::ops::ControlFlow;

/// Passes text on until a stop string comes.
#[derive(Debug, Clone)]
pub(crate) struct StopStrings<'s> {
    /// Not empty, each.
    stops: &'s [String],
    /// The end of the text so far that may be the beginning of a stop string.
    held: String,
    found: bool,
}

impl<'s> StopStrings<'s> {
    /// None of `stops` may be empty.
    pub fn new(stops: &'s [String]) -> Self {
        Self { stops, held: String::new(), found: false }
    }

    /// Whether a stop string came.
    pub fn found(&self) -> bool {
        self.found
    }

    /// Takes the next text; what is certain now goes to `emit`. Breaks when a stop string came, or when `emit` does.
    pub fn push(&mut self, text: &str, mut emit: impl FnMut(&str) -> ControlFlow<()>) -> ControlFlow<()> {
        if self.found {
            return ControlFlow::Break(());
        }
        if self.stops.is_empty() {
            return emit(text);
        }
        self.held.push_str(text);
        if let Some(start) = self.first() {
            self.found = true;
            self.held.truncate(start);
            let _ = self.finish(emit);
            return ControlFlow::Break(());
        }
        let certain = self.certain();
        if certain == 0 {
            return ControlFlow::Continue(());
        }
        let flow = emit(&self.held[..certain]);
        self.held.drain(..certain);
        flow
    }

    /// Ends the text: what was held back goes to `emit`.
    pub fn finish(&mut self, mut emit: impl FnMut(&str) -> ControlFlow<()>) -> ControlFlow<()> {
        let held = std::mem::take(&mut self.held);
        if held.is_empty() { ControlFlow::Continue(()) } else { emit(&held) }
    }

    /// Where the stop string starts that ends first.
    fn first(&self) -> Option<usize> {
        let found = self.stops.iter().filter_map(|s| self.held.find(s.as_str()).map(|at| (at + s.len(), at)));
        found.min().map(|(_, start)| start)
    }

    /// Bytes that no stop string can begin in.
    fn certain(&self) -> usize {
        let may_begin = |tail: &str| self.stops.iter().any(|s| s.starts_with(tail));
        let longest = self.stops.iter().map(String::len).max().unwrap_or(0);
        let starts = self.held.char_indices().map(|(at, _)| at);
        starts
            .filter(|at| self.held.len() - at < longest)
            .find(|at| may_begin(&self.held[*at..]))
            .unwrap_or(self.held.len())
    }
}

/// A whole text up to the stop string that ends first.
pub(crate) fn before_stop_string(stops: &[String], text: &str) -> String {
    let mut kept = String::new();
    let mut emit = |delta: &str| {
        kept.push_str(delta);
        ControlFlow::Continue(())
    };
    let mut stream = StopStrings::new(stops);
    let _ = stream.push(text, &mut emit);
    let _ = stream.finish(&mut emit);
    kept
}

#[cfg(test)]
mod tests {
    use qwen2vl_testkit::check_all;

    use super::*;

    /// The text that is handed on, and whether a stop string came, with the text cut into pieces of `n` characters.
    fn run(stops: &[&str], text: &str, n: usize) -> (String, bool) {
        let stops: Vec<String> = stops.iter().map(|s| (*s).to_owned()).collect();
        let mut out = String::new();
        let mut stream = StopStrings::new(&stops);
        let characters: Vec<char> = text.chars().collect();
        let mut emit = |delta: &str| {
            assert!(!delta.is_empty());
            out.push_str(delta);
            ControlFlow::Continue(())
        };
        for piece in characters.chunks(n) {
            if stream.push(&piece.iter().collect::<String>(), &mut emit).is_break() {
                break;
            }
        }
        let _ = stream.finish(&mut emit);
        (out, stream.found())
    }

    #[test]
    fn the_text_before_the_first_stop_string_is_kept_however_it_is_cut() {
        let cases: Vec<(&[&str], &str, &str, bool)> = vec![
            (&[], "hello", "hello", false),
            (&["x"], "hello", "hello", false),
            (&["l"], "hello", "he", true),
            (&["lo"], "hello", "hel", true),
            (&["h"], "hello", "", true),
            (&["o!"], "hello", "hello", false),
            (&["aab"], "aaaab", "aa", true),
            (&["abcd", "bc"], "xabcd", "xa", true),
            (&["bcd", "abcd"], "xabcd", "x", true),
            (&["END", "\n\n"], "one\ntwo\n\nEND", "one\ntwo", true),
            (&["ß€"], "aß€b", "a", true),
            (&["€€"], "€a€", "€a€", false),
            (&["a much longer one than the text"], "a much", "a much", false),
        ];
        check_all(
            &cases,
            |c| format!("{:?} in {:?}", c.0, c.1),
            |(stops, text, want, found)| {
                for n in 1..=text.chars().count() {
                    let got = run(stops, text, n);
                    if got != ((*want).to_owned(), *found) {
                        return Err(format!("in pieces of {n}: {got:?}"));
                    }
                }
                let stops: Vec<String> = stops.iter().map(|s| (*s).to_owned()).collect();
                assert_eq!(before_stop_string(&stops, text), *want);
                Ok(())
            },
        );
    }

    #[test]
    fn only_what_may_begin_a_stop_string_is_held_back() {
        let stops = ["stop".to_owned()];
        let mut stream = StopStrings::new(&stops);
        let mut seen = Vec::new();
        for piece in ["a", "s", "t", "x", "sto", "p"] {
            let mut delta = String::new();
            let _ = stream.push(piece, |text| {
                delta.push_str(text);
                ControlFlow::Continue(())
            });
            seen.push(delta);
        }
        assert_eq!(seen, ["a", "", "", "stx", "", ""]);
        assert!(stream.found());
    }

    #[test]
    fn the_receiver_may_end_it() {
        let stops = ["x".to_owned()];
        let mut stream = StopStrings::new(&stops);
        assert!(stream.push("abc", |_| ControlFlow::Break(())).is_break());
        assert!(!stream.found());
    }
}
