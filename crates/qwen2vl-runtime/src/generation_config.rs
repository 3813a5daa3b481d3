//! How an answer is chosen and when it ends: the options, their ranges, what contradicts what.
//!
//! Names and meanings are those of transformers 4.57.6, `GenerationConfig`; those that it lacks follow OpenAI's API
//! and vLLM (`presence_penalty`, `frequency_penalty`, `logit_bias`, `logprobs`).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::str::FromStr;

use qwen2vl_types::TokenId;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use crate::Error;

/// How an answer is chosen and when it ends.
///
/// The default is greedy without penalties; a model's own defaults come from its `generation_config.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerationConfig {
    /// Draw from the distribution instead of taking the most probable token.
    pub do_sample: bool,
    /// Logits are divided by it before drawing; above 0. Unused without `do_sample`.
    pub temperature: f32,
    /// Keep the k most probable tokens; 0 keeps all. Unused without `do_sample`.
    pub top_k: usize,
    /// Keep the most probable tokens up to this probability mass; in (0, 1]. Unused without `do_sample`.
    pub top_p: f32,
    /// Keep the tokens that are at least this times as probable as the most probable one; in [0, 1], 0 is off. Unused
    /// without `do_sample`.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of tokens already in prompt or answer; above 0, 1 is off.
    pub repetition_penalty: f32,
    /// Taken once from the logit of each token that the answer has already; in [-2, 2], 0 is off.
    pub presence_penalty: f32,
    /// Taken from the logit of a token as often as the answer has it already; in [-2, 2], 0 is off.
    pub frequency_penalty: f32,
    /// No run of this many tokens comes twice in prompt and answer together; 0 is off.
    pub no_repeat_ngram_size: usize,
    /// Tokens that are never chosen.
    pub suppress_tokens: Vec<TokenId>,
    /// Added to the logits of single tokens; each in [-1000, 1000].
    pub logit_bias: BTreeMap<TokenId, f32>,
    /// No stop token is chosen before the answer has this many tokens; at most `max_new_tokens`.
    pub min_new_tokens: usize,
    /// The most tokens an answer may have, at least 1.
    pub max_new_tokens: usize,
    /// The most tokens a prompt may have, those of its images and videos included, at least 1; a longer one is an
    /// error and never cut. `None` is the model's context.
    pub max_input_tokens: Option<usize>,
    /// Tokens that end the answer (`eos_token_id`); the one that did is not part of it.
    pub stop_token_ids: Vec<TokenId>,
    /// Report log-probabilities of the answer's tokens, and of this many most probable ones at each; 0 to 100.
    pub logprobs: Option<usize>,
    /// Seed of the draws: the same seed gives the same answer, whatever else is asked at the time.
    pub seed: u64,
    /// Beams that are followed at once, 1 to 64; 1 is no beam search. Beams are not drawn: `do_sample` must be off.
    pub num_beams: usize,
    /// Exponent of a beam's length, by which its score is divided; finite. Unused without beams.
    pub length_penalty: f32,
    /// When beam search ends. Unused without beams.
    pub early_stopping: EarlyStopping,
    /// Answers to a prompt, 1 to 64; more than one need `do_sample` among more than one token, or as many beams.
    pub num_return_sequences: usize,
    /// Prompt lookup: the most tokens guessed from what stood in prompt or answer before, which the next step checks, 0 to
    /// 64; 0 is off. `None` is what costs nothing, see [`crate::LanguageSession::free_guesses`]. The answer is the same.
    /// Unused with beams, and where the engine is stateful.
    pub prompt_lookup_num_tokens: Option<usize>,
    /// The most tokens that have to have stood there before for a guess, at least 1.
    pub max_matching_ngram_size: usize,
}

impl Default for GenerationConfig {
    fn default() -> Self {
        Self {
            do_sample: false,
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            no_repeat_ngram_size: 0,
            suppress_tokens: Vec::new(),
            logit_bias: BTreeMap::new(),
            min_new_tokens: 0,
            max_new_tokens: 256,
            max_input_tokens: None,
            stop_token_ids: Vec::new(),
            logprobs: None,
            seed: 0,
            num_beams: 1,
            length_penalty: 1.0,
            early_stopping: EarlyStopping::Heuristic,
            num_return_sequences: 1,
            prompt_lookup_num_tokens: None,
            max_matching_ngram_size: 2,
        }
    }
}

/// When beam search ends, once there are as many ended beams as `num_beams`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EarlyStopping {
    /// When the best open beam's score as it stands is below the worst ended one's: `False` in Hugging Face.
    #[default]
    Heuristic,
    /// At once: `True`.
    Yes,
    /// When no open beam can reach the worst ended one's score any more: `"never"`.
    Never,
}

impl FromStr for EarlyStopping {
    type Err = String;

    /// Hugging Face's values: `true`, `false`, `never`.
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "false" => Ok(Self::Heuristic),
            "true" => Ok(Self::Yes),
            "never" => Ok(Self::Never),
            _ => Err(format!("early_stopping is {text:?}, allowed is true, false or \"never\"")),
        }
    }
}

/// As in Hugging Face's files: a truth value, or `"never"`.
impl<'de> Deserialize<'de> for EarlyStopping {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "expected true, false or \"never\"")]
        enum Value {
            Truth(bool),
            Text(String),
        }
        match Value::deserialize(deserializer)? {
            Value::Truth(true) => Ok(Self::Yes),
            Value::Truth(false) => Ok(Self::Heuristic),
            Value::Text(text) => text.parse().map_err(D::Error::custom),
        }
    }
}

/// Each row has a KV cache of its own.
const MOST_ROWS: usize = 64;
/// Bounds the memory that a long answer's report takes.
const MOST_LOGPROBS: usize = 100;
/// Far beyond what settles any choice; with it, sums of logits stay finite.
const LARGEST_BIAS: f32 = 1000.0;

impl GenerationConfig {
    /// Checks every option against its range, and options against each other.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`] naming the first option that is out of range.
    pub fn validate(&self) -> Result<(), Error> {
        let positive = |value: f32| value.is_finite() && value > 0.0;
        check("max_new_tokens", &self.max_new_tokens, self.max_new_tokens >= 1, "1 or more")?;
        check("repetition_penalty", &self.repetition_penalty, positive(self.repetition_penalty), ABOVE_0)?;
        check("temperature", &self.temperature, positive(self.temperature), TEMPERATURE)?;
        check("top_p", &self.top_p, self.top_p > 0.0 && self.top_p <= 1.0, "above 0 and at most 1")?;
        check("min_p", &self.min_p, (0.0..=1.0).contains(&self.min_p), "0 to 1")?;
        for (name, value) in
            [("presence_penalty", self.presence_penalty), ("frequency_penalty", self.frequency_penalty)]
        {
            check(name, &value, (-2.0..=2.0).contains(&value), "-2 to 2")?;
        }
        for (id, bias) in &self.logit_bias {
            let in_range = (-LARGEST_BIAS..=LARGEST_BIAS).contains(bias);
            let allowed = "-1000 to 1000; a token that must never come belongs into suppress_tokens";
            check("logit_bias", &format!("{bias} for token {id}"), in_range, allowed)?;
        }
        if self.min_new_tokens > self.max_new_tokens {
            let allowed = format!("0 to max_new_tokens, {}", self.max_new_tokens);
            check("min_new_tokens", &self.min_new_tokens, false, allowed)?;
        }
        self.validate_sequences()?;
        let guessed = self.prompt_lookup_num_tokens.unwrap_or(0);
        check("prompt_lookup_num_tokens", &guessed, guessed <= MOST_ROWS, "0 to 64")?;
        check("max_matching_ngram_size", &0, self.max_matching_ngram_size > 0, "1 or more")?;
        check("max_input_tokens", &0, self.max_input_tokens != Some(0), "1 or more")?;
        let logprobs = self.logprobs.unwrap_or(0);
        check("logprobs", &logprobs, logprobs <= MOST_LOGPROBS, "0 to 100")
    }

    /// Checks beams and number of answers, which bear on each other.
    fn validate_sequences(&self) -> Result<(), Error> {
        let (beams, sequences) = (self.num_beams, self.num_return_sequences);
        check("num_beams", &beams, (1..=MOST_ROWS).contains(&beams), "1 to 64")?;
        check("num_return_sequences", &sequences, (1..=MOST_ROWS).contains(&sequences), "1 to 64")?;
        check("length_penalty", &self.length_penalty, self.length_penalty.is_finite(), "a finite number")?;
        if beams > 1 {
            let allowed = format!("1 to num_beams, {beams}");
            check("num_return_sequences", &sequences, sequences <= beams, allowed)?;
            check("num_beams", &beams, !self.do_sample, "1 with do_sample: beams are not drawn")?;
            let allowed = "unset with num_beams over 1: the score of a beam is that of the whole answer";
            return check("logprobs", &self.logprobs.unwrap_or(0), self.logprobs.is_none(), allowed);
        }
        let differ = sequences == 1 || (self.do_sample && self.top_k != 1);
        check(
            "num_return_sequences",
            &sequences,
            differ,
            "1 without num_beams and without do_sample or with top_k 1: all would be the same",
        )
    }

    /// Checks the token ids of options against a model's vocabulary.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`] naming the first option with an id that the model has not.
    pub fn validate_token_ids(&self, vocab_size: usize) -> Result<(), Error> {
        let biased: Vec<TokenId> = self.logit_bias.keys().copied().collect();
        for (name, ids) in [
            ("stop_token_ids", &self.stop_token_ids),
            ("suppress_tokens", &self.suppress_tokens),
            ("logit_bias", &biased),
        ] {
            for &id in ids {
                let allowed = || format!("token ids below the vocabulary size, {vocab_size}");
                if id as usize >= vocab_size {
                    check(name, &id, false, allowed())?;
                }
            }
        }
        Ok(())
    }

    /// Checks a prompt's length against `max_input_tokens`.
    ///
    /// # Errors
    ///
    /// [`Error::InputTooLong`].
    pub fn check_prompt_tokens(&self, prompt_tokens: usize) -> Result<(), Error> {
        match self.max_input_tokens {
            Some(limit) if prompt_tokens > limit => Err(Error::InputTooLong { prompt_tokens, limit }),
            _ => Ok(()),
        }
    }
}

const ABOVE_0: &str = "a number above 0";
const TEMPERATURE: &str = "a number above 0; for greedy answers turn do_sample off";

fn check(
    name: &'static str,
    value: &impl ToString,
    in_range: bool,
    allowed: impl Into<Cow<'static, str>>,
) -> Result<(), Error> {
    if in_range {
        return Ok(());
    }
    Err(Error::InvalidOption { name, value: value.to_string(), allowed: allowed.into() })
}

#[cfg(test)]
mod tests {
    use qwen2vl_testkit::check_all;

    use super::*;

    #[test]
    fn options_out_of_range_are_named_with_value_and_range() {
        let with = |set: fn(&mut GenerationConfig)| {
            let mut config = GenerationConfig::default();
            set(&mut config);
            config
        };
        let cases = [
            (with(|c| c.max_new_tokens = 0), "max_new_tokens is 0, allowed is 1 or more"),
            (with(|c| c.temperature = 0.0), "temperature is 0, allowed is a number above 0"),
            (with(|c| c.temperature = f32::NAN), "temperature is NaN"),
            (with(|c| c.top_p = 1.5), "top_p is 1.5, allowed is above 0 and at most 1"),
            (with(|c| c.top_p = 0.0), "top_p is 0"),
            (with(|c| c.min_p = -0.1), "min_p is -0.1, allowed is 0 to 1"),
            (with(|c| c.min_p = f32::NAN), "min_p is NaN"),
            (with(|c| c.repetition_penalty = -1.0), "repetition_penalty is -1"),
            (with(|c| c.presence_penalty = 2.5), "presence_penalty is 2.5, allowed is -2 to 2"),
            (with(|c| c.frequency_penalty = f32::NAN), "frequency_penalty is NaN"),
            (
                with(|c| c.logit_bias = [(7, f32::NEG_INFINITY)].into()),
                "logit_bias is -inf for token 7, allowed is -1000 to 1000",
            ),
            (
                with(|c| (c.min_new_tokens, c.max_new_tokens) = (9, 8)),
                "min_new_tokens is 9, allowed is 0 to max_new_tokens, 8",
            ),
            (with(|c| c.max_input_tokens = Some(0)), "max_input_tokens is 0, allowed is 1 or more"),
            (with(|c| c.num_beams = 0), "num_beams is 0, allowed is 1 to 64"),
            (with(|c| c.num_return_sequences = 65), "num_return_sequences is 65, allowed is 1 to 64"),
            (
                with(|c| c.num_return_sequences = 2),
                "num_return_sequences is 2, allowed is 1 without num_beams",
            ),
            (
                with(|c| (c.num_return_sequences, c.do_sample, c.top_k) = (2, true, 1)),
                "num_return_sequences is 2, allowed is 1 without num_beams and without do_sample or with top_k 1",
            ),
            (
                with(|c| (c.num_beams, c.num_return_sequences) = (2, 3)),
                "num_return_sequences is 3, allowed is 1 to num_beams, 2",
            ),
            (with(|c| (c.num_beams, c.do_sample) = (2, true)), "num_beams is 2, allowed is 1 with do_sample"),
            (with(|c| (c.num_beams, c.logprobs) = (2, Some(1))), "logprobs is 1, allowed is unset"),
            (with(|c| c.length_penalty = f32::INFINITY), "length_penalty is inf"),
            (with(|c| c.logprobs = Some(101)), "logprobs is 101, allowed is 0 to 100"),
            (
                with(|c| c.suppress_tokens = vec![3, 300]),
                "suppress_tokens is 300, allowed is token ids below the vocabulary size, 300",
            ),
            (with(|c| c.logit_bias = [(301, 1.0)].into()), "logit_bias is 301"),
            (with(|c| c.stop_token_ids = vec![302]), "stop_token_ids is 302"),
        ];
        check_all(
            &cases,
            |c| c.1.to_owned(),
            |(config, want)| match config.validate().and_then(|()| config.validate_token_ids(300)) {
                Err(error @ Error::InvalidOption { .. }) if error.to_string().contains(want) => Ok(()),
                other => Err(format!("{other:?}")),
            },
        );
    }

    #[test]
    fn the_ends_of_ranges_are_allowed() {
        let config = GenerationConfig {
            min_p: 1.0,
            presence_penalty: -2.0,
            frequency_penalty: 2.0,
            logit_bias: BTreeMap::from([(299, -1000.0)]),
            suppress_tokens: vec![299],
            min_new_tokens: 8,
            max_new_tokens: 8,
            max_input_tokens: Some(1),
            logprobs: Some(100),
            ..GenerationConfig::default()
        };
        config.validate().and_then(|()| config.validate_token_ids(300)).unwrap();
        config.check_prompt_tokens(1).unwrap();
        let error = config.check_prompt_tokens(2).unwrap_err().to_string();
        assert!(error.contains("has 2 tokens") && error.contains("allows 1"), "{error}");
    }
}
