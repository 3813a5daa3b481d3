//! Whole answers: the demo model's evaluation set against transformers and optimum-intel, and what must not change an
//! answer. tools/reference/end_to_end.py wrote the goldens.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod answers;
mod bad_input;
mod beams;
mod boxes;
mod breaks;
mod conversation;
mod engine;
mod kept_models;
mod layers;
mod memory;
mod options;
mod precisions;
mod same_answers;
mod scoring;
mod set;
mod spark_package;
mod structured;
mod video;
mod vision_cache;
