//! Java's modified UTF-8: U+0000 as `C0 80`, characters above U+FFFF as two surrogates of three bytes each.

use std::borrow::Cow;

/// What is wrong, and at which byte of the string.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub at: usize,
    pub what: &'static str,
}

/// The text of `bytes`, borrowed where the two encodings agree.
pub(super) fn decode(bytes: &[u8]) -> Result<Cow<'_, str>, Problem> {
    // UTF-8 has none of the surrogates and no `C0 80`; modified UTF-8 has no four-byte characters.
    if let Ok(text) = std::str::from_utf8(bytes)
        && !bytes.iter().any(|b| *b >= 0xf0)
    {
        return Ok(text.into());
    }
    let mut text = String::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let (first, length) = unit(bytes, at)?;
        let second = match first {
            0xd800..0xdc00 if at + length < bytes.len() => Some(unit(bytes, at + length)?),
            _ => None,
        };
        let (character, length) = match second {
            Some((low @ 0xdc00..0xe000, more)) => {
                (0x1_0000 + ((first - 0xd800) << 10) + (low - 0xdc00), length + more)
            }
            _ => (first, length),
        };
        let what = "half of a surrogate pair, which is no text";
        text.push(char::from_u32(character).ok_or(Problem { at, what })?);
        at += length;
    }
    Ok(text.into())
}

/// The UTF-16 code unit at `at` and its length in bytes.
fn unit(bytes: &[u8], at: usize) -> Result<(u32, usize), Problem> {
    let first = u32::from(bytes[at]);
    let length = match first {
        0x00..0x80 => return Ok((first, 1)),
        0xc0..0xe0 => 2,
        0xe0..0xf0 => 3,
        _ => return Err(Problem { at, what: "a byte that cannot start a character" }),
    };
    let mut unit = first & (0x7f >> length);
    for i in 1..length {
        match bytes.get(at + i) {
            None => return Err(Problem { at, what: "a character that is cut off" }),
            Some(byte) if byte & 0xc0 == 0x80 => unit = unit << 6 | u32::from(byte & 0x3f),
            Some(_) => return Err(Problem { at: at + i, what: "a byte that cannot continue a character" }),
        }
    }
    let overlong = match length {
        2 => unit != 0 && unit < 0x80,
        _ => unit < 0x800,
    };
    if overlong {
        return Err(Problem { at, what: "a character that is longer than it has to be" });
    }
    Ok((unit, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_character() {
        let cases: &[(&[u8], &str)] = &[
            (b"", ""),
            (b"plain", "plain"),
            (b"\x00", "\0"),
            (b"a\xc0\x80b", "a\0b"),
            (b"\xc4\xa0the", "\u{120}the"),
            (b"\xdf\xbf\xe0\xa0\x80\xef\xbf\xbf", "\u{7ff}\u{800}\u{ffff}"),
            (b"\xed\x9f\xbf\xee\x80\x80", "\u{d7ff}\u{e000}"),
            (b"\xed\xa0\xbd\xed\xb9\x82!", "\u{1f642}!"),
            (b"\xed\xa0\x80\xed\xb0\x80", "\u{10000}"),
            (b"\xed\xaf\xbf\xed\xbf\xbf", "\u{10ffff}"),
        ];
        for (bytes, want) in cases {
            assert_eq!(decode(bytes).unwrap(), *want, "{bytes:x?}");
        }
    }

    #[test]
    fn every_bad_sequence_with_its_place() {
        const START: &str = "a byte that cannot start a character";
        const NEXT: &str = "a byte that cannot continue a character";
        const CUT: &str = "a character that is cut off";
        const LONG: &str = "a character that is longer than it has to be";
        const HALF: &str = "half of a surrogate pair, which is no text";
        let cases: &[(&[u8], usize, &str)] = &[
            (b"ab\x80", 2, START),
            (b"\xbf", 0, START),
            (b"\xf0\x9f\x99\x82", 0, START),
            (b"\xff", 0, START),
            (b"a\xc3", 1, CUT),
            (b"a\xe3\x81", 1, CUT),
            (b"\xc3a", 1, NEXT),
            (b"\xe3\x81a", 2, NEXT),
            (b"\xe3\xc3\x81", 1, NEXT),
            (b"\xc1\x81", 0, LONG),
            (b"z\xc0\x81", 1, LONG),
            (b"\xe0\x80\x80", 0, LONG),
            (b"\xe0\x9f\xbf", 0, LONG),
            (b"a\xed\xa0\xbd", 1, HALF),
            (b"a\xed\xa0\xbdb", 1, HALF),
            (b"\xed\xb9\x82\xed\xa0\xbd", 0, HALF),
            (b"\xed\xa0\xbd\xed\xa0\xbd\xed\xb9\x82", 0, HALF),
            (b"\xed\xa0\xbd\xed\xb9", 3, CUT),
        ];
        for (bytes, at, what) in cases {
            assert_eq!(decode(bytes).unwrap_err(), Problem { at: *at, what }, "{bytes:x?}");
        }
    }
}
