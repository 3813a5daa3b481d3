//! Answers in a format: grammars compiled once per annotator, and answers as Rust values.
//!
//! What a format is and how it is kept is `qwen2vl-grammar`'s; here it meets a request's other options.

use std::ops::ControlFlow;
use std::sync::{Mutex, OnceLock, PoisonError};

use qwen2vl_grammar::{Format, Grammar, GrammarConstraint, GrammarEngine};
use qwen2vl_runtime::{CancelToken, GenerationConfig};
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::de::DeserializeOwned;

use crate::{Annotation, Annotator, Error, ImageInput, Processor, Request, RequestOptions};

/// Compiled formats that are kept.
const KEPT: usize = 8;

/// What an annotator knows of formats. Empty until the first one is asked for.
#[derive(Default)]
pub(crate) struct Formats {
    engine: OnceLock<Result<GrammarEngine, qwen2vl_grammar::Error>>,
    /// The last one asked for is the last.
    compiled: Mutex<Vec<(Format, Grammar)>>,
}

impl Formats {
    fn grammar(&self, format: &Format, processor: &Processor) -> Result<Grammar, qwen2vl_grammar::Error> {
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = compiled.iter().position(|(known, _)| known == format) {
            let known = compiled.remove(at);
            let grammar = known.1.clone();
            compiled.push(known);
            return Ok(grammar);
        }
        let make = || {
            let package = processor.package();
            let stops = &package.generation.stop_token_ids;
            GrammarEngine::new(processor.shared_tokenizer(), package.model.vocab_size, stops)
        };
        let grammar = self.engine.get_or_init(make).as_ref().map_err(Clone::clone)?.compile(format)?;
        if compiled.len() == KEPT {
            compiled.remove(0);
        }
        compiled.push((format.clone(), grammar.clone()));
        Ok(grammar)
    }
}

/// Refuses options that contradict a format.
pub(crate) fn check(options: &RequestOptions, config: &GenerationConfig) -> Result<(), Error> {
    if options.format.is_none() {
        return Ok(());
    }
    let bad = |name, value: String, allowed: &'static str| {
        let allowed = allowed.into();
        Err(qwen2vl_runtime::Error::InvalidOption { name, value, allowed }.into())
    };
    if config.num_beams > 1 {
        return bad("num_beams", config.num_beams.to_string(), "1 with a format: beams do not keep to one");
    }
    if config.min_new_tokens > 0 {
        let value = config.min_new_tokens.to_string();
        return bad("min_new_tokens", value, "0 with a format, which says itself when an answer may end");
    }
    if config.no_repeat_ngram_size > 0 {
        let value = config.no_repeat_ngram_size.to_string();
        return bad("no_repeat_ngram_size", value, "0 with a format, which may need the same tokens twice");
    }
    if let Some(first) = options.stop_strings.iter().flatten().next() {
        return bad("stop_strings", format!("{first:?}"), "none with a format: they would cut the answer");
    }
    Ok(())
}

impl Annotator {
    /// Checks options over the annotator's own as every request's are checked before its images are read, the format
    /// included: a program with many requests can do it once.
    ///
    /// # Errors
    ///
    /// As [`RequestOptions::validate`], and [`Error::Format`] for a format that is none, that no answer can have, or that
    /// needs more tokens than are allowed.
    pub fn check(&self, options: &RequestOptions) -> Result<(), Error> {
        let options = options.or(&self.defaults);
        options.validate(self.processor.package())?;
        self.constraint(&options).map(drop)
    }

    /// What keeps an answer to the format that these options ask for.
    ///
    /// # Errors
    ///
    /// [`Error::Format`] for a format that is none, that nothing fits, or that needs more tokens than are allowed.
    pub(crate) fn constraint(&self, options: &RequestOptions) -> Result<Option<GrammarConstraint>, Error> {
        let Some(format) = &options.format else { return Ok(None) };
        let grammar = self.formats.grammar(format, &self.processor)?;
        let config = options.generation(&self.processor.package().generation);
        Ok(Some(grammar.start(config.max_new_tokens, &config.stop_token_ids)?))
    }

    /// Asks a question about an image, and gets the answer as a value, whose type says what is asked for: its schema is
    /// the answer's format, in which the comments of its fields are not seen by the model.
    ///
    /// ```no_run
    /// use qwen2vl_pipeline::Annotator;
    /// use qwen2vl_pipeline::schemars::{self, JsonSchema};
    /// use serde::Deserialize;
    ///
    /// #[derive(Deserialize, JsonSchema)]
    /// struct Invoice {
    ///     number: String,
    ///     total: f64,
    /// }
    ///
    /// let annotator = Annotator::builder().model("qwen2-vl-2b-int4").build()?;
    /// let answer = annotator.annotate_as::<Invoice>("invoice.png", "Number and total as JSON.")?;
    /// assert!(answer.is_complete());
    /// println!("{}: {}", answer.value.number, answer.value.total);
    /// # Ok::<(), qwen2vl_pipeline::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Annotator::run_as`].
    pub fn annotate_as<T: JsonSchema + DeserializeOwned>(
        &self,
        image: impl Into<ImageInput>,
        prompt: &str,
    ) -> Result<Structured<T>, Error> {
        self.run_as(&Request::question(prompt).image(image), &CancelToken::new())
    }

    /// Answers a request by a value, whose schema takes the place of the request's own format.
    ///
    /// # Errors
    ///
    /// As [`Annotator::run`], [`Error::Format`] for a type that has no values in JSON, and [`Error::Value`] for an answer
    /// that is none, as after a cancellation.
    pub fn run_as<T: JsonSchema + DeserializeOwned>(
        &self,
        request: &Request,
        cancel: &CancelToken,
    ) -> Result<Structured<T>, Error> {
        let mut request = request.clone();
        request.options.format = Some(schema_of::<T>());
        let prepared = self.prepare_cached(&request)?;
        let annotation = self.run_prepared(&request, &prepared, cancel, |_| ControlFlow::Continue(()))?;
        match serde_json::from_str(&annotation.result) {
            Ok(value) => Ok(Structured { value, annotation }),
            Err(source) => Err(Error::Value { answer: annotation.result, source }),
        }
    }
}

/// An answer as a value.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Structured<T> {
    /// The value.
    pub value: T,
    /// The answer it was read from.
    pub annotation: Annotation,
}

impl<T> Structured<T> {
    /// Whether the model ended the answer itself. If not, tokens ran low: the value is valid, but the model would have
    /// said more.
    pub fn is_complete(&self) -> bool {
        self.annotation.complete == Some(true)
    }
}

/// The schema of a type, as it is read.
fn schema_of<T: JsonSchema>() -> Format {
    let settings = SchemaSettings::draft2020_12();
    Format::JsonSchema(settings.into_generator().into_root_schema_for::<T>().to_value())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_contradict_a_format_are_named() {
        let format = Some(Format::JsonObject);
        let model = GenerationConfig::default();
        type Set = fn(&mut RequestOptions);
        let cases: [(Set, &str); 4] = [
            (|o| o.num_beams = Some(2), "num_beams is 2, allowed is 1 with a format"),
            (|o| o.min_new_tokens = Some(3), "min_new_tokens is 3, allowed is 0 with a format"),
            (|o| o.no_repeat_ngram_size = Some(4), "no_repeat_ngram_size is 4, allowed is 0 with a format"),
            (
                |o| o.stop_strings = Some(vec!["}".to_owned()]),
                "stop_strings is \"}\", allowed is none with a format",
            ),
        ];
        for (set, message) in cases {
            let mut options = RequestOptions { format: format.clone(), ..RequestOptions::default() };
            assert!(check(&options, &options.generation(&model)).is_ok());
            set(&mut options);
            let error = check(&options, &options.generation(&model)).unwrap_err();
            assert!(error.to_string().contains(message) && error.kind() == "options", "{error}");
            options.format = None;
            assert!(check(&options, &options.generation(&model)).is_ok());
        }
    }
}
