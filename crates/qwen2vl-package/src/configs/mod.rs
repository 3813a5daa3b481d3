//! The JSON files of an export → the options structs of the layers below.
//!
//! Every value is checked here, so that the layers below may trust what they are given. Field names, defaults and
//! precedence follow Hugging Face transformers 4.57.6; what each file may hold is in the modules.

pub(crate) mod chat_template;
pub(crate) mod generation;
pub(crate) mod model;
pub(crate) mod processor;
