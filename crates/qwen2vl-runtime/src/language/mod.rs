//! The language model on OpenVINO: a stateful IR whose request holds the KV cache of one conversation.

mod last_logits;
mod stateful;

pub(crate) use stateful::LanguageModel;
