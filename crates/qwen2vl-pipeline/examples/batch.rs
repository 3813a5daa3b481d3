//! Asks one question about many images, one line each: `cargo run --example batch -- MODEL "QUESTION" IMAGE...`.

use std::ops::ControlFlow;

use qwen2vl_pipeline::{Annotator, CancelToken, Request};

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, question, images @ ..] = arguments.as_slice() else {
        anyhow::bail!("usage: batch MODEL QUESTION IMAGE...");
    };
    let annotator = Annotator::builder().model(model).max_pixels(1_003_520).build()?;
    let requests = images.iter().map(|image| Ok(Request::question(question).image(image.as_str())));
    annotator.run_all(requests, &CancelToken::new(), |index, result| {
        match result {
            Ok(annotation) => println!("{}: {}", images[index], annotation.result),
            Err(error) => eprintln!("{error}"),
        }
        ControlFlow::Continue(())
    });
    Ok(())
}
