//! Prints an answer while it grows: `cargo run --example stream -- MODEL IMAGE "QUESTION"`.

use std::io::Write;
use std::ops::ControlFlow;

use qwen2vl_pipeline::{Annotator, CancelToken, Request};

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, image, question] = arguments.as_slice() else {
        anyhow::bail!("usage: stream MODEL IMAGE QUESTION");
    };
    let annotator = Annotator::builder().model(model).max_pixels(1_003_520).build()?;
    let request = Request::question(question).image(image.as_str());
    let annotation = annotator.run_stream(&request, &CancelToken::new(), |delta| {
        print!("{delta}");
        // A reader that went away ends the answer.
        if std::io::stdout().flush().is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    println!("\n[{}, {} tokens]", annotation.finish_reason, annotation.token_ids.len());
    Ok(())
}
