//! Answers of a scripted model under formats, over the true vocabulary.

mod errors;
mod random_schemas;
mod run;
mod schema_gen;
mod texts;
