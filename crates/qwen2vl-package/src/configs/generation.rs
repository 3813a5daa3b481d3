//! `generation_config.json` → [`GenerationConfig`].
//!
//! What the file leaves out is transformers' default, but for the length: transformers ends an answer at 20 tokens in
//! all (`max_length`), which only warns people; without `max_new_tokens` this project's own default applies.

use std::collections::BTreeMap;
use std::path::Path;

use qwen2vl_runtime::{EarlyStopping, GenerationConfig};
use qwen2vl_types::TokenId;
use serde::Deserialize;

use crate::Error;
use crate::json::Checker;

/// transformers' default, used only with `do_sample`.
const DEFAULT_TOP_K: u64 = 50;

/// One id or a list of them.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged, expecting = "expected a token id or a list of them")]
pub(crate) enum TokenIds {
    One(TokenId),
    Many(Vec<TokenId>),
}

impl TokenIds {
    pub fn to_vec(&self) -> Vec<TokenId> {
        match self {
            Self::One(id) => vec![*id],
            Self::Many(ids) => ids.clone(),
        }
    }
}

/// One text or a list of them.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged, expecting = "expected a text or a list of them")]
enum Texts {
    One(String),
    Many(Vec<String>),
}

/// The fields of the file that are used.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct GenerationFile {
    do_sample: Option<bool>,
    temperature: Option<f64>,
    top_k: Option<u64>,
    top_p: Option<f64>,
    min_p: Option<f64>,
    repetition_penalty: Option<f64>,
    no_repeat_ngram_size: Option<u64>,
    suppress_tokens: Option<Vec<TokenId>>,
    /// Hugging Face's form of a bias: pairs of ids and what is added.
    sequence_bias: Option<Vec<(Vec<TokenId>, f64)>>,
    min_new_tokens: Option<u64>,
    max_new_tokens: Option<u64>,
    eos_token_id: Option<TokenIds>,
    stop_strings: Option<Texts>,
    num_beams: Option<u64>,
    length_penalty: Option<f64>,
    early_stopping: Option<EarlyStopping>,
    num_return_sequences: Option<u64>,
    prompt_lookup_num_tokens: Option<u64>,
    max_matching_ngram_size: Option<u64>,
    // Not in Hugging Face's files: OpenAI's options, and those of a saved annotator.
    presence_penalty: Option<f64>,
    frequency_penalty: Option<f64>,
    logit_bias: Option<BTreeMap<TokenId, f64>>,
    max_input_tokens: Option<u64>,
    seed: Option<u64>,
}

impl GenerationFile {
    /// Checks all values. `model_stop_ids` are those of `config.json`, for a file that is not there.
    pub fn generation_config(
        &self,
        path: &Path,
        vocab_size: usize,
        model_stop_ids: Vec<TokenId>,
    ) -> Result<GenerationConfig, Error> {
        let at = Checker { path, prefix: "" };
        let stop_token_ids = self.eos_token_id.as_ref().map_or(model_stop_ids, TokenIds::to_vec);
        if let Some(id) = stop_token_ids.iter().find(|id| **id as usize >= vocab_size) {
            let problem = format!("has {id}, it must be below the vocabulary size, {vocab_size}");
            return Err(at.error("eos_token_id", problem));
        }
        let bias = self.bias(at)?;
        let config = self.unchecked(stop_token_ids, bias);
        match config.validate().and_then(|()| config.validate_token_ids(vocab_size)) {
            Ok(()) => Ok(config),
            Err(qwen2vl_runtime::Error::InvalidOption { name, value, allowed }) => {
                let field = match name {
                    "logit_bias" if self.logit_bias.is_none() => "sequence_bias",
                    name => name,
                };
                Err(at.error(field, format!("is {value}, allowed is {allowed}")))
            }
            Err(other) => Err(at.error("generation", other.to_string())),
        }
    }

    /// The texts that end an answer.
    pub fn stop_strings(&self, path: &Path) -> Result<Vec<String>, Error> {
        let texts = match &self.stop_strings {
            None => Vec::new(),
            Some(Texts::One(text)) => vec![text.clone()],
            Some(Texts::Many(texts)) => texts.clone(),
        };
        if texts.iter().any(String::is_empty) {
            let at = Checker { path, prefix: "" };
            return Err(at.error("stop_strings", "has an empty text, each must have a character"));
        }
        Ok(texts)
    }

    fn unchecked(
        &self,
        stop_token_ids: Vec<TokenId>,
        logit_bias: BTreeMap<TokenId, f32>,
    ) -> GenerationConfig {
        let default = GenerationConfig::default();
        let size = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
        let number = |value: Option<f64>, default: f32| value.map_or(default, |v| v as f32);
        let min_new_tokens = self.min_new_tokens.map_or(default.min_new_tokens, size);
        GenerationConfig {
            do_sample: self.do_sample.unwrap_or(default.do_sample),
            temperature: number(self.temperature, default.temperature),
            top_k: size(self.top_k.unwrap_or(DEFAULT_TOP_K)),
            top_p: number(self.top_p, default.top_p),
            min_p: number(self.min_p, default.min_p),
            repetition_penalty: number(self.repetition_penalty, default.repetition_penalty),
            presence_penalty: number(self.presence_penalty, default.presence_penalty),
            frequency_penalty: number(self.frequency_penalty, default.frequency_penalty),
            no_repeat_ngram_size: self.no_repeat_ngram_size.map_or(default.no_repeat_ngram_size, size),
            suppress_tokens: self.suppress_tokens.clone().unwrap_or_default(),
            logit_bias,
            min_new_tokens,
            // A default does not contradict what the file says.
            max_new_tokens: self.max_new_tokens.map_or(default.max_new_tokens.max(min_new_tokens), size),
            max_input_tokens: self.max_input_tokens.map(size),
            stop_token_ids,
            seed: self.seed.unwrap_or(default.seed),
            num_beams: self.num_beams.map_or(default.num_beams, size),
            length_penalty: number(self.length_penalty, default.length_penalty),
            early_stopping: self.early_stopping.unwrap_or(default.early_stopping),
            num_return_sequences: self.num_return_sequences.map_or(default.num_return_sequences, size),
            prompt_lookup_num_tokens: self.prompt_lookup_num_tokens.map(size),
            max_matching_ngram_size: self
                .max_matching_ngram_size
                .map_or(default.max_matching_ngram_size, size),
            ..default
        }
    }

    /// Both spellings as one; sequences of several ids are not supported, and two values for one id contradict.
    fn bias(&self, at: Checker<'_>) -> Result<BTreeMap<TokenId, f32>, Error> {
        let own = self.logit_bias.iter().flatten().map(|(id, bias)| (*id, *bias as f32));
        let mut bias: BTreeMap<TokenId, f32> = own.collect();
        for (ids, value) in self.sequence_bias.iter().flatten() {
            let [id] = ids[..] else {
                let problem = format!("has a sequence of {} ids, only single ids are supported", ids.len());
                return Err(at.error("sequence_bias", problem));
            };
            let value = *value as f32;
            if let Some(other) = bias.insert(id, value).filter(|other| *other != value) {
                let problem = format!("has {value} for token {id}, which has {other} already");
                return Err(at.error("sequence_bias", problem));
            }
        }
        Ok(bias)
    }
}
