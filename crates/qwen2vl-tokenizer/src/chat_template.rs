//! The model's own chat template, rendered as Hugging Face does: Jinja with `trim_blocks` and `lstrip_blocks`, Python's
//! string methods, `raise_exception`. Follows `render_jinja_template` of transformers 4.57.6.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, ErrorKind, context};

use crate::{Error, Message};

/// Template instructions that one rendering may use: a damaged template must not hang.
const FUEL: u64 = 50_000_000;

/// A parsed chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
}

/// Options of a rendering.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RenderOptions {
    /// End with the opening of the assistant's turn.
    pub add_generation_prompt: bool,
    /// Number images and videos in the text: "Picture 1: ".
    pub add_vision_id: bool,
}

/// What a question needs: the assistant's turn opened, no numbering.
impl Default for RenderOptions {
    fn default() -> Self {
        Self { add_generation_prompt: true, add_vision_id: false }
    }
}

impl ChatTemplate {
    /// Parses a template.
    ///
    /// # Errors
    ///
    /// [`Error::Template`] with the line.
    pub fn new(source: &str) -> Result<Self, Error> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|e| Error::Template { reason: e.to_string() })?);
        environment.set_fuel(Some(FUEL));
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |message: String| -> Result<String, minijinja::Error> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
        });
        environment
            .add_template_owned("chat", source.to_owned())
            .map_err(|e| Error::Template { reason: format!("{e:#}") })?;
        Ok(Self { environment })
    }

    /// The prompt of a conversation, placeholders not expanded.
    ///
    /// # Errors
    ///
    /// [`Error::Render`] where the template refuses the conversation.
    pub fn render(&self, messages: &[Message], options: &RenderOptions) -> Result<String, Error> {
        let RenderOptions { add_generation_prompt, add_vision_id } = *options;
        self.environment
            .get_template("chat")
            .and_then(|template| {
                template
                    .render(context! { messages => Serde(messages), add_generation_prompt, add_vision_id })
            })
            .map_err(|e| Error::Render { reason: format!("{e:#}") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_templates_are_errors() {
        assert!(ChatTemplate::new("{% if %}").unwrap_err().to_string().contains("cannot be parsed"));
        let refuses = ChatTemplate::new("{{ raise_exception('no system turn') }}").unwrap();
        let error = refuses.render(&[], &RenderOptions::default()).unwrap_err().to_string();
        assert!(error.contains("no system turn"), "{error}");
        let endless = "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}{{ c }}\
                       {% endfor %}{% endfor %}{% endfor %}";
        let hangs = ChatTemplate::new(endless).unwrap();
        assert!(hangs.render(&[], &RenderOptions::default()).is_err());
    }
}
