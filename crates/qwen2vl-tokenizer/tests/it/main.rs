//! Against the goldens of Hugging Face transformers, and on hostile input.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod golden;
mod properties;

use std::sync::LazyLock;

use qwen2vl_tokenizer::Tokenizer;

/// The demo model's tokenizer, which is Qwen2-VL's own.
static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(|| {
    Tokenizer::from_file(qwen2vl_testkit::demo_model_dir().join("tokenizer.json"))
        .expect("the true tokenizer loads")
});
