//! What a server's answer to a request for the rest of a file means.

use ureq::http::{HeaderMap, StatusCode};

use super::Note;
use crate::http::header;

/// What follows in the body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// The file from its first byte.
    Beginning { total_bytes: Option<u64> },
    /// What was asked for.
    Rest,
    /// Another file than the one that was begun.
    Different { why: String },
    /// What no server should answer.
    Nonsense { what: String },
}

/// Reads the answer to a request for the bytes from `offset` on of the file that `note` tells of.
pub(super) fn read(status: StatusCode, headers: &HeaderMap, offset: u64, note: &Note) -> Answer {
    match status {
        StatusCode::PARTIAL_CONTENT if offset > 0 => rest(headers, offset, note),
        StatusCode::RANGE_NOT_SATISFIABLE if offset > 0 => {
            Answer::Different { why: "the server has no more of the file that was begun".to_owned() }
        }
        StatusCode::OK => match encoding(headers) {
            Some(encoding) if !encoding.eq_ignore_ascii_case("gzip") => Answer::Nonsense {
                what: format!("the content encoding {encoding:?}, which was not asked for"),
            },
            _ => Answer::Beginning { total_bytes: length(headers) },
        },
        _ => Answer::Nonsense { what: format!("status {status} to a plain request") },
    }
}

/// The length of the body, unless it is encoded.
fn length(headers: &HeaderMap) -> Option<u64> {
    header(headers, "content-length").filter(|_| encoding(headers).is_none())?.parse().ok()
}

fn encoding(headers: &HeaderMap) -> Option<&str> {
    header(headers, "content-encoding").filter(|e| !e.eq_ignore_ascii_case("identity"))
}

fn rest(headers: &HeaderMap, offset: u64, note: &Note) -> Answer {
    if encoding(headers).is_some() {
        return Answer::Different { why: "the server compresses the rest of the file".to_owned() };
    }
    let Some(given) = header(headers, "content-range") else {
        return Answer::Different { why: "the server does not say which part it sends".to_owned() };
    };
    let Some(range) = Range::parse(given) else {
        return Answer::Different { why: format!("the server sends a part that cannot be: {given:?}") };
    };
    if range.first != offset {
        return Answer::Different {
            why: format!("the server sends {given:?} instead of the part from {offset}"),
        };
    }
    if let Some(why) = changed(headers, range.total, note) {
        return Answer::Different { why };
    }
    let sent = range.last - range.first + 1;
    if length(headers).is_some_and(|length| length != sent) {
        return Answer::Different { why: format!("the server announces another length than {given:?}") };
    }
    // A server may cut a range short: that the file is not whole then is seen at the end.
    Answer::Rest
}

fn changed(headers: &HeaderMap, total: Option<u64>, note: &Note) -> Option<String> {
    let differs = |name: &str, before: &Option<String>| {
        let now = header(headers, name);
        now.is_some() && before.is_some() && now != before.as_deref()
    };
    let lengths = total.is_some() && note.total_bytes.is_some() && total != note.total_bytes;
    (lengths || differs("etag", &note.etag) || differs("last-modified", &note.last_modified))
        .then(|| "the file changed on the server".to_owned())
}

/// `bytes FIRST-LAST/TOTAL`, or `*` for a total that is not known.
struct Range {
    first: u64,
    last: u64,
    total: Option<u64>,
}

impl Range {
    fn parse(text: &str) -> Option<Self> {
        let (range, total) = text.strip_prefix("bytes")?.trim().split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        let total = match total.trim() {
            "*" => None,
            total => Some(total.parse().ok()?),
        };
        let possible = first <= last && last < total.unwrap_or(u64::MAX);
        possible.then_some(Self { first, last, total })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ureq::http::{HeaderName, HeaderValue};

    use super::*;

    fn note() -> Note {
        let etag = Some("\"a\"".to_owned());
        Note { url: "u".to_owned(), etag, last_modified: None, total_bytes: Some(100) }
    }

    fn answer(status: u16, headers: &[(&'static str, &str)]) -> Answer {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let value = HeaderValue::from_str(value).expect("a header");
            map.insert(HeaderName::from_static(name), value);
        }
        read(StatusCode::from_u16(status).expect("a status"), &map, 40, &note())
    }

    #[test]
    fn only_the_right_rest_of_the_same_file_is_gone_on_with() {
        let kind = |answer: &Answer| match answer {
            Answer::Beginning { total_bytes: Some(_) } => "beginning",
            Answer::Beginning { total_bytes: None } => "beginning of unknown length",
            Answer::Rest => "rest",
            Answer::Different { .. } => "different",
            Answer::Nonsense { .. } => "nonsense",
        };
        type Case = (u16, &'static [(&'static str, &'static str)], &'static str);
        let cases: &[Case] = &[
            (206, &[("content-range", "bytes 40-99/100")], "rest"),
            (
                206,
                &[("content-range", "bytes 40-99/100"), ("etag", "\"a\""), ("content-length", "60")],
                "rest",
            ),
            (206, &[("content-range", "bytes 40-69/100"), ("content-length", "30")], "rest"),
            (206, &[("content-range", "bytes 40-99/*")], "rest"),
            (206, &[("content-range", "bytes 40-99/100"), ("etag", "\"b\"")], "different"),
            (206, &[("content-range", "bytes 40-99/100"), ("content-length", "61")], "different"),
            (206, &[("content-range", "bytes 40-99/100"), ("content-encoding", "gzip")], "different"),
            (206, &[("content-range", "bytes 40-109/110")], "different"),
            (206, &[("content-range", "bytes 0-99/100")], "different"),
            (206, &[("content-range", "bytes 41-99/100")], "different"),
            (206, &[("content-range", "bytes 40-100/100")], "different"),
            (206, &[("content-range", "bytes 99-40/100")], "different"),
            (206, &[("content-range", "bytes 18446744073709551616-1/2")], "different"),
            (206, &[], "different"),
            (416, &[("content-range", "bytes */40")], "different"),
            (416, &[("content-range", "bytes */100")], "different"),
            (416, &[], "different"),
            (200, &[("content-length", "100")], "beginning"),
            (200, &[("content-length", "100"), ("content-encoding", "gzip")], "beginning of unknown length"),
            (200, &[], "beginning of unknown length"),
            (200, &[("content-encoding", "br")], "nonsense"),
            (204, &[], "nonsense"),
        ];
        for (status, headers, want) in cases {
            let got = answer(*status, headers);
            assert_eq!(kind(&got), *want, "{status} {headers:?}: {got:?}");
        }
    }

    proptest! {
        #[test]
        fn any_range_is_read_without_panic(text in "(bytes )?[0-9*/ -]{0,50}") {
            if let Some(range) = Range::parse(&text) {
                prop_assert!(range.first <= range.last && range.total.is_none_or(|t| range.last < t));
            }
        }
    }
}
