//! What a request may change: pixel limits, how the answer is chosen, where it ends, what is reported.

mod named;

use std::collections::BTreeMap;

use qwen2vl_package::ModelPackage;
use qwen2vl_preprocess::PixelLimits;
use qwen2vl_runtime::{EarlyStopping, GenerationConfig};
use qwen2vl_types::TokenId;
use serde::Deserialize;

use crate::{AnswerFormat, BoxForms, Error, VideoOptions, structured};

/// What one request changes of the annotator's defaults; `None` keeps them. An empty list is set, and none.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct RequestOptions {
    /// Fewest pixels of an image after resizing.
    pub min_pixels: Option<u64>,
    /// Most pixels of an image after resizing.
    pub max_pixels: Option<u64>,
    /// The most tokens a prompt may have, those of its images and videos included; a longer one is an error.
    pub max_input_tokens: Option<usize>,
    /// No stop token ends the answer before it has this many tokens. Stop strings still do, as in Hugging Face's
    /// `generate`.
    pub min_new_tokens: Option<usize>,
    /// The most tokens an answer may have.
    pub max_new_tokens: Option<usize>,
    /// Draw from the distribution instead of taking the most probable token.
    pub do_sample: Option<bool>,
    /// Divides the logits before drawing.
    pub temperature: Option<f32>,
    /// Keep the k most probable tokens; 0 keeps all.
    pub top_k: Option<usize>,
    /// Keep the most probable tokens up to this mass.
    pub top_p: Option<f32>,
    /// Keep the tokens that are at least this times as probable as the most probable one; 0 keeps all.
    pub min_p: Option<f32>,
    /// Penalty on tokens of prompt and answer.
    pub repetition_penalty: Option<f32>,
    /// Taken once from the logits of tokens that the answer has.
    pub presence_penalty: Option<f32>,
    /// Taken from the logits of tokens as often as the answer has them.
    pub frequency_penalty: Option<f32>,
    /// No run of this many tokens comes twice in prompt and answer together; 0 is off.
    pub no_repeat_ngram_size: Option<usize>,
    /// Tokens that are never chosen.
    pub suppress_tokens: Option<Vec<TokenId>>,
    /// Added to the logits of single tokens.
    pub logit_bias: Option<BTreeMap<TokenId, f32>>,
    /// Seed of the draws.
    pub seed: Option<u64>,
    /// Token ids that end the answer.
    pub stop_token_ids: Option<Vec<TokenId>>,
    /// Texts that end the answer as soon as it contains one; the text before it is kept.
    pub stop_strings: Option<Vec<String>>,
    /// Report log-probabilities of the answer's tokens, and of this many most probable ones at each.
    pub logprobs: Option<usize>,
    /// Beams of a beam search, whose best answers are the result; 1 is none. More than one turn sampling off where only
    /// the model's own options have it on, and sampling turns off the model's own beams.
    pub num_beams: Option<usize>,
    /// Exponent of a beam's length, by which its score is divided: above 0 longer answers win, below 0 shorter ones.
    pub length_penalty: Option<f32>,
    /// When a beam search ends.
    pub early_stopping: Option<EarlyStopping>,
    /// Answers to a request: drawn ones, or at most as many as there are beams, the best first. Those behind the first
    /// are the annotation's `alternatives`.
    pub num_return_sequences: Option<usize>,
    /// Prompt lookup: the most tokens guessed from what stood in prompt or answer before and checked in one step; 0 is off.
    /// The answer is the same, and comes sooner where it repeats what was there. Not set: a few, where they cost nothing.
    pub prompt_lookup_num_tokens: Option<usize>,
    /// The most tokens that have to have stood there before for a guess.
    pub max_matching_ngram_size: Option<usize>,
    /// Name images and videos in the prompt: "Picture 1: ".
    pub add_vision_id: Option<bool>,
    /// Put a question before its images and videos instead of behind them: a long one that is asked about many images is
    /// then computed once for all ([`crate::AnnotatorBuilder::prefix_cache_bytes`]). Messages and written-out prompts have an
    /// order of their own.
    pub text_first: Option<bool>,
    /// Refuse a written-out prompt that has no placeholder for the request's media, which otherwise is put in front of
    /// the user's words, with a warning.
    pub strict_prompt: Option<bool>,
    /// Leave special tokens, as the marks of boxes, out of the answer's text.
    pub skip_special_tokens: Option<bool>,
    /// How frames of videos are chosen, where a video does not say itself.
    #[serde(skip)]
    pub video: VideoOptions,
    /// Which forms of boxes are read from the answer; those between special tokens if not set, also where these are
    /// left out of the text.
    pub boxes: Option<BoxForms>,
    /// The form of the answer, which it always has, also where tokens run low: then it is closed and not `complete`.
    pub format: Option<AnswerFormat>,
}

impl RequestOptions {
    /// These options where they are set, else `defaults`.
    pub fn or(&self, defaults: &Self) -> Self {
        Self {
            min_pixels: self.min_pixels.or(defaults.min_pixels),
            max_pixels: self.max_pixels.or(defaults.max_pixels),
            max_input_tokens: self.max_input_tokens.or(defaults.max_input_tokens),
            min_new_tokens: self.min_new_tokens.or(defaults.min_new_tokens),
            max_new_tokens: self.max_new_tokens.or(defaults.max_new_tokens),
            do_sample: self.do_sample.or(defaults.do_sample),
            temperature: self.temperature.or(defaults.temperature),
            top_k: self.top_k.or(defaults.top_k),
            top_p: self.top_p.or(defaults.top_p),
            min_p: self.min_p.or(defaults.min_p),
            repetition_penalty: self.repetition_penalty.or(defaults.repetition_penalty),
            presence_penalty: self.presence_penalty.or(defaults.presence_penalty),
            frequency_penalty: self.frequency_penalty.or(defaults.frequency_penalty),
            no_repeat_ngram_size: self.no_repeat_ngram_size.or(defaults.no_repeat_ngram_size),
            suppress_tokens: self.suppress_tokens.clone().or_else(|| defaults.suppress_tokens.clone()),
            logit_bias: self.logit_bias.clone().or_else(|| defaults.logit_bias.clone()),
            seed: self.seed.or(defaults.seed),
            stop_token_ids: self.stop_token_ids.clone().or_else(|| defaults.stop_token_ids.clone()),
            stop_strings: self.stop_strings.clone().or_else(|| defaults.stop_strings.clone()),
            logprobs: self.logprobs.or(defaults.logprobs),
            num_beams: self.num_beams.or(defaults.num_beams),
            length_penalty: self.length_penalty.or(defaults.length_penalty),
            early_stopping: self.early_stopping.or(defaults.early_stopping),
            num_return_sequences: self.num_return_sequences.or(defaults.num_return_sequences),
            prompt_lookup_num_tokens: self.prompt_lookup_num_tokens.or(defaults.prompt_lookup_num_tokens),
            max_matching_ngram_size: self.max_matching_ngram_size.or(defaults.max_matching_ngram_size),
            add_vision_id: self.add_vision_id.or(defaults.add_vision_id),
            text_first: self.text_first.or(defaults.text_first),
            strict_prompt: self.strict_prompt.or(defaults.strict_prompt),
            skip_special_tokens: self.skip_special_tokens.or(defaults.skip_special_tokens),
            video: self.video.or(&defaults.video),
            boxes: self.boxes.or(defaults.boxes),
            format: self.format.clone().or_else(|| defaults.format.clone()),
        }
    }

    /// The texts that end an answer: these options' or the model's own.
    pub(crate) fn stop_strings<'a>(&'a self, package: &'a ModelPackage) -> &'a [String] {
        self.stop_strings.as_ref().unwrap_or(&package.stop_strings)
    }

    /// Checks all options that need no image against a model, whose own stand in place of those left open. Every
    /// request is checked so before its images are read; with this a program can do it once, before a model is loaded.
    ///
    /// # Errors
    ///
    /// [`qwen2vl_runtime::Error::InvalidOption`] in [`Error::Runtime`], naming option, value and range.
    pub fn validate(&self, package: &ModelPackage) -> Result<(), Error> {
        let config = self.generation(&package.generation);
        config.validate()?;
        config.validate_token_ids(package.model.vocab_size)?;
        structured::check(self, &config)?;
        if self.stop_strings.iter().flatten().any(String::is_empty) {
            return Err(qwen2vl_runtime::Error::InvalidOption {
                name: "stop_strings",
                value: "\"\"".to_owned(),
                allowed: "texts of at least one character".into(),
            }
            .into());
        }
        Ok(())
    }

    /// The model's limits with the set ones put in.
    pub(crate) fn pixel_limits(&self, model: PixelLimits) -> PixelLimits {
        PixelLimits {
            min_pixels: self.min_pixels.unwrap_or(model.min_pixels),
            max_pixels: self.max_pixels.unwrap_or(model.max_pixels),
        }
    }

    /// The model's generation options with the set ones put in. Naming a temperature, top-k or top-p alone does not
    /// turn sampling on, as in Hugging Face's `generate`.
    pub(crate) fn generation(&self, model: &GenerationConfig) -> GenerationConfig {
        let list = |own: &Option<Vec<TokenId>>, model: &[TokenId]| own.clone().unwrap_or(model.to_vec());
        let names_beams = self.num_beams.is_some_and(|beams| beams > 1);
        let own_beams = if self.do_sample == Some(true) { 1 } else { model.num_beams };
        GenerationConfig {
            do_sample: self.do_sample.unwrap_or(model.do_sample && !names_beams),
            temperature: self.temperature.unwrap_or(model.temperature),
            top_k: self.top_k.unwrap_or(model.top_k),
            top_p: self.top_p.unwrap_or(model.top_p),
            min_p: self.min_p.unwrap_or(model.min_p),
            repetition_penalty: self.repetition_penalty.unwrap_or(model.repetition_penalty),
            presence_penalty: self.presence_penalty.unwrap_or(model.presence_penalty),
            frequency_penalty: self.frequency_penalty.unwrap_or(model.frequency_penalty),
            no_repeat_ngram_size: self.no_repeat_ngram_size.unwrap_or(model.no_repeat_ngram_size),
            suppress_tokens: list(&self.suppress_tokens, &model.suppress_tokens),
            logit_bias: self.logit_bias.clone().unwrap_or_else(|| model.logit_bias.clone()),
            min_new_tokens: self.min_new_tokens.unwrap_or(model.min_new_tokens),
            max_new_tokens: self.max_new_tokens.unwrap_or(model.max_new_tokens),
            max_input_tokens: self.max_input_tokens.or(model.max_input_tokens),
            stop_token_ids: list(&self.stop_token_ids, &model.stop_token_ids),
            logprobs: self.logprobs.or(model.logprobs),
            seed: self.seed.unwrap_or(model.seed),
            num_beams: self.num_beams.unwrap_or(own_beams),
            length_penalty: self.length_penalty.unwrap_or(model.length_penalty),
            early_stopping: self.early_stopping.unwrap_or(model.early_stopping),
            num_return_sequences: self.num_return_sequences.unwrap_or(model.num_return_sequences),
            prompt_lookup_num_tokens: self.prompt_lookup_num_tokens.or(model.prompt_lookup_num_tokens),
            max_matching_ngram_size: self.max_matching_ngram_size.unwrap_or(model.max_matching_ngram_size),
        }
    }
}

/// Refuses beams and several answers, with what is `allowed` where there can be only one.
pub(crate) fn one_answer(config: &GenerationConfig, allowed: &'static str) -> Result<(), Error> {
    let options = [("num_beams", config.num_beams), ("num_return_sequences", config.num_return_sequences)];
    match options.into_iter().find(|(_, value)| *value > 1) {
        Some((name, value)) => {
            let value = value.to_string();
            Err(qwen2vl_runtime::Error::InvalidOption { name, value, allowed: allowed.into() }.into())
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beams_and_sampling_of_the_model_give_way_to_what_a_request_names() {
        let sampling = GenerationConfig { do_sample: true, ..GenerationConfig::default() };
        let beams = GenerationConfig { num_beams: 4, ..GenerationConfig::default() };
        let named =
            |num_beams, do_sample| RequestOptions { num_beams, do_sample, ..RequestOptions::default() };
        for (model, options, want) in [
            (&sampling, named(None, None), (true, 1)),
            (&sampling, named(Some(1), None), (true, 1)),
            (&sampling, named(Some(3), None), (false, 3)),
            (&beams, named(None, None), (false, 4)),
            (&beams, named(None, Some(true)), (true, 1)),
            (&beams, named(None, Some(false)), (false, 4)),
            (&beams, named(Some(2), None), (false, 2)),
            // A contradiction, which validation names.
            (&beams, named(Some(2), Some(true)), (true, 2)),
        ] {
            let got = options.generation(model);
            assert_eq!((got.do_sample, got.num_beams), want, "{options:?}");
        }
    }
}
