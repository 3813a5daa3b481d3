//! The chat template, from the file that transformers would take it from.
//!
//! `ProcessorMixin.get_processor_dict` of 4.57.6 looks at `chat_template.json` (the older form) before
//! `chat_template.jinja`, then at `processor_config.json`. A processor without any has no template there; its tokenizer
//! may, in `tokenizer_config.json`, which is the last place looked at here.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::Error;
use crate::json::{Checker, read_json, read_text};

const TEMPLATE_JSON: &str = "chat_template.json";
const TEMPLATE_JINJA: &str = "chat_template.jinja";

/// The files that may hold it, in the order of precedence.
pub(crate) const FILES: &[&str] =
    &[TEMPLATE_JSON, TEMPLATE_JINJA, "processor_config.json", "tokenizer_config.json"];

#[derive(Debug, Deserialize)]
struct TemplateFile {
    chat_template: Option<Templates>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected a template or a list of {name, template}")]
enum Templates {
    One(String),
    Named(Vec<NamedTemplate>),
}

#[derive(Debug, Deserialize)]
struct NamedTemplate {
    name: String,
    template: String,
}

/// Reads the template of an export folder.
pub(crate) fn read(root: &Path) -> Result<String, Error> {
    for file in FILES {
        let path = root.join(file);
        let found = match *file {
            TEMPLATE_JINJA => read_text(&path)?,
            _ => read_from_json(&path, *file == TEMPLATE_JSON)?,
        };
        match found {
            Some(template) if template.trim().is_empty() => return Err(Error::EmptyFile { path }),
            Some(template) => return Ok(template),
            None => {}
        }
    }
    let missing = vec![format!("a chat template ({})", FILES.join(", "))];
    Err(Error::Incomplete { path: PathBuf::from(root), missing })
}

fn read_from_json(path: &Path, required: bool) -> Result<Option<String>, Error> {
    let at = Checker { path, prefix: "" };
    match read_json::<TemplateFile>(path)?.map(|file| file.chat_template) {
        None => Ok(None),
        Some(None) if required => Err(at.error("chat_template", "is missing")),
        Some(None) => Ok(None),
        Some(Some(Templates::One(template))) => Ok(Some(template)),
        Some(Some(Templates::Named(list))) => {
            let names: Vec<&str> = list.iter().map(|t| t.name.as_str()).collect();
            let problem = format!("has the templates {names:?}, none of them named \"default\"");
            let default = list.iter().find(|t| t.name == "default").map(|t| t.template.clone());
            default.map(Some).ok_or_else(|| at.error("chat_template", problem))
        }
    }
}
