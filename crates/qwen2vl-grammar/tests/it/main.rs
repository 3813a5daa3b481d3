//! Answers of a scripted model under formats, over the true vocabulary.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod errors;
mod random_schemas;
mod run;
mod schema_gen;
mod texts;
