//! One zip from a server that fails in every way it can, and the model that has to come out of it.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use qwen2vl_fetch::{Error, Trouble};

use crate::server::{Resource, Seen, Server, answer, head, stall};
use crate::{FULL, Place, ZIP_PATH, assert_is_annotator, fetch, fetch_told, model_zip};

/// How a server is bad.
type Behave = fn(&Resource, &Seen, &mut TcpStream);

struct Case {
    name: &'static str,
    behave: Behave,
    /// Where each request for the zip begins.
    froms: &'static [Option<usize>],
    /// A note that is given on the way.
    note: Option<&'static str>,
}

const A: usize = 300_000;
const B: usize = 700_000;

const CASES: &[Case] = &[
    Case { name: "a good one", behave: |r, s, out| r.send(s, out), froms: &[None], note: None },
    Case {
        name: "drops the connection twice",
        behave: |r, s, out| r.send_until(s, out, [A, B, usize::MAX][s.nth.min(2)]),
        froms: &[None, Some(A), Some(B)],
        note: Some("again: the connection ended after 300000 bytes of"),
    },
    Case {
        name: "drops many connections that each bring a little",
        behave: |r, s, out| r.send_until(s, out, (s.nth + 1) * 150_000),
        froms: &[
            None,
            Some(150_000),
            Some(300_000),
            Some(450_000),
            Some(600_000),
            Some(750_000),
            Some(900_000),
            Some(1_050_000),
        ],
        note: Some("again: the connection ended"),
    },
    Case {
        name: "ignores ranges",
        behave: |r, s, out| match s.nth {
            0 => r.send_until(s, out, A),
            _ => answer(out, "200 OK", &[("ETag", &r.etag)], &r.bytes),
        },
        froms: &[None, Some(A)],
        note: Some("from its beginning: starting over"),
    },
    Case {
        name: "sends another part than was asked for",
        behave: |r, s, out| match s.nth {
            0 => r.send_until(s, out, A),
            1 => r.send_part(out, A + 1, r.bytes.len()),
            _ => r.send(s, out),
        },
        froms: &[None, Some(A), None],
        note: Some("instead of the part from 300000: starting over"),
    },
    Case {
        name: "announces a part of another length than it sends",
        behave: |r, s, out| match s.nth {
            0 => r.send_until(s, out, A),
            1 => {
                let range = format!("bytes {A}-{}/{}", r.bytes.len() - 1, r.bytes.len());
                answer(out, "206 Partial Content", &[("Content-Range", &range)], &r.bytes[A..B]);
            }
            _ => r.send(s, out),
        },
        froms: &[None, Some(A), None],
        note: Some("announces another length"),
    },
    Case {
        name: "sends a part without saying which",
        behave: |r, s, out| match s.nth {
            0 => r.send_until(s, out, A),
            1 => answer(out, "206 Partial Content", &[("ETag", &r.etag)], &r.bytes[A..]),
            _ => r.send(s, out),
        },
        froms: &[None, Some(A), None],
        note: Some("does not say which part"),
    },
    Case {
        name: "says 416 in the middle",
        behave: |r, s, out| match s.nth {
            0 => r.send_until(s, out, A),
            1 => answer(out, "416 Range Not Satisfiable", &[], b""),
            _ => r.send(s, out),
        },
        froms: &[None, Some(A), None],
        note: Some("no more of the file that was begun: starting over"),
    },
    Case {
        name: "knows no versions",
        behave: |r, s, out| match s.nth {
            0 => {
                head(out, "200 OK", &[("Content-Length", &r.bytes.len().to_string())]);
                out.write_all(&r.bytes[..A]).ok();
            }
            _ => r.send(s, out),
        },
        froms: &[None, None],
        note: Some("nothing to tell versions apart by: starting over"),
    },
    Case {
        name: "knows weak versions and dates",
        behave: |r, s, out| {
            let (etag, date) = (format!("W/{}", r.etag), "Fri, 14 Feb 2025 01:10:09 GMT");
            let r = Resource { etag, ..r.clone() };
            match s.nth {
                0 => {
                    let length = r.bytes.len().to_string();
                    head(
                        out,
                        "200 OK",
                        &[("Content-Length", &length), ("ETag", &r.etag), ("Last-Modified", date)],
                    );
                    out.write_all(&r.bytes[..A]).ok();
                }
                _ if s.header("if-range") == Some(date) => r.send_part(out, A, r.bytes.len()),
                _ => answer(out, "400 Bad Request", &[], b""),
            }
        },
        froms: &[None, Some(A)],
        note: Some("again: the connection ended"),
    },
    Case {
        name: "sends chunks of unknown length",
        behave: |r, _, out| {
            head(out, "200 OK", &[("Transfer-Encoding", "chunked"), ("ETag", &r.etag)]);
            chunks(out, &r.bytes, true);
        },
        froms: &[None],
        note: None,
    },
    Case {
        name: "sends all chunks but the last, so that the end is not known",
        behave: |r, s, out| match s.nth {
            0 => {
                head(out, "200 OK", &[("Transfer-Encoding", "chunked"), ("ETag", &r.etag)]);
                chunks(out, &r.bytes, false);
            }
            _ => r.send(s, out),
        },
        froms: &[None, None],
        note: Some("nothing to tell versions apart by"),
    },
    Case {
        name: "compresses what nobody asked it to, and drops it",
        behave: |r, s, out| {
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            gzip.write_all(&r.bytes).unwrap();
            let bytes = gzip.finish().unwrap();
            let length = bytes.len().to_string();
            let headers =
                [("Content-Length", length.as_str()), ("ETag", &r.etag), ("Content-Encoding", "gzip")];
            head(out, "200 OK", &headers);
            out.write_all(&bytes[..if s.nth == 0 { A } else { bytes.len() }]).ok();
        },
        froms: &[None, None],
        note: Some("starting over"),
    },
    Case {
        name: "is broken, then is not",
        behave: |r, s, out| match s.nth {
            0 => answer(out, "500 Internal Server Error", &[], b"oh"),
            1 => answer(out, "503 Service Unavailable", &[], b"oh"),
            _ => r.send(s, out),
        },
        froms: &[None, None, None],
        note: Some("again: the server answers 503"),
    },
    Case {
        name: "has too much to do",
        behave: |r, s, out| match s.nth {
            0 => answer(out, "429 Too Many Requests", &[("Retry-After", "0")], b""),
            _ => r.send(s, out),
        },
        froms: &[None, None],
        note: Some("again: the server answers 429 and asks to come back after 0 s"),
    },
    Case {
        name: "says nothing",
        behave: |r, s, out| {
            if s.nth > 0 {
                r.send(s, out);
            }
        },
        froms: &[None, None],
        note: Some("again: the connection ended after 0 bytes"),
    },
    Case {
        name: "sends what is no HTTP",
        behave: |r, s, out| match s.nth {
            0 => out.write_all(b"\0\x01\x02 nothing that a browser knows\r\n\r\n").unwrap(),
            _ => r.send(s, out),
        },
        froms: &[None, None],
        note: Some("again: the server's answer makes no sense"),
    },
];

fn chunks(out: &mut TcpStream, bytes: &[u8], ended: bool) {
    for chunk in bytes.chunks(100_000) {
        write!(out, "{:x}\r\n", chunk.len()).ok();
        out.write_all(chunk).ok();
        out.write_all(b"\r\n").ok();
    }
    if ended {
        out.write_all(b"0\r\n\r\n").ok();
    }
}

#[test]
fn the_model_arrives_whole_whatever_the_server_does() {
    let mut failed = Vec::new();
    for Case { name, behave, froms, note } in CASES {
        let result = std::panic::catch_unwind(|| {
            let resource = Resource::new(model_zip(1), "v1");
            let length = resource.bytes.len();
            let behave = *behave;
            let server = Server::start(move |seen, out| behave(&resource, seen, out));
            let place = Place::new();
            let (fetched, notes) = fetch_told(place.options(&server.url()), FULL);
            let fetched = fetched.unwrap();
            assert_is_annotator(&place.model(), 1);
            assert_eq!(place.names(), [FULL]);
            assert_eq!((fetched.path, fetched.downloaded_bytes), (place.model(), Some(length as u64)));
            let want: Vec<Option<usize>> = froms.iter().map(|f| f.map(|f| f.min(length))).collect();
            assert_eq!(server.froms(ZIP_PATH), want);
            let told = note.is_none_or(|note| notes.iter().any(|n| n.contains(note)));
            assert!(told && (note.is_some() || notes.is_empty()), "{notes:?}");
        });
        if result.is_err() {
            failed.push(*name);
        }
    }
    assert!(failed.is_empty(), "a server that {failed:?}");
}

#[test]
fn a_file_that_changes_midway_is_never_mixed() {
    // With and without regard for If-Range.
    for heeds in [true, false] {
        let [old, new] = [(1, "old"), (2, "new")].map(|(seed, etag)| Resource::new(model_zip(seed), etag));
        let server = Server::start(move |seen, out| match (seen.nth, seen.from()) {
            (0, _) => old.send_until(seen, out, A),
            (_, Some(from)) if !heeds => new.send_part(out, from, new.bytes.len()),
            _ => new.send(seen, out),
        });
        let place = Place::new();
        let (fetched, notes) = fetch_told(place.options(&server.url()), FULL);
        assert_eq!(fetched.unwrap().resumed_from_bytes, 0);
        assert_is_annotator(&place.model(), 2);
        assert!(notes.iter().any(|n| n.contains("starting over")), "{notes:?}");
    }
}

#[test]
fn a_file_that_changes_all_the_time_is_given_up() {
    let server = Server::start(|seen, out| {
        let resource = Resource::new(model_zip(1), &format!("v{}", seen.nth));
        match seen.from() {
            Some(from) => resource.send_part(out, from, from + 10),
            None => resource.send_until(seen, out, A),
        }
    });
    let place = Place::new();
    let error = fetch(place.options(&server.url()), FULL).unwrap_err();
    assert!(matches!(error, Error::Download { trouble: Trouble::KeepsChanging, .. }), "{error}");
    assert!(server.seen().len() <= 12, "{}", server.seen().len());
}

#[test]
fn a_server_that_stalls_is_left_and_gone_on_from() {
    let resource = Resource::new(model_zip(1), "v1");
    let server = Server::start(move |seen, out| match seen.nth {
        0 => {
            resource.send_until(seen, out, A);
            stall(out);
        }
        1 => stall(out),
        _ => resource.send(seen, out),
    });
    let place = Place::new();
    let mut options = place.options(&server.url());
    options.time_outs.read = Duration::from_millis(150);
    options.time_outs.response = Duration::from_millis(150);
    let (fetched, notes) = fetch_told(options, FULL);
    fetched.unwrap();
    assert_is_annotator(&place.model(), 1);
    assert_eq!(server.froms(ZIP_PATH), [None, Some(A), Some(A)]);
    assert!(notes.iter().all(|n| n.contains("nothing came for 0.15 s")) && notes.len() == 2, "{notes:?}");
}

#[test]
fn redirects_are_followed_with_the_range() {
    let resource = Resource::new(model_zip(1), "v1");
    let storage = Server::start(move |seen, out| {
        resource.send_until(seen, out, if seen.nth == 0 { A } else { usize::MAX });
    });
    let target = format!("{}/blob?signature=a/b.zip", storage.url());
    let server = Server::start(move |_, out| answer(out, "302 Found", &[("Location", &target)], b""));
    let place = Place::new();
    fetch(place.options(&server.url()), FULL).unwrap();
    assert_is_annotator(&place.model(), 1);
    assert_eq!(storage.froms("/blob?signature=a/b.zip"), [None, Some(A)]);
    assert_eq!(server.seen().len(), 2);
}

#[test]
fn a_url_has_a_folder_of_its_own() {
    let resource = Resource::new(model_zip(1), "v1");
    let server = Server::start(move |seen, out| resource.send(seen, out));
    let place = Place::new();
    let url = |path: &str| format!("{}{path}", server.url());
    let first = fetch(place.options(&server.url()), &url("/a/model.zip?x=1")).unwrap();
    let second = fetch(place.options(&server.url()), &url("/b/model.zip")).unwrap();
    let published = fetch(place.options("http://127.0.0.1:1"), &url(&format!("/mirror{ZIP_PATH}"))).unwrap();
    assert!(first.name.starts_with("model-") && first.path != second.path);
    assert_eq!(published.path, place.model());
    assert!(fetch(place.options(&server.url()), &url("/b/model.zip")).unwrap().already_there);
    assert_eq!(server.seen().len(), 3);
}
