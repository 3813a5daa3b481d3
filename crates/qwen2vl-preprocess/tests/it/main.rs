//! Against the goldens of Hugging Face transformers, and on hostile input.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod animations;
mod golden;
mod heif;
mod hostile;
mod pdf;
mod properties;
mod video_sampling;

use qwen2vl_preprocess::{DecodeOptions, Error, RgbImage, decode_image};

/// A file of the repository.
fn read(relative: &str) -> Vec<u8> {
    let path = qwen2vl_testkit::repository_root().join(relative);
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn decode(relative: &str) -> Result<RgbImage, Error> {
    decode_image(&read(relative), &DecodeOptions::default())
}
