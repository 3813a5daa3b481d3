//! The formats that an answer can be asked to have, and how they are said to llguidance.

use std::collections::HashMap;

use llguidance::JsonCompileOptions;
use llguidance::api::TopLevelGrammar;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{Error, schema};

/// The longest regex and the longest grammar that are read, in bytes.
const MAX_TEXT_BYTES: usize = 1 << 18;
/// The most choices.
const MAX_CHOICES: usize = 10_000;
/// The longest choice, in bytes.
const MAX_CHOICE_BYTES: usize = 4096;

/// What an answer is to look like.
///
/// As JSON: `{"json_schema": {…}}`, `"json_object"`, `{"regex": "…"}`, `{"choice": ["…", …]}`, `{"lark": "…"}`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Format {
    /// JSON that is valid against a schema.
    JsonSchema(Value),
    /// Any JSON object.
    JsonObject,
    /// A text that a regex matches as a whole.
    Regex(String),
    /// One of several texts.
    Choice(Vec<String>),
    /// A text of a grammar in llguidance's variant of Lark, whose rule `start` is the answer.
    Lark(String),
}

impl Format {
    /// What it is called in messages.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::JsonSchema(_) | Self::JsonObject => "JSON schema",
            Self::Regex(_) => "regex",
            Self::Choice(_) => "list of choices",
            Self::Lark(_) => "grammar",
        }
    }

    pub(crate) fn is_json(&self) -> bool {
        matches!(self, Self::JsonSchema(_) | Self::JsonObject)
    }

    /// Checks what can be checked without a tokenizer, and says it in llguidance's words.
    pub(crate) fn to_llguidance(&self) -> Result<TopLevelGrammar, Error> {
        match self {
            Self::JsonSchema(value) => Ok(json_grammar(schema::check(value)?)),
            Self::JsonObject => Ok(json_grammar(json!({ "type": "object" }))),
            Self::Regex(regex) => {
                short_enough("regex's text, in bytes,", regex.len(), MAX_TEXT_BYTES)?;
                if regex.is_empty() {
                    return Err(Error::Regex { regex: String::new(), reason: "it is empty".to_owned() });
                }
                Ok(TopLevelGrammar::from_regex(regex))
            }
            Self::Choice(choices) => {
                check_choices(choices)?;
                let options: Vec<String> = choices.iter().map(|choice| escaped(choice)).collect();
                Ok(TopLevelGrammar::from_regex(&format!("({})", options.join("|"))))
            }
            Self::Lark(grammar) => {
                short_enough("grammar's text, in bytes,", grammar.len(), MAX_TEXT_BYTES)?;
                Ok(TopLevelGrammar::from_lark(grammar.clone()))
            }
        }
    }

    /// The error for what llguidance says of it.
    pub(crate) fn refused(&self, reason: String) -> Error {
        if reason.contains("Unsatisfiable") || reason.contains("unsatisfiable") {
            return Error::Impossible { format: self.name(), reason };
        }
        match self {
            Self::JsonSchema(_) | Self::JsonObject => Error::Schema { at: "#".to_owned(), reason },
            Self::Regex(regex) => Error::Regex { regex: regex.clone(), reason },
            Self::Choice(_) => Error::Choice { number: 1, reason },
            Self::Lark(_) => Error::Lark { reason },
        }
    }
}

/// A schema with white space as `json.dumps` writes it: one space behind `,` and `:`, none else.
fn json_grammar(mut schema: Value) -> TopLevelGrammar {
    let options = JsonCompileOptions {
        item_separator: ", ".to_owned(),
        key_separator: ": ".to_owned(),
        whitespace_flexible: false,
        ..JsonCompileOptions::default()
    };
    options.apply_to(&mut schema);
    TopLevelGrammar::from_json_schema(schema)
}

fn check_choices(choices: &[String]) -> Result<(), Error> {
    if choices.is_empty() {
        return Err(Error::NoChoices);
    }
    short_enough("list of choices", choices.len(), MAX_CHOICES)?;
    let mut seen = HashMap::new();
    for (choice, number) in choices.iter().zip(1..) {
        let bad = |reason: String| Error::Choice { number, reason };
        if choice.is_empty() {
            return Err(bad("empty: an answer has at least one character".to_owned()));
        }
        if choice.len() > MAX_CHOICE_BYTES {
            return Err(bad(format!("{} bytes long, the limit is {MAX_CHOICE_BYTES}", choice.len())));
        }
        if let Some(first) = seen.insert(choice, number) {
            return Err(bad(format!("{choice:?}, as choice {first} is: name each once")));
        }
    }
    Ok(())
}

fn short_enough(what: &'static str, got: usize, limit: usize) -> Result<(), Error> {
    if got > limit { Err(Error::TooLarge { what, got, limit }) } else { Ok(()) }
}

/// A regex that matches this text alone.
fn escaped(text: &str) -> String {
    let mut regex = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if r"\.+*?()|[]{}^$#&-~".contains(c) {
            regex.push('\\');
        }
        regex.push(c);
    }
    regex
}
