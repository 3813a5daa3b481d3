//! The way from the middle of an answer to an end of it, byte by byte: at each step the allowed byte that leads out of
//! what is open the soonest.
//!
//! Which byte that is, is a guess by rank. A guess may be wrong, so several rankings are tried by the caller, and
//! within one lexeme the shortest way is searched for where guessing fails.

use std::collections::{HashSet, VecDeque};
use std::time::Instant;

use llguidance::TokenParser;
use llguidance::toktrie::Recognizer;

use crate::engine::Vocabulary;

/// Where in JSON's own syntax an answer stands; for other formats it stays outside of strings.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lexical {
    pub json: bool,
    in_string: bool,
    escaped: bool,
    /// Characters of the number that is being written, and of its exponent.
    number: u8,
    exponent: u8,
}

impl Lexical {
    pub fn new(json: bool) -> Self {
        Self { json, in_string: false, escaped: false, number: 0, exponent: 0 }
    }

    pub fn push(&mut self, byte: u8) {
        if !self.json {
            return;
        }
        match byte {
            _ if self.in_string => {}
            b'e' | b'E' if self.number > 0 => self.exponent = 1,
            b'0'..=b'9' | b'-' | b'+' | b'.' => {
                self.number = self.number.saturating_add(1);
                let more = self.exponent > 0 && byte.is_ascii_digit();
                self.exponent = self.exponent.saturating_add(u8::from(more));
            }
            _ => (self.number, self.exponent) = (0, 0),
        }
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' if self.in_string => self.escaped = true,
            b'"' => self.in_string = !self.in_string,
            _ => {}
        }
    }

    /// Whether these bytes write no number that programs cannot hold.
    pub fn are_numbers_short<'b>(mut self, bytes: impl IntoIterator<Item = &'b u8>) -> bool {
        bytes.into_iter().all(|&byte| {
            self.push(byte);
            self.number <= MAX_NUMBER && self.exponent <= MAX_EXPONENT
        })
    }

    pub fn push_all(mut self, bytes: &[u8]) -> Self {
        bytes.iter().for_each(|&byte| self.push(byte));
        self
    }
}

/// Characters of a number without its `e`, and of its exponent, the `e` included and the sign not: so it stays far below the largest `f64`.
const MAX_NUMBER: u8 = 40;
const MAX_EXPONENT: u8 = 3;

/// How the allowed bytes are ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ranking {
    /// Closing brackets, quotes, digits, letters, opening brackets.
    ClosersFirst,
    /// Closing brackets, then values by letters (`true`, `null`) and opened ones, which may be shorter.
    LettersFirst,
    /// As the first, but within a lexeme the shortest way is searched for.
    Search,
}

/// Where a walk gives up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub bytes: usize,
    pub until: Option<Instant>,
}

/// States that are looked at on the way through one lexeme.
const MAX_STATES: usize = 20_000;

pub(crate) struct Walk<'a> {
    pub vocabulary: &'a Vocabulary,
    pub parser: &'a mut TokenParser,
    pub lexical: Lexical,
    pub ranking: Ranking,
    /// How often each byte was used.
    used: [u32; 256],
    bytes: Vec<u8>,
}

impl<'a> Walk<'a> {
    pub fn new(
        vocabulary: &'a Vocabulary,
        parser: &'a mut TokenParser,
        lexical: Lexical,
        ranking: Ranking,
    ) -> Self {
        Self { vocabulary, parser, lexical, ranking, used: [0; 256], bytes: Vec::new() }
    }

    /// Goes to the nearest end; the bytes up to it.
    pub fn run(mut self, limits: &Limits) -> Option<Vec<u8>> {
        loop {
            if self.parser.is_accepting() {
                return Some(self.bytes);
            }
            let late = self.bytes.len() % 64 == 63 && limits.until.is_some_and(|end| Instant::now() > end);
            if self.bytes.len() >= limits.bytes || late {
                return None;
            }
            let forced = self.parser.parser.currently_forced_bytes().to_vec();
            if !forced.is_empty() {
                self.take(&forced)?;
                continue;
            }
            if self.ranking == Ranking::Search && (!self.lexical.json || self.lexical.in_string) {
                // Without a way, as where a backslash has to come, guessing goes on.
                let way = self.through_lexeme().unwrap_or_default();
                if !way.is_empty() {
                    self.take(&way)?;
                    continue;
                }
            }
            let next = self.best()?;
            self.take(&[next])?;
        }
    }

    fn take(&mut self, bytes: &[u8]) -> Option<()> {
        for &byte in bytes {
            let token = self.vocabulary.byte_tokens[usize::from(byte)];
            if self.parser.consume_token(token).ok()? != 0 {
                return None;
            }
            self.used[usize::from(byte)] += 1;
            self.lexical.push(byte);
            self.bytes.push(byte);
        }
        Some(())
    }

    /// The allowed byte of the first rank.
    fn best(&mut self) -> Option<u8> {
        let mut order: Vec<u8> = (0..=0xFE).collect();
        order.sort_by_key(|&byte| self.rank(byte));
        self.parser.parser.with_recognizer(|recognizer| {
            recognizer.trie_started("best");
            let best = order.into_iter().find(|&byte| recognizer.byte_allowed(byte));
            recognizer.trie_finished();
            best
        })
    }

    /// The lower the sooner. Outside of JSON's structure a byte's rank grows with its use, so that no loop goes on.
    fn rank(&self, byte: u8) -> (u32, u32) {
        let used = self.used[usize::from(byte)];
        if self.lexical.in_string {
            // The quote ends the string; backslashes only lead away from it.
            return match byte {
                b'"' if !self.lexical.escaped => (0, 0),
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => (1, used),
                b' '..=b'~' if byte != b'\\' => (2, used),
                _ => (3, used),
            };
        }
        let letters = self.ranking == Ranking::LettersFirst;
        let class = match byte {
            b'}' | b']' | b')' | b'>' => 0,
            b',' => 1,
            b'"' | b'\'' => 3,
            b'0'..=b'9' => 5,
            b'a'..=b'z' | b'A'..=b'Z' => {
                if letters {
                    2
                } else {
                    6
                }
            }
            b'[' => {
                if letters {
                    2
                } else {
                    7
                }
            }
            b'{' | b'(' | b'<' => 8,
            b' '..=b'~' => 9,
            b'\t'..=b'\r' => 10,
            _ => 11,
        };
        if self.lexical.json { (class, used) } else { (used, class) }
    }

    /// The shortest way to where the lexeme may end, or the string's quote may come; empty if that is here.
    fn through_lexeme(&mut self) -> Option<Vec<u8>> {
        let json = self.lexical.json;
        if self.lexical.escaped {
            return Some(Vec::new());
        }
        self.parser.parser.with_recognizer(|recognizer| {
            recognizer.trie_started("search");
            let mut depth = 0;
            let mut seen = HashSet::new();
            // The ways found so far, as links from a byte to the one before it.
            let mut ways: Vec<(usize, u8)> = Vec::new();
            let mut queue = VecDeque::from([None]);
            let mut found = None;
            seen.insert(recognizer.lexer_state());
            while let Some(last) = queue.pop_front() {
                recognizer.pop_bytes(depth);
                let way = spell(&ways, last);
                depth = push(recognizer, &way);
                if depth < way.len() {
                    // The lexer's own limits are reached.
                    break;
                }
                let state = recognizer.lexer_state();
                let ends = if json {
                    recognizer.byte_allowed(b'"')
                } else {
                    !recognizer.lexer_mut().try_lexeme_end(state).is_error()
                };
                if ends {
                    found = Some(way);
                    break;
                }
                for byte in (b' '..=0xFE).chain(0..b' ').filter(|byte| !(json && *byte == b'\\')) {
                    if seen.len() > MAX_STATES || !recognizer.try_push_byte(byte) {
                        continue;
                    }
                    if seen.insert(recognizer.lexer_state()) {
                        ways.push((last.unwrap_or(usize::MAX), byte));
                        queue.push_back(Some(ways.len() - 1));
                    }
                    recognizer.pop_bytes(1);
                }
            }
            recognizer.pop_bytes(depth);
            recognizer.trie_finished();
            found
        })
    }
}

/// Pushes bytes until one is not allowed; how many were.
pub(crate) fn push(recognizer: &mut impl Recognizer, bytes: &[u8]) -> usize {
    bytes.iter().take_while(|&&byte| recognizer.try_push_byte(byte)).count()
}

fn spell(ways: &[(usize, u8)], last: Option<usize>) -> Vec<u8> {
    let mut way = Vec::new();
    let mut at = last.unwrap_or(usize::MAX);
    while let Some(&(before, byte)) = ways.get(at) {
        way.push(byte);
        at = before;
    }
    way.reverse();
    way
}
