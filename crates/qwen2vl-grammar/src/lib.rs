#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod completion;
mod constraint;
mod engine;
mod error;
mod format;
mod grammar;
mod schema;
mod walk;

pub use constraint::GrammarConstraint;
pub use engine::GrammarEngine;
pub use error::Error;
pub use format::Format;
pub use grammar::Grammar;
