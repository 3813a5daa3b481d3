//! Options by name, as rows of tables and programs give them: in Hugging Face's spelling or Spark NLP's.

use serde_json::{Map, Value};

use super::RequestOptions;
use crate::Error;

/// Every option by its own name.
const NAMES: [&str; 32] = [
    "min_pixels",
    "max_pixels",
    "max_input_tokens",
    "min_new_tokens",
    "max_new_tokens",
    "do_sample",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "no_repeat_ngram_size",
    "suppress_tokens",
    "logit_bias",
    "seed",
    "stop_token_ids",
    "stop_strings",
    "logprobs",
    "num_beams",
    "length_penalty",
    "early_stopping",
    "num_return_sequences",
    "prompt_lookup_num_tokens",
    "max_matching_ngram_size",
    "add_vision_id",
    "text_first",
    "strict_prompt",
    "skip_special_tokens",
    "boxes",
    "format",
];

/// What Spark NLP and others call them, in snake case.
const ALIASES: [(&str, &str); 13] = [
    ("max_output_length", "max_new_tokens"),
    ("min_output_length", "min_new_tokens"),
    ("max_input_length", "max_input_tokens"),
    ("min_pixel_value", "min_pixels"),
    ("max_pixel_value", "max_pixels"),
    ("ignore_token_ids", "suppress_tokens"),
    ("random_seed", "seed"),
    ("beam_size", "num_beams"),
    ("n_return_sequences", "num_return_sequences"),
    ("eos_token_id", "stop_token_ids"),
    ("max_tokens", "max_new_tokens"),
    ("stop", "stop_strings"),
    ("n", "num_return_sequences"),
];

/// How like a name has to be to one that there is.
const LIKE: f64 = 0.8;

impl RequestOptions {
    /// Reads options by name: Hugging Face's names, Spark NLP's and OpenAI's, in snake case, camel case or with hyphens.
    /// Values out of range are found by [`RequestOptions::validate`], which every request goes through.
    ///
    /// ```
    /// use qwen2vl_pipeline::RequestOptions;
    ///
    /// let row = serde_json::json!({"maxOutputLength": 20, "temperature": 0.5});
    /// let options = RequestOptions::from_named(row.as_object().unwrap())?;
    /// assert_eq!((options.max_new_tokens, options.temperature), (Some(20), Some(0.5)));
    /// # Ok::<(), qwen2vl_pipeline::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::UnknownOption`] with the nearest name, [`Error::OptionValue`] for a value of another type, and for an
    /// option that is named twice.
    pub fn from_named(options: &Map<String, Value>) -> Result<Self, Error> {
        let mut own = Map::new();
        for (given, value) in options {
            let name = own_name(given)?;
            let bad = |reason: String| Error::OptionValue { name: given.clone(), reason };
            let value = match (name, value) {
                // One may stand for a list of it.
                ("stop_strings", Value::String(_)) | ("stop_token_ids", Value::Number(_)) => {
                    Value::Array(vec![value.clone()])
                }
                _ => value.clone(),
            };
            let alone = Map::from_iter([(name.to_owned(), value.clone())]);
            serde_json::from_value::<Self>(alone.into()).map_err(|error| bad(error.to_string()))?;
            if own.insert(name.to_owned(), value).is_some() {
                return Err(bad(format!("{name} is given twice")));
            }
        }
        serde_json::from_value(own.into())
            .map_err(|error| Error::OptionValue { name: "options".to_owned(), reason: error.to_string() })
    }
}

/// An option's own name.
fn own_name(given: &str) -> Result<&'static str, Error> {
    let name = snake_case(given);
    if let Some(own) = NAMES.into_iter().find(|own| *own == name) {
        return Ok(own);
    }
    if let Some((_, own)) = ALIASES.into_iter().find(|(alias, _)| *alias == name) {
        return Ok(own);
    }
    let known = NAMES.into_iter().chain(ALIASES.map(|(alias, _)| alias));
    let likeness = known.map(|known| (strsim::jaro_winkler(known, &name), known));
    let nearest = likeness.max_by(|a, b| a.0.total_cmp(&b.0)).filter(|(likeness, _)| *likeness > LIKE);
    Err(Error::UnknownOption { name: given.to_owned(), nearest: nearest.map(|(_, known)| known) })
}

fn snake_case(name: &str) -> String {
    let mut snake = String::with_capacity(name.len() + 4);
    for c in name.chars() {
        match c {
            '-' => snake.push('_'),
            c if c.is_ascii_uppercase() => {
                snake.push('_');
                snake.push(c.to_ascii_lowercase());
            }
            c => snake.push(c),
        }
    }
    snake
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{BoxForms, EarlyStopping};

    fn read(options: &Value) -> Result<RequestOptions, Error> {
        RequestOptions::from_named(options.as_object().unwrap())
    }

    #[test]
    fn every_option_has_its_name() {
        // Those of videos have names of their own and are no options of rows.
        let video = format!("{:?}", crate::VideoOptions::default());
        let fields = format!("{:?}", RequestOptions::default()).replace(&video, "");
        assert_eq!(fields.matches(": None").count(), NAMES.len(), "{fields}");
        for name in NAMES {
            assert!(fields.contains(&format!(" {name}: None")), "{name}");
            assert_eq!(read(&json!({ name: null })).unwrap(), RequestOptions::default(), "{name}");
        }
        assert!(ALIASES.iter().all(|(alias, own)| NAMES.contains(own) && !NAMES.contains(alias)));
    }

    #[test]
    fn names_of_all_three_and_their_spellings_are_read() {
        let want = RequestOptions {
            max_new_tokens: Some(9),
            top_p: Some(0.5),
            suppress_tokens: Some(vec![1, 2]),
            stop_strings: Some(vec!["x".to_owned()]),
            stop_token_ids: Some(vec![3]),
            logit_bias: Some([(7, -1.5)].into()),
            early_stopping: Some(EarlyStopping::Never),
            boxes: Some(BoxForms::Any),
            ..RequestOptions::default()
        };
        let rest = json!({ "logit_bias": { "7": -1.5 }, "early_stopping": "never", "boxes": "any" });
        for options in [
            json!({ "max_new_tokens": 9, "top_p": 0.5, "suppress_tokens": [1, 2], "stop_strings": ["x"],
                    "stop_token_ids": [3] }),
            json!({ "maxOutputLength": 9, "topP": 0.5, "ignoreTokenIds": [1, 2], "stop": "x",
                    "stopTokenIds": [3] }),
            json!({ "max-tokens": 9, "top-p": 0.5, "suppress-tokens": [1, 2], "stop": ["x"],
                    "eos_token_id": 3 }),
        ] {
            let mut options = options.as_object().unwrap().clone();
            options.extend(rest.as_object().unwrap().clone());
            assert_eq!(RequestOptions::from_named(&options).unwrap(), want);
        }
    }

    #[test]
    fn what_is_no_option_leads_to_the_nearest_and_wrong_values_are_named() {
        for (options, message) in [
            (json!({ "temprature": 1 }), "there is no option temprature, did you mean temperature"),
            (json!({ "maxOutputLenght": 1 }), "did you mean max_output_length"),
            (json!({ "wibble": 1 }), "there is no option wibble"),
            (json!({ "temperature": "hot" }), "option temperature: invalid type: string \"hot\""),
            (json!({ "topK": -1 }), "option topK: invalid value"),
            (json!({ "top_k": 2.5 }), "option top_k: invalid type"),
            (json!({ "early_stopping": "soon" }), "early_stopping"),
            (json!({ "boxes": "some" }), "option boxes: unknown variant"),
            (json!({ "logit_bias": { "cat": 1 } }), "option logit_bias"),
            (json!({ "max_new_tokens": 1, "maxOutputLength": 2 }), "max_new_tokens is given twice"),
        ] {
            let error = read(&options).unwrap_err();
            assert!(error.to_string().contains(message) && error.kind() == "options", "{error}");
        }
    }
}
