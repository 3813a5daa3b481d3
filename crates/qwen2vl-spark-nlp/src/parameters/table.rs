//! All parameters, in one table; the README's is made of it.

use super::{Defaults, Value};
use crate::Error;

/// What values a parameter takes.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum ParameterKind {
    /// A whole number, from the least to the most.
    Int {
        /// The least.
        least: i64,
        /// The most.
        most: i64,
    },
    /// A number above 0, at most this.
    Double {
        /// The most.
        most: f64,
    },
    /// A truth value.
    Boolean,
    /// A text.
    Text,
    /// Token ids.
    TokenIds,
    /// A number for each of red, green and blue.
    Channels,
    /// Names of columns; one, here.
    Columns,
}

/// A parameter of `Qwen2VLTransformer`. Defaults are in JSON; an empty text means that there is none.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Parameter {
    /// Its name in Spark NLP; setters and getters have it in Rust's spelling.
    pub name: &'static str,
    /// What values it takes.
    pub kind: ParameterKind,
    /// What Spark NLP's Scala class declares.
    pub scala: &'static str,
    /// What its Python class declares; where it is silent, the Scala class's holds there too.
    pub python: &'static str,
    /// What holds here, with [`Defaults::Scala`] and [`Defaults::Python`].
    pub here: [&'static str; 2],
    /// What it does here.
    pub effect: &'static str,
    /// Why it is refused, if it is.
    refused: Option<&'static str>,
}

impl Parameter {
    /// The default that holds here.
    pub fn default_here(&self, defaults: Defaults) -> Option<Value> {
        let json = self.here[defaults as usize];
        Value::from_json(self.kind, &serde_json::from_str(json).ok()?)
    }

    /// Checks type and range.
    pub(crate) fn check(&self, value: &Value) -> Result<(), Error> {
        let name = self.name;
        if let Some(reason) = self.refused {
            return Err(Error::NoEffect { name, reason });
        }
        let wrong_type = |expected| Err(Error::ParameterType { name, given: value.to_string(), expected });
        let range = |fits: bool, allowed: &dyn Fn() -> String| match fits {
            true => Ok(()),
            false => Err(Error::ParameterRange { name, given: value.to_string(), allowed: allowed() }),
        };
        match (self.kind, value) {
            (ParameterKind::Int { least, most }, Value::Int(number)) => {
                range((least..=most).contains(number), &|| int_range(least, most))
            }
            (ParameterKind::Double { most }, Value::Double(number)) => {
                range(*number > 0.0 && *number <= most && number.is_finite(), &|| double_range(most))
            }
            (ParameterKind::Boolean, Value::Boolean(_)) => Ok(()),
            (ParameterKind::Text, Value::Text(text)) if name == "engine" => {
                range(text == "openvino", &|| "\"openvino\"".to_owned())
            }
            (ParameterKind::Text, Value::Text(_)) => Ok(()),
            (ParameterKind::TokenIds, Value::Ints(ids)) => {
                range(ids.iter().all(|id| (0..=i64::from(i32::MAX)).contains(id)), &|| {
                    "token ids from 0".to_owned()
                })
            }
            (ParameterKind::Channels, Value::Doubles(numbers)) => {
                let positive = name == "imageStd";
                let fits = numbers.len() == 3
                    && numbers.iter().all(|n| n.is_finite() && n.abs() <= 1e3 && (!positive || *n > 0.0));
                let allowed =
                    if positive { "3 numbers above 0 to 1000" } else { "3 numbers from -1000 to 1000" };
                range(fits, &|| allowed.to_owned())
            }
            (ParameterKind::Columns, Value::Texts(names)) => {
                range(names.len() == 1, &|| "the name of 1 column of images".to_owned())
            }
            (ParameterKind::Int { .. }, _) => wrong_type("a whole number"),
            (ParameterKind::Double { .. }, _) => wrong_type("a number"),
            (ParameterKind::Boolean, _) => wrong_type("true or false"),
            (ParameterKind::Text, _) => wrong_type("a text"),
            (ParameterKind::TokenIds, _) => wrong_type("a list of whole numbers"),
            (ParameterKind::Channels, _) => wrong_type("a list of 3 numbers"),
            (ParameterKind::Columns, _) => wrong_type("a list of names"),
        }
    }
}

fn int_range(least: i64, most: i64) -> String {
    match (least == most, most >= i64::from(i32::MAX)) {
        (true, _) => least.to_string(),
        (_, true) => format!("{least} or more"),
        _ => format!("{least} to {most}"),
    }
}

fn double_range(most: f64) -> String {
    if most >= f64::from(f32::MAX) { "above 0".to_owned() } else { format!("above 0 and at most {most}") }
}

const MOST: i64 = i32::MAX as i64;
const COUNT: ParameterKind = ParameterKind::Int { least: 1, most: MOST };
const FROM_0: ParameterKind = ParameterKind::Int { least: 0, most: MOST };
const ROWS: ParameterKind = ParameterKind::Int { least: 1, most: 64 };
const POSITIVE: ParameterKind = ParameterKind::Double { most: f32::MAX as f64 };

/// One that Spark NLP declares the same defaults for as hold here.
const fn same(
    name: &'static str,
    kind: ParameterKind,
    [scala, python]: [&'static str; 2],
    effect: &'static str,
) -> Parameter {
    Parameter { name, kind, scala, python, here: [scala, python], effect, refused: None }
}

/// One for which other defaults hold here than Spark NLP declares.
const fn other(
    name: &'static str,
    kind: ParameterKind,
    [scala, python]: [&'static str; 2],
    here: &'static str,
    effect: &'static str,
) -> Parameter {
    Parameter { name, kind, scala, python, here: [here; 2], effect, refused: None }
}

const fn refused(
    name: &'static str,
    kind: ParameterKind,
    [scala, python]: [&'static str; 2],
    reason: &'static str,
) -> Parameter {
    Parameter { name, kind, scala, python, here: [""; 2], effect: "refused", refused: Some(reason) }
}

use ParameterKind::{Boolean, Channels, Columns, Double, Int, Text, TokenIds};

/// All parameters of the Scala class.
pub const PARAMETERS: &[Parameter] = &[
    other("inputCols", Columns, ["", ""], "[\"image_assembler\"]", "the one column of images"),
    other("outputCol", Text, ["", ""], "\"answer\"", "the column of answers"),
    same("lazyAnnotator", Boolean, ["false", "false"], "`LightPipeline` passes it over"),
    same(
        "batchSize",
        COUNT,
        ["1", "2"],
        "rows that `transform_batches` hands on together; no answer depends on it",
    ),
    same("maxOutputLength", COUNT, ["20", "200"], "most tokens of an answer"),
    same("minOutputLength", FROM_0, ["0", "0"], "no stop token before so many tokens"),
    other(
        "maxInputLength",
        COUNT,
        ["4096", ""],
        "",
        "most tokens of a prompt with its images, a longer one is its row's error; the model's context if not set",
    ),
    same("doSample", Boolean, ["false", "false"], "answers are drawn"),
    same("temperature", POSITIVE, ["0.6", "1.0"], "divides the logits before drawing"),
    same(
        "topK",
        Int { least: -1, most: MOST },
        ["-1", "50"],
        "draws among so many tokens; -1 and 0: among all",
    ),
    same("topP", Double { most: 1.0 }, ["0.9", "1.0"], "draws up to this probability mass"),
    same("repetitionPenalty", POSITIVE, ["1.0", "1.0"], "penalty on tokens of prompt and answer"),
    other("noRepeatNgramSize", FROM_0, ["3", "0"], "0", "runs of so many tokens come once; 0: off"),
    same("ignoreTokenIds", TokenIds, ["[]", "[]"], "tokens that are never chosen"),
    other("stopTokenIds", TokenIds, ["[128001]", ""], "[]", "end an answer, beside the model's own"),
    same("beamSize", ROWS, ["1", "1"], "beams that are followed at once"),
    other("nReturnSequences", ROWS, ["", ""], "1", "answers to each question, drawn or from beams"),
    same("task", Text, ["", ""], "put in front of the question"),
    same("randomSeed", Int { least: i64::MIN, most: i64::MAX }, ["", ""], "seed of the draws; 0 if not set"),
    other(
        "minPixelValue",
        COUNT,
        ["200704", ""],
        "",
        "smaller images are enlarged to so many pixels; the model's own if not set, 3136 of the published one",
    ),
    other(
        "maxPixelValue",
        COUNT,
        ["12845056", ""],
        "",
        "larger images are reduced to so many pixels; the model's own if not set, 12845056 of the published one",
    ),
    other("doResize", Boolean, ["true", ""], "true", "false: sides must be multiples of 28"),
    other("doNormalize", Boolean, ["true", ""], "true", "mean and deviation are applied"),
    other(
        "imageMean",
        Channels,
        ["[0.5,0.5,0.5]", ""],
        "",
        "mean of red, green, blue; the model's own if not set",
    ),
    other(
        "imageStd",
        Channels,
        ["[0.5,0.5,0.5]", ""],
        "",
        "their standard deviation; the model's own if not set",
    ),
    other(
        "resample",
        Int { least: 3, most: 3 },
        ["2", ""],
        "3",
        "3, bicubic: what the model was trained with",
    ),
    other("engine", Text, ["\"tensorflow\"", ""], "\"openvino\"", "must be `openvino`"),
    refused(
        "size",
        FROM_0,
        ["224", ""],
        "it keeps an image's proportions; minPixelValue and maxPixelValue say how large it is",
    ),
    refused("featureExtractorType", Text, ["\"ViTFeatureExtractor\"", ""], "it names a class of Spark NLP"),
];

/// Parameters of the Python class that the annotator does not have, and what to do instead.
pub const PYTHON_ONLY: &[(&str, &str)] = &[
    ("configProtoBytes", "it belongs to TensorFlow; leave it out"),
    ("candidateLabels", "write the labels into the question"),
    ("contradictionIdParam", "it belongs to zero-shot classifiers; leave it out"),
    ("entailmentIdParam", "it belongs to zero-shot classifiers; leave it out"),
    ("doRescale", "pixels are always rescaled; leave it out"),
    ("rescaleFactor", "it is 1/255; leave it out"),
    ("maxSentenceSize", "it belongs to classes that read sentences; use maxInputLength"),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &str) -> &'static Parameter {
        PARAMETERS.iter().find(|p| p.name == name).unwrap()
    }

    /// The README's table.
    fn markdown() -> String {
        let cell = |json: &str| if json.is_empty() { "–".to_owned() } else { format!("`{json}`") };
        let mut table =
            "| parameter | Scala declares | Python declares | here | effect here |\n|---|---|---|---|---|\n"
                .to_owned();
        for p in PARAMETERS {
            let here = if p.here[0] == p.here[1] { cell(p.here[0]) } else { p.here.map(cell).join(", ") };
            let effect = p.refused.map_or(p.effect.to_owned(), |reason| format!("refused: {reason}"));
            let (scala, python) = (cell(p.scala), cell(p.python));
            table += &format!("| `{}` | {scala} | {python} | {here} | {effect} |\n", p.name);
        }
        table
    }

    #[test]
    fn the_readme_has_the_table() {
        let table = markdown();
        assert!(include_str!("../../README.md").contains(&table), "README.md must have this table:\n{table}");
    }

    #[test]
    fn every_declared_default_is_json_of_its_kind() {
        for p in PARAMETERS {
            for json in [p.scala, p.python, p.here[0], p.here[1]].into_iter().filter(|json| !json.is_empty())
            {
                let parsed = serde_json::from_str(json).unwrap();
                let value = Value::from_json(p.kind, &parsed).unwrap_or_else(|| panic!("{}: {json}", p.name));
                if p.here.contains(&json) {
                    p.check(&value).unwrap();
                }
            }
        }
    }

    #[test]
    fn values_out_of_range_or_of_another_type_are_named() {
        let cases: [(&str, Value, &str); 17] = [
            ("maxOutputLength", 0.into(), "maxOutputLength is 0, allowed is 1 or more"),
            ("maxOutputLength", true.into(), "maxOutputLength is true, expected is a whole number"),
            ("temperature", 0.0.into(), "temperature is 0, allowed is above 0"),
            ("temperature", f64::NAN.into(), "temperature is NaN"),
            ("topP", 1.5.into(), "topP is 1.5, allowed is above 0 and at most 1"),
            ("topK", (-2).into(), "topK is -2, allowed is -1 or more"),
            ("beamSize", 65.into(), "beamSize is 65, allowed is 1 to 64"),
            ("stopTokenIds", vec![-1].into(), "stopTokenIds is [-1], allowed is token ids from 0"),
            ("imageMean", vec![0.5; 2].into(), "imageMean is [0.5, 0.5], allowed is 3 numbers"),
            ("imageStd", vec![0.5, 0.0, 0.5].into(), "imageStd"),
            ("resample", 2.into(), "resample is 2, allowed is 3"),
            ("engine", "tensorflow".into(), "engine is \"tensorflow\", allowed is \"openvino\""),
            ("size", 224.into(), "size has no effect"),
            ("featureExtractorType", "x".into(), "featureExtractorType has no effect"),
            ("inputCols", vec!["a".to_owned(), "b".to_owned()].into(), "inputCols is [\"a\", \"b\"]"),
            ("doSample", 1.into(), "doSample is 1, expected is true or false"),
            ("task", 1.into(), "task is 1, expected is a text"),
        ];
        for (name, value, want) in cases {
            let error = table(name).check(&value).unwrap_err();
            assert_eq!(error.kind(), "options");
            assert!(error.to_string().contains(want), "{want}: {error}");
        }
        for (name, value) in [("topK", -1), ("topK", 0), ("minPixelValue", 1), ("randomSeed", -5)] {
            table(name).check(&value.into()).unwrap();
        }
    }
}
