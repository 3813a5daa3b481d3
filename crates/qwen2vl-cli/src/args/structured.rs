//! The form that answers must have, as flags: at most one.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Args;
use qwen2vl_pipeline::AnswerFormat;

#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Structured output")]
pub struct StructuredArgs {
    /// Answer in JSON that is valid against the schema in this file; where tokens run low it is closed in time, and
    /// "complete" is false in the rows of --format jsonl
    #[arg(long, value_name = "FILE", group = "structured", env = "QWEN2VL_JSON_SCHEMA")]
    pub json_schema: Option<PathBuf>,
    /// Answer with a JSON object
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", group = "structured",
        env = "QWEN2VL_JSON")]
    pub json: Option<bool>,
    /// Answer with a text that this regex matches as a whole
    #[arg(long, value_name = "RE", group = "structured", env = "QWEN2VL_REGEX")]
    pub regex: Option<String>,
    /// Answer with one of these texts, with commas between them; may be given several times
    #[arg(long, value_name = "TEXTS", value_delimiter = ',', group = "structured", env = "QWEN2VL_CHOICES")]
    pub choices: Option<Vec<String>>,
    /// Answer with a text of the grammar in this file: Lark as llguidance reads it, its rule `start` is the answer
    #[arg(long, value_name = "FILE", group = "structured", env = "QWEN2VL_GRAMMAR")]
    pub grammar: Option<PathBuf>,
}

impl StructuredArgs {
    /// The form that is asked for; reads its file.
    pub fn format(&self) -> Result<Option<AnswerFormat>> {
        let read = |path: &PathBuf| std::fs::read_to_string(path).with_context(|| path.display().to_string());
        let json = self.json == Some(true);
        let given = [
            self.json_schema.is_some(),
            json,
            self.regex.is_some(),
            self.choices.is_some(),
            self.grammar.is_some(),
        ];
        // clap lets variables pass beside flags.
        ensure!(
            given.into_iter().filter(|given| *given).count() <= 1,
            "only one of --json-schema, --json, --regex, --choices and --grammar can be asked for, their variables \
             included"
        );
        Ok(if let Some(path) = &self.json_schema {
            let schema = serde_json::from_str(&read(path)?);
            Some(AnswerFormat::JsonSchema(schema.with_context(|| path.display().to_string())?))
        } else if json {
            Some(AnswerFormat::JsonObject)
        } else if let Some(regex) = &self.regex {
            Some(AnswerFormat::Regex(regex.clone()))
        } else if let Some(choices) = &self.choices {
            Some(AnswerFormat::Choice(choices.clone()))
        } else if let Some(path) = &self.grammar {
            Some(AnswerFormat::Lark(read(path)?))
        } else {
            None
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        structured: StructuredArgs,
    }

    fn format(arguments: &[&str]) -> Result<Option<AnswerFormat>, String> {
        let flags = Flags::try_parse_from(std::iter::once(&"x").chain(arguments));
        flags.map_err(|e| e.to_string())?.structured.format().map_err(|e| format!("{e:#}"))
    }

    #[test]
    fn every_flag_gives_its_format() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, content: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, content).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let (schema, broken) = (file("schema.json", "{\"type\": \"null\"}"), file("broken.json", "{"));
        let grammar = file("a.lark", "start: \"a\"");
        let schema_value = serde_json::json!({ "type": "null" });
        let choices = AnswerFormat::Choice(vec!["a".to_owned(), "b c".to_owned()]);
        for (arguments, want) in [
            (&["--json-schema", &schema][..], Some(AnswerFormat::JsonSchema(schema_value))),
            (&["--json"], Some(AnswerFormat::JsonObject)),
            (&["--json", "false"], None),
            (&["--regex", "a+"], Some(AnswerFormat::Regex("a+".to_owned()))),
            (&["--choices", "a,b c"], Some(choices)),
            (&["--grammar", &grammar], Some(AnswerFormat::Lark("start: \"a\"".to_owned()))),
            (&[], None),
        ] {
            assert_eq!(format(arguments).unwrap(), want, "{arguments:?}");
        }
        assert!(format(&["--json-schema", &broken]).unwrap_err().contains("broken.json"));
        assert!(format(&["--grammar", "missing.lark"]).unwrap_err().contains("missing.lark"));
        assert!(format(&["--json", "--regex", "a"]).unwrap_err().contains("cannot be used with"));
        let both =
            StructuredArgs { json: Some(true), regex: Some("a".to_owned()), ..StructuredArgs::default() };
        assert!(both.format().unwrap_err().to_string().contains("only one of"));
    }
}
