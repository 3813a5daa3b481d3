//! `generation_config.json` → [`GenerationConfig`].
//!
//! What the file leaves out is transformers' default, but for the length: transformers ends an answer at 20 tokens in
//! all (`max_length`), which only warns people; without `max_new_tokens` this project's own default applies.

use std::path::Path;

use qwen2vl_runtime::GenerationConfig;
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

/// The fields of the file that are used.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct GenerationFile {
    do_sample: Option<bool>,
    temperature: Option<f64>,
    top_k: Option<u64>,
    top_p: Option<f64>,
    repetition_penalty: Option<f64>,
    max_new_tokens: Option<u64>,
    /// Not in Hugging Face's files: a saved annotator's `randomSeed`.
    seed: Option<u64>,
    eos_token_id: Option<TokenIds>,
}

impl GenerationFile {
    /// Checks all values. `model_stop_ids` are those of `config.json`, for a file that is not there.
    pub fn generation_config(
        self,
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
        let default = GenerationConfig::default();
        let config = GenerationConfig {
            do_sample: self.do_sample.unwrap_or(false),
            temperature: self.temperature.unwrap_or(1.0) as f32,
            top_k: usize::try_from(self.top_k.unwrap_or(DEFAULT_TOP_K)).unwrap_or(usize::MAX),
            top_p: self.top_p.unwrap_or(1.0) as f32,
            repetition_penalty: self.repetition_penalty.unwrap_or(1.0) as f32,
            max_new_tokens: self
                .max_new_tokens
                .map_or(default.max_new_tokens, |n| usize::try_from(n).unwrap_or(usize::MAX)),
            stop_token_ids,
            seed: self.seed.unwrap_or(default.seed),
        };
        match config.validate() {
            Ok(()) => Ok(config),
            Err(qwen2vl_runtime::Error::InvalidOption { name, value, allowed }) => {
                Err(at.error(name, format!("is {value}, allowed is {allowed}")))
            }
            Err(other) => Err(at.error("generation", other.to_string())),
        }
    }
}
