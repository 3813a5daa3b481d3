//! Integration tests: the loop on a scripted model, the engine on the demo model in its forms.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod beams;
mod demo;
mod demo_model;
mod fake_model;
mod forms;
mod prompt_lookup;
mod score;
mod scripted;
