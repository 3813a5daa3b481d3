//! What happens to a row of logits before a token is chosen from it, in the order of Hugging Face's
//! `GenerationMixin._get_logits_processor` (transformers 4.57.6):
//!
//! 1. [`processors`], whether a token is drawn or not: bias (`SequenceBiasLogitsProcessor` of single ids), repetition
//!    penalty, then vLLM's frequency and presence penalty, no-repeat n-grams, minimum length, suppressed tokens;
//! 2. [`warpers`], only before a draw: temperature, top-k, top-p, min-p.
//!
//! [`logprobs`] looks at the row before all of them. Choosing is the sampler's.

pub(crate) mod history;
pub(crate) mod logprobs;
pub(crate) mod processors;
pub(crate) mod warpers;

#[cfg(test)]
mod golden;

pub use logprobs::{Logprobs, TokenLogprob};
