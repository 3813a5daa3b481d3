//! Every stream of tests/golden/java-streams, written by a JDK.

use qwen2vl_spark_files::object_stream::{Limits, Parser, parse};
use qwen2vl_spark_files::{Error, Reason};
use qwen2vl_testkit::{golden, read_jsonl};
use serde::Deserialize;

use crate::tree::tree;

#[derive(Deserialize)]
struct Row {
    name: String,
    tree: Option<String>,
    refused: Option<String>,
    stream: String,
}

fn rows() -> Vec<Row> {
    read_jsonl(&golden("java-streams/streams.jsonl"))
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect()
}

/// All streams of the file; also a corpus for the property tests.
pub fn streams() -> Vec<Vec<u8>> {
    rows().iter().map(|row| bytes(&row.stream)).collect()
}

#[test]
fn trees_are_what_the_jdk_wrote() {
    let mut problems = Vec::new();
    let mut n_trees = 0;
    for row in rows() {
        let Some(want) = &row.tree else { continue };
        n_trees += 1;
        match parse(&bytes(&row.stream)) {
            Ok(value) if tree(&value) == *want => {}
            Ok(value) => problems.push(format!("{}:\n  got  {}\n  want {want}", row.name, tree(&value))),
            Err(e) => problems.push(format!("{}: {e}", row.name)),
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert_eq!(n_trees, 28);
}

fn is_refused_for(why: &str, error: &Error) -> bool {
    let unsupported =
        |kind: &str| matches!(&error.reason, Reason::Unsupported { what, .. } if what.contains(kind));
    match why {
        "nothing" => matches!(error.reason, Reason::Truncated { what: "a tag", needed: 1, left: 0 }),
        "trailing" => matches!(error.reason, Reason::Trailing { .. }),
        "block data" => {
            matches!(&error.reason, Reason::Tag { found, .. } if found.starts_with("TC_BLOCKDATA"))
        }
        "surrogate" => matches!(error.reason, Reason::Text { problem, .. } if problem.contains("surrogate")),
        "depth" => matches!(error.reason, Reason::Limit { limit: 128, .. }),
        "cycle" => matches!(error.reason, Reason::Cycle { .. }),
        "proxy" => unsupported("proxy"),
        "exception" => unsupported("exception"),
        "externalizable" => unsupported("externalizable"),
        _ => false,
    }
}

#[test]
fn what_cannot_be_read_is_refused_for_the_right_reason() {
    let mut problems = Vec::new();
    let mut n_refused = 0;
    for row in rows() {
        let Some(why) = &row.refused else { continue };
        n_refused += 1;
        match parse(&bytes(&row.stream)) {
            Err(e) if is_refused_for(why, &e) => {}
            Err(e) => problems.push(format!("{}: not for {why}: {e}", row.name)),
            Ok(value) => problems.push(format!("{}: not refused: {value:?}", row.name)),
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert_eq!(n_refused, 15);
}

#[test]
fn every_stream_cut_anywhere_is_refused() {
    for row in rows() {
        let stream = bytes(&row.stream);
        if row.tree.is_none() || row.name.starts_with("reset after") {
            continue;
        }
        for cut in 0..stream.len() {
            let error = parse(&stream[..cut]).expect_err("a cut stream is an error");
            assert!(matches!(error.reason, Reason::Truncated { .. }), "{} cut to {cut}: {error}", row.name);
            assert!(error.offset <= cut as u64, "{} cut to {cut}: {error}", row.name);
        }
    }
}

#[test]
fn deeper_streams_are_read_where_the_limit_allows() {
    let deep =
        rows().into_iter().filter(|row| row.name.starts_with("depth") || row.name.starts_with("a chain"));
    let mut limits = Limits::default();
    limits.max_depth = 400;
    let mut n_read = 0;
    for row in deep {
        let value = Parser::new(&bytes(&row.stream)).with_limits(limits).parse().unwrap();
        assert!(value.as_array().is_some_and(|array| !array.is_empty()));
        n_read += 1;
    }
    assert_eq!(n_read, 3);
}
