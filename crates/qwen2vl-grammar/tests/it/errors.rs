//! What no answer can have, and what is not understood: each is named, and nothing hangs.

use std::time::{Duration, Instant};

use qwen2vl_grammar::{Error, Format};
use serde_json::{Value, json};

use crate::run::{ENGINE, IM_END, VOCAB_SIZE, compile};

fn refused(format: &Format) -> Error {
    match compile(format) {
        Ok(grammar) => panic!("{format:?} has an answer of {} tokens", grammar.least_tokens()),
        Err(error) => error,
    }
}

#[test]
fn schemas_without_a_value_are_named_with_their_place() {
    let nested = |schema: Value| json!({ "type": "object", "properties": { "a": schema } });
    for (schema, names) in [
        (
            json!({ "type": "string", "minLength": 5, "maxLength": 2 }),
            &["#", "minLength is 5", "maxLength is 2"][..],
        ),
        (
            nested(json!({ "type": "array", "minItems": 3, "maxItems": 1 })),
            &["#/properties/a", "minItems is 3"],
        ),
        (json!({ "type": "integer", "minimum": 5, "maximum": 4 }), &["minimum is 5", "maximum is 4"]),
        (nested(json!({ "enum": [] })), &["#/properties/a", "enum is empty"]),
        (json!({ "anyOf": [] }), &["anyOf is empty"]),
        (json!(false), &["no answer", "false"]),
        (json!("string"), &["a schema is an object"]),
        (json!({ "allOf": [{ "type": "string" }, { "type": "integer" }] }), &["no answer", "nsatisfiable"]),
        (json!({ "type": "strin" }), &["JSON schema at #", "strin"]),
        (json!({ "type": "string", "format": "wibble" }), &["wibble"]),
        (json!({ "not": { "type": "string" } }), &["not"]),
        (json!({ "type": "string", "pattern": "(" }), &["JSON schema at #"]),
        (json!({ "$ref": "#/$defs/missing" }), &["missing"]),
        (json!({ "x-guidance": { "whitespace_flexible": true } }), &["x-guidance"]),
        (json!({ "type": "string", "minLength": 1_000_000 }), &["minLength is 1000000", "10000"]),
        (
            json!({ "type": "object", "required": ["a"], "properties": { "a": { "$ref": "#" } } }),
            &["no answer"],
        ),
    ] {
        let message = refused(&Format::JsonSchema(schema.clone())).to_string();
        assert!(names.iter().all(|name| message.contains(name)), "{schema}: {message}");
    }
}

#[test]
fn regexes_choices_and_grammars_are_checked() {
    let choices = |all: &[&str]| Format::Choice(all.iter().map(|&c| c.to_owned()).collect());
    for (format, names) in [
        (Format::Regex("(".to_owned()), &["the regex \"(\""][..]),
        (Format::Regex(String::new()), &["empty"]),
        (Format::Regex("a(?=b)".to_owned()), &["the regex"]),
        (Format::Regex("[^\\s\\S]".to_owned()), &["regex"]),
        (choices(&[]), &["empty", "at least one"]),
        (choices(&["a", ""]), &["choice 2 is empty"]),
        (choices(&["a", "b", "a"]), &["choice 3", "\"a\"", "choice 1"]),
        (Format::Lark("start: (".to_owned()), &["the grammar:"]),
        (Format::Lark("start: missing".to_owned()), &["the grammar:", "missing"]),
        (Format::Lark("start: start \"a\"".to_owned()), &["grammar"]),
        (Format::Lark(String::new()), &["the grammar:"]),
    ] {
        let message = refused(&format).to_string();
        assert!(names.iter().all(|name| message.contains(name)), "{format:?}: {message}");
        assert!(!message.contains("backtrace") && message.len() < 900, "{message}");
    }
}

#[test]
fn hostile_formats_end_soon() {
    let mut deep = json!({ "type": "string" });
    for _ in 0..100 {
        deep = json!({ "type": "array", "items": deep });
    }
    let many: serde_json::Map<String, Value> =
        (0..60_000).map(|i| (format!("p{i}"), json!({ "type": "string" }))).collect();
    // Each doubles the one before it.
    let mut doubling = serde_json::Map::new();
    doubling.insert("d0".to_owned(), json!({ "type": "string" }));
    for i in 1..40 {
        let before = json!({ "$ref": format!("#/$defs/d{}", i - 1) });
        let twice =
            json!({ "type": "array", "prefixItems": [before, before], "minItems": 2, "items": false });
        doubling.insert(format!("d{i}"), twice);
    }
    for format in [
        Format::JsonSchema(deep),
        Format::JsonSchema(json!({ "type": "object", "properties": many })),
        Format::JsonSchema(json!({ "$ref": "#/$defs/d39", "$defs": doubling })),
        Format::JsonSchema(json!({ "type": "string", "pattern": "((a{1,1000}){1,1000}){1,1000}b" })),
        Format::Regex("(a|b)*a(a|b){60}c".to_owned()),
        Format::Regex("x".repeat(1 << 19)),
        Format::Choice((0..20_000).map(|i| i.to_string()).collect()),
    ] {
        let started = Instant::now();
        let _ = compile(&format);
        assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
    }
}

#[test]
fn budgets_and_stop_tokens_are_checked_before_an_answer_starts() {
    let grammar = compile(&Format::Choice(vec!["yes and no".to_owned()])).unwrap();
    assert_eq!(grammar.least_tokens(), 3);
    let error = grammar.start(2, &[IM_END]).unwrap_err();
    assert_eq!(error, Error::Budget { needed: 3, max_new_tokens: 2 });
    assert!(error.to_string().contains("at least 3"), "{error}");
    assert_eq!(grammar.start(9, &[IM_END, 90]).unwrap_err(), Error::StopToken { id: 90 });
    assert!(grammar.start(3, &[IM_END]).is_ok());
    assert!(format!("{:?}", *ENGINE).contains(&VOCAB_SIZE.to_string()));
}
