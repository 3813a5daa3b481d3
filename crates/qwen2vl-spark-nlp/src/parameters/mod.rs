//! The parameters of `Qwen2VLTransformer`: what Spark NLP declares, what holds here, what each does.
//!
//! Spark NLP obeys one of them, `maxOutputLength`; here each has an effect or is refused. So defaults that were
//! declared and never obeyed can do harm now. Those stand here as they are declared, and beside them what holds:
//! `noRepeatNgramSize` 3 would forbid to answer in JSON, `stopTokenIds` [128001] is the end of a Llama 3 answer and a
//! word of Qwen2-VL, `maxInputLength` 4096 would refuse photos of more than 3.2 megapixels.

mod resolve;
mod table;
mod value;

use std::collections::BTreeMap;

pub(crate) use resolve::Resolved;
pub use table::{PARAMETERS, PYTHON_ONLY, Parameter, ParameterKind};
pub use value::Value;

use crate::Error;

/// Whose defaults hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Defaults {
    /// The Scala class's: answers of 20 tokens.
    #[default]
    Scala,
    /// The Python class's, which it gives the Scala class at each `transform`: answers of 200 tokens.
    Python,
}

/// Values of parameters, from three sources: the caller's, then those saved with the model, then the defaults.
#[derive(Debug, Clone, Default)]
pub(crate) struct Params {
    pub defaults: Defaults,
    saved: BTreeMap<&'static str, Value>,
    set: BTreeMap<&'static str, Value>,
}

impl Params {
    /// With what was set explicitly in the annotator that Spark NLP saved. What no program could mean (it was noted when
    /// the model was opened) is left out.
    pub fn with_saved(parameters: &[qwen2vl_pipeline::Parameter]) -> Self {
        let saved = parameters.iter().filter(|p| p.explicit).filter_map(|p| {
            let parameter = find(&p.name).ok()?;
            let value = Value::from_json(parameter.kind, &p.value)?;
            parameter.check(&value).ok().map(|()| (parameter.name, value))
        });
        Self { saved: saved.collect(), ..Self::default() }
    }

    /// Sets a parameter, whose value is checked when it is used.
    pub fn put(&mut self, name: &'static str, value: Value) {
        self.set.insert(name, value);
    }

    /// Sets a parameter by its name, checked at once.
    pub fn set(&mut self, name: &str, value: Value) -> Result<(), Error> {
        let parameter = find(name)?;
        let value = value.widened(parameter.kind);
        parameter.check(&value)?;
        self.set.insert(parameter.name, value);
        Ok(())
    }

    /// What holds: set, saved or default.
    pub fn value(&self, name: &str) -> Option<Value> {
        let given = self.set.get(name).or_else(|| self.saved.get(name));
        given.cloned().or_else(|| find(name).ok()?.default_here(self.defaults))
    }

    /// A value that the caller set on this object.
    pub fn own(&self, name: &str) -> Option<&Value> {
        self.set.get(name)
    }

    /// Checks all that were set.
    pub fn check(&self) -> Result<(), Error> {
        self.set.iter().try_for_each(|(name, value)| find(name)?.check(value))
    }
}

/// A parameter by its name, in Spark NLP's spelling or in Rust's.
pub(crate) fn find(name: &str) -> Result<&'static Parameter, Error> {
    let camel = camel_case(name);
    if let Some(parameter) = PARAMETERS.iter().find(|p| p.name == camel) {
        return Ok(parameter);
    }
    if let Some((name, reason)) = PYTHON_ONLY.iter().find(|(name, _)| *name == camel) {
        return Err(Error::PythonOnly { name, reason });
    }
    let names = PARAMETERS.iter().map(|p| p.name);
    let nearest = names.map(|name| (strsim::jaro_winkler(&camel.to_lowercase(), &name.to_lowercase()), name));
    let nearest = nearest.max_by(|a, b| a.0.total_cmp(&b.0)).filter(|(likeness, _)| *likeness > 0.8);
    Err(Error::UnknownParameter { given: name.to_owned(), nearest: nearest.map(|(_, name)| name) })
}

/// `max_output_length` as `maxOutputLength`.
fn camel_case(name: &str) -> String {
    let mut parts = name.split('_');
    let mut camel = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let mut letters = part.chars();
        camel.extend(letters.next().into_iter().flat_map(char::to_uppercase));
        camel.push_str(letters.as_str());
    }
    camel
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_names_lead_to_the_nearest() {
        for (given, want) in [
            ("maxOutputLenght", Some("maxOutputLength")),
            ("max_new_tokens", None),
            ("top_k", Some("topK")),
            ("temprature", Some("temperature")),
            ("stop_tokens_ids", Some("stopTokenIds")),
            ("x", None),
            ("", None),
        ] {
            match find(given) {
                Ok(parameter) => assert_eq!(Some(parameter.name), want),
                Err(error @ Error::UnknownParameter { nearest, .. }) => {
                    assert_eq!(nearest, want, "{given}");
                    assert!(error.to_string().contains(given), "{error}");
                    assert_eq!(error.to_string().contains("did you mean"), want.is_some(), "{error}");
                }
                Err(error) => panic!("{given}: {error}"),
            }
        }
    }

    #[test]
    fn parameters_of_the_python_class_alone_are_refused_by_name() {
        for (name, _) in PYTHON_ONLY {
            let error = find(name).unwrap_err();
            assert!(matches!(error, Error::PythonOnly { .. }) && error.to_string().contains(name), "{error}");
        }
    }

    #[test]
    fn what_is_set_comes_before_what_is_saved_and_that_before_defaults() {
        let saved = |name: &str, value: serde_json::Value, explicit| qwen2vl_pipeline::Parameter {
            name: name.to_owned(),
            value,
            explicit,
            honored: explicit,
            effect: String::new(),
        };
        let mut params = Params::with_saved(&[
            saved("maxOutputLength", 64.into(), true),
            saved("topK", 7.into(), false),
            saved("topP", 7.into(), true),
            saved("size", 224.into(), true),
        ]);
        let int = |params: &Params, name: &str| params.value(name).and_then(|v| v.as_int());
        assert_eq!(int(&params, "maxOutputLength"), Some(64));
        assert_eq!(int(&params, "topK"), Some(-1), "a default of the file is none of ours");
        assert_eq!(params.value("topP"), Some(Value::Double(0.9)), "out of range");
        params.defaults = Defaults::Python;
        assert_eq!((int(&params, "maxOutputLength"), int(&params, "topK")), (Some(64), Some(50)));
        params.set("max_output_length", 5.into()).unwrap();
        assert_eq!(int(&params, "maxOutputLength"), Some(5));
        params.check().unwrap();
    }
}
