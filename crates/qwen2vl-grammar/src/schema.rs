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
