//! Renders a question about one image and shows its ids and positions.
//!
//! `cargo run --example prompt -- MODEL_DIR "What is this?"`

use qwen2vl_tokenizer::{ChatTemplate, Message, RenderOptions, Tokenizer};
use qwen2vl_types::GridThw;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let model = std::path::PathBuf::from(arguments.next().ok_or("give the folder of a model")?);
    let question = arguments.next().unwrap_or_else(|| "What is this?".to_owned());

    let tokenizer = Tokenizer::from_file(model.join("tokenizer.json"))?;
    let template = ChatTemplate::new(&std::fs::read_to_string(model.join("chat_template.jinja"))?)?;
    let prompt = template.render(&[Message::question(question, 1, 0)], &RenderOptions::default())?;
    let encoded = tokenizer.prepare(&prompt, &[GridThw { t: 1, h: 4, w: 6 }], &[], 2)?;
    println!("{prompt}\n\n{:?}", encoded.input_ids);
    for (axis, positions) in ["t", "h", "w"].iter().zip(&encoded.position_ids) {
        println!("{axis} {positions:?}");
    }
    println!("rope_delta {}", encoded.rope_delta);
    Ok(())
}
