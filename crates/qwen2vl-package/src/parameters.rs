//! The parameters of a saved annotator, and what each does here.
//!
//! Spark NLP's own class ignores most of them (it decodes greedily, whatever is set), and its defaults are not the
//! model's: 20 tokens an answer, the stop token of another model. So what someone set is honored where this project
//! can, and defaults are not.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::{Map, Value};

/// A parameter of a saved annotator.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Parameter {
    /// Its name in Spark NLP.
    pub name: String,
    /// Its value.
    pub value: Value,
    /// Someone set it, or `loadSavedModel` did; else it is a default of the annotator's class.
    pub explicit: bool,
    /// Whether this project does what it says.
    pub honored: bool,
    /// What it does here, or why nothing.
    pub effect: String,
}

impl Parameter {
    /// Someone set it to have an effect, and it has none.
    pub(crate) fn is_missed(&self) -> bool {
        !self.honored && self.effect == UNKNOWN
    }
}

const UNKNOWN: &str = "unknown to this project";

/// What a parameter does here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    /// It does what it says.
    Honored(&'static str),
    /// It does nothing, for this reason.
    Not(&'static str),
}

use Use::{Honored, Not};

/// All parameters of `Qwen2VLTransformer` of Spark NLP 6.
const USES: [(&str, Use); 31] = [
    ("imageMean", Honored("mean of each channel")),
    ("imageStd", Honored("standard deviation of each channel")),
    ("doResize", Honored("images are resized")),
    ("doNormalize", Honored("pixels are normalized")),
    ("minPixelValue", Honored("fewest pixels of a resized image")),
    ("maxPixelValue", Honored("most pixels of a resized image")),
    ("maxOutputLength", Honored("most tokens of an answer")),
    ("minOutputLength", Honored("fewest tokens of an answer")),
    ("maxInputLength", Honored("most tokens of a prompt; a longer one is an error")),
    ("doSample", Honored("answers are drawn")),
    ("temperature", Honored("divides the logits before drawing")),
    ("topK", Honored("draws among the most probable tokens")),
    ("topP", Honored("draws up to a probability mass")),
    ("repetitionPenalty", Honored("penalty on tokens seen")),
    ("noRepeatNgramSize", Honored("runs of so many tokens come once")),
    ("ignoreTokenIds", Honored("tokens that are never chosen")),
    ("stopTokenIds", Honored("end an answer, beside the model's own")),
    ("randomSeed", Honored("seed of the draws")),
    ("engine", Honored("must be openvino")),
    ("size", Not("Qwen2-VL keeps an image's proportions, within its pixel limits")),
    ("resample", Not("Qwen2-VL resizes bicubically")),
    ("batchSize", Not("requests are scheduled by this project")),
    ("beamSize", Honored("beams that are followed at once")),
    ("nReturnSequences", Honored("answers to a prompt, drawn or from beams")),
    ("task", Not("prompts say what to do")),
    ("featureExtractorType", Not("names a class of Spark NLP")),
    ("inputCols", Not("columns belong to Spark")),
    ("outputCol", Not("columns belong to Spark")),
    ("lazyAnnotator", Not("belongs to Spark's LightPipeline")),
    ("configProtoBytes", Not("belongs to TensorFlow")),
    ("candidateLabels", Not("belongs to another class")),
];

/// All parameters, those that were set first.
pub(crate) fn parameters(set: &Map<String, Value>, default: &Map<String, Value>) -> Vec<Parameter> {
    let names: BTreeSet<&String> = set.keys().chain(default.keys()).collect();
    let mut parameters: Vec<Parameter> = names
        .into_iter()
        .filter_map(|name| {
            let explicit = set.contains_key(name);
            let value = set.get(name).or_else(|| default.get(name))?.clone();
            let known = USES.iter().find(|(n, _)| n == name).map(|(_, u)| *u);
            let (honored, effect) = match known {
                Some(Honored(effect)) if explicit => (true, effect),
                Some(Honored(_)) => (false, "a default of Spark NLP's class; the model's own holds"),
                Some(Not(reason)) => (false, reason),
                None => (false, UNKNOWN),
            };
            Some(Parameter { name: name.clone(), value, explicit, honored, effect: effect.to_owned() })
        })
        .collect();
    parameters.sort_by_key(|p| !p.explicit);
    parameters
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn set_ones_come_first_and_defaults_are_not_honored() {
        let map = |value: Value| value.as_object().unwrap().clone();
        let set = map(json!({ "maxOutputLength": 64, "size": 224, "someday": 1 }));
        let default = map(json!({ "maxOutputLength": 20, "topK": -1 }));
        let found = parameters(&set, &default);
        let short: Vec<_> = found.iter().map(|p| (p.name.as_str(), p.explicit, p.honored)).collect();
        let want = [
            ("maxOutputLength", true, true),
            ("size", true, false),
            ("someday", true, false),
            ("topK", false, false),
        ];
        assert_eq!(short, want);
        assert_eq!(found[0].value, 64);
    }
}
