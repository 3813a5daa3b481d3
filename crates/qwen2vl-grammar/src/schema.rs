//! A look at a JSON schema before llguidance reads it: limits, and contradictions by their place.

use serde_json::{Map, Value};

use crate::Error;

/// The deepest nesting of a schema.
const MAX_DEPTH: usize = 64;
/// The most values in a schema.
const MAX_VALUES: usize = 50_000;
/// The largest number of characters, items or properties that a schema may demand.
const MAX_COUNT: f64 = 10_000.0;

/// Keywords whose values are data and no schemas.
const DATA: [&str; 5] = ["const", "enum", "default", "examples", "required"];
/// Keywords that hold schemas by names that are no keywords.
const BY_NAME: [&str; 4] = ["properties", "patternProperties", "$defs", "definitions"];

/// A schema that is an object, in which no contradiction was found.
pub(crate) fn check(schema: &Value) -> Result<Value, Error> {
    let at_root = |reason: &str| Error::Schema { at: "#".to_owned(), reason: reason.to_owned() };
    let object = match schema {
        Value::Object(object) => object.clone(),
        Value::Bool(true) => Map::new(),
        Value::Bool(false) => {
            let reason = "the schema false allows no value".to_owned();
            return Err(Error::Impossible { format: "JSON schema", reason });
        }
        _ => return Err(at_root("a schema is an object, true or false")),
    };
    if object.contains_key("x-guidance") {
        return Err(at_root("x-guidance is not supported: white space is fixed"));
    }
    let mut values = 0;
    count(schema, 0, &mut values)?;
    look(&object, "#")?;
    let mut object = object;
    tighten(&mut object);
    Ok(Value::Object(object))
}

/// Counts values and depth. Recursion ends at the limit; `serde_json` has one of its own for texts.
fn count(value: &Value, depth: usize, values: &mut usize) -> Result<(), Error> {
    *values += 1;
    let too_large = |what, limit| Err(Error::TooLarge { what, got: limit + 1, limit });
    if depth > MAX_DEPTH {
        return too_large("JSON schema's nesting", MAX_DEPTH);
    }
    if *values > MAX_VALUES {
        return too_large("number of values in the JSON schema", MAX_VALUES);
    }
    match value {
        Value::Object(object) => object.values().try_for_each(|v| count(v, depth + 1, values)),
        Value::Array(items) => items.iter().try_for_each(|v| count(v, depth + 1, values)),
        _ => Ok(()),
    }
}

fn look(schema: &Map<String, Value>, at: &str) -> Result<(), Error> {
    contradictions(schema, at)?;
    for (key, value) in schema {
        let below = format!("{at}/{key}");
        match value {
            _ if DATA.contains(&key.as_str()) => {}
            Value::Object(named) if BY_NAME.contains(&key.as_str()) => {
                for (name, value) in named {
                    if let Value::Object(inner) = value {
                        look(inner, &format!("{below}/{name}"))?;
                    }
                }
            }
            Value::Object(inner) => look(inner, &below)?,
            Value::Array(items) => {
                for (i, item) in items.iter().enumerate() {
                    if let Value::Object(inner) = item {
                        look(inner, &format!("{below}/{i}"))?;
                    }
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Makes schemas as narrow as validators take them where llguidance is wider, and gives Rust's number formats, which it
/// does not know, their ranges.
fn tighten(schema: &mut Map<String, Value>) {
    if let Some(Value::String(format)) = schema.get("format") {
        let format = format.clone();
        if let Some((least, most)) = number_range(&format) {
            schema.remove("format");
            let ranges = [("minimum", "exclusiveMinimum", least), ("maximum", "exclusiveMaximum", most)];
            for (key, other, value) in ranges {
                if let Some(value) = value
                    && !schema.contains_key(key)
                    && !schema.contains_key(other)
                {
                    schema.insert(key.to_owned(), value.into());
                }
            }
        }
        if let Some(pattern) = narrower(&format) {
            schema.entry("pattern").or_insert_with(|| pattern.into());
        }
        if let Some(longest) = longest(&format) {
            let given = schema.get("maxLength").and_then(Value::as_u64);
            schema.insert("maxLength".to_owned(), given.map_or(longest, |given| given.min(longest)).into());
        }
    }
    if let Some(Value::String(pattern)) = schema.get_mut("pattern") {
        *pattern = with_dots_of_lines(pattern);
    }
    for (key, value) in schema.iter_mut().filter(|(key, _)| !DATA.contains(&key.as_str())) {
        match value {
            Value::Object(named) if BY_NAME.contains(&key.as_str()) => {
                named.values_mut().filter_map(Value::as_object_mut).for_each(tighten);
            }
            Value::Object(inner) => tighten(inner),
            Value::Array(items) => items.iter_mut().filter_map(Value::as_object_mut).for_each(tighten),
            _ => {}
        }
    }
}

/// A pattern whose dots match within a line as JSON Schema's regexes see lines; llguidance's end at `\n` alone.
fn with_dots_of_lines(pattern: &str) -> String {
    let mut text = String::with_capacity(pattern.len());
    let (mut escaped, mut in_class) = (false, false);
    for c in pattern.chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '[' => in_class = true,
            ']' => in_class = false,
            '.' if !in_class => {
                text.push_str("[^\\n\\r\u{2028}\u{2029}]");
                continue;
            }
            _ => {}
        }
        text.push(c);
    }
    text
}

/// The largest integer up to which every one is an `f64`.
const SAFE: i64 = (1 << 53) - 1;

/// The range of a number format of schemars, `None` inside where JSON itself has none.
fn number_range(format: &str) -> Option<(Option<i64>, Option<i64>)> {
    let bits = |n: u32| (1i64 << n) - 1;
    Some(match format {
        "float" | "double" => (None, None),
        "int8" => (Some(-bits(7) - 1), Some(bits(7))),
        "int16" => (Some(-bits(15) - 1), Some(bits(15))),
        "int32" => (Some(-bits(31) - 1), Some(bits(31))),
        "int64" | "int128" | "int" => (Some(-SAFE), Some(SAFE)),
        "uint8" => (Some(0), Some(bits(8))),
        "uint16" => (Some(0), Some(bits(16))),
        "uint32" => (Some(0), Some(bits(32))),
        "uint64" | "uint128" | "uint" => (Some(0), Some(SAFE)),
        _ => return None,
    })
}

/// What llguidance's own regex of a format leaves out: the 29th of February in leap years alone, no leap seconds.
fn narrower(format: &str) -> Option<&'static str> {
    match format {
        "date" => Some(DATE),
        "time" => Some("^[0-9]{2}:[0-9]{2}:[0-5]"),
        "date-time" => Some(DATE_TIME),
        _ => None,
    }
}

/// The longest text that validators take for a format.
fn longest(format: &str) -> Option<u64> {
    match format {
        // Of the part before the @ already, which no pattern of llguidance's counts.
        "email" => Some(64),
        "hostname" => Some(253),
        _ => None,
    }
}

macro_rules! date {
    ($behind:literal) => {
        concat!(
            "^(?:[0-9]{4}-(?:0[13-9]|1[0-2])-[0-9]{2}|[0-9]{4}-02-(?:[01][0-9]|2[0-8])|",
            "(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)-02-29)",
            $behind
        )
    };
}

const DATE: &str = date!("$");
const DATE_TIME: &str = date!("[tT][0-9]{2}:[0-9]{2}:[0-5]");

/// Limits that exclude each other; llguidance would leave out an optional property that has them.
fn contradictions(schema: &Map<String, Value>, at: &str) -> Result<(), Error> {
    let bad = |reason: String| Err(Error::Schema { at: at.to_owned(), reason });
    let number = |key: &str| schema.get(key).and_then(Value::as_f64);
    for (low, high) in [
        ("minLength", "maxLength"),
        ("minItems", "maxItems"),
        ("minProperties", "maxProperties"),
        ("minimum", "maximum"),
    ] {
        if let (Some(least), Some(most)) = (number(low), number(high))
            && least > most
        {
            return bad(format!("{low} is {least} and {high} is {most}: nothing fits between them"));
        }
    }
    for key in ["minLength", "minItems", "minProperties"] {
        if let Some(least) = number(key).filter(|least| *least > MAX_COUNT) {
            return bad(format!("{key} is {least}, at most {MAX_COUNT} are supported"));
        }
    }
    if schema.get("enum").is_some_and(|values| values.as_array().is_some_and(Vec::is_empty)) {
        return bad("enum is empty: no value is allowed".to_owned());
    }
    for key in ["anyOf", "oneOf"] {
        if schema.get(key).is_some_and(|options| options.as_array().is_some_and(Vec::is_empty)) {
            return bad(format!("{key} is empty: no value is allowed"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_of_patterns_end_at_line_ends_of_any_kind() {
        let dot = "[^\\n\\r\u{2028}\u{2029}]";
        for (pattern, want) in [
            ("^a.*$", format!("^a{dot}*$")),
            (r"\.[.\]]\\.", format!(r"\.[.\]]\\{dot}")),
            ("x", "x".to_owned()),
        ] {
            assert_eq!(with_dots_of_lines(pattern), want);
        }
    }
}
