//! Columns of a table in a prompt: `Is this a {category}?`

use serde_json::{Map, Value};

/// A row's other fields.
pub type Columns = Map<String, Value>;

/// The prompt with each `{column}` replaced by the row's value: texts as they are, everything else as JSON. `{{name}}`
/// stands for `{name}`; other braces, as of JSON, are left alone.
pub fn fill(prompt: &str, columns: &Columns) -> Result<String, String> {
    let mut filled = String::with_capacity(prompt.len());
    let mut rest = prompt;
    while let Some(start) = rest.find('{') {
        let (before, from) = rest.split_at(start);
        filled += before;
        let doubled = from.starts_with("{{");
        let inside = &from[if doubled { 2 } else { 1 }..];
        let name =
            &inside[..inside.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(inside.len())];
        let closing = if doubled { "}}" } else { "}" };
        let after = inside[name.len()..].strip_prefix(closing);
        match after.filter(|_| !name.is_empty() && !name.starts_with(|c: char| c.is_ascii_digit())) {
            Some(after) => {
                match (doubled, columns.get(name)) {
                    (true, _) => filled += &format!("{{{name}}}"),
                    (false, Some(Value::String(text))) => filled += text,
                    (false, Some(value)) => filled += &value.to_string(),
                    (false, None) => return Err(unknown(name, columns)),
                }
                rest = after;
            }
            None => {
                filled.push('{');
                rest = &from[1..];
            }
        }
    }
    Ok(filled + rest)
}

fn unknown(name: &str, columns: &Columns) -> String {
    let has = match columns.is_empty() {
        true => "the row has none".to_owned(),
        false => format!("the row has {}", columns.keys().map(String::as_str).collect::<Vec<_>>().join(", ")),
    };
    format!("the prompt names the column {{{name}}}, {has}; write {{{{{name}}}}} for the braces themselves")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_are_filled_in_and_other_braces_stay() {
        let columns = json!({ "category": "cat", "n": 3, "tags": ["a"], "größe": "é", "none": null });
        let columns = columns.as_object().unwrap();
        for (prompt, want) in [
            ("Is this a {category}?", "Is this a cat?"),
            ("{n} of {category}s {tags} {größe} {none}", "3 of cats [\"a\"] é null"),
            ("{category}{category}", "catcat"),
            ("no columns", "no columns"),
            ("{{category}} and {{other}}", "{category} and {other}"),
            (
                r#"Answer {"name": 1, "b": {}} { category } {1} {"#,
                r#"Answer {"name": 1, "b": {}} { category } {1} {"#,
            ),
        ] {
            assert_eq!(fill(prompt, columns).as_deref(), Ok(want), "{prompt}");
        }
    }

    #[test]
    fn a_column_that_is_not_there_is_named_with_those_that_are() {
        let columns = json!({ "a": 1, "b": 2 });
        let error = fill("Is it {c}?", columns.as_object().unwrap()).unwrap_err();
        assert!(error.contains("{c}") && error.contains("has a, b") && error.contains("{{c}}"), "{error}");
        assert!(fill("{c}", &Columns::new()).unwrap_err().contains("has none"));
    }
}
