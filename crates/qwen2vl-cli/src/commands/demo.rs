//! `qwen2vl demo`: the embedded pictures, questions and model, with the truth beside each answer.

use std::time::Instant;

use anyhow::{Context, Result};
use qwen2vl_demo_model::{SAMPLES, Sample};
use qwen2vl_pipeline::{Annotator, Request, VideoInput};

use crate::args::DemoArgs;
use crate::model;

/// What to run for the true model.
const TRUE_MODEL: &str =
    "qwen2vl model fetch && qwen2vl annotate --model qwen2_vl_2b_instruct_int4 photo.jpg";

/// Runs the command; the exit code.
pub fn run(args: &DemoArgs) -> Result<u8> {
    let started = Instant::now();
    let annotator = model::builder(model::demo_package()?, &args.engine).build()?;
    println!("demo model ready in {:.1} s\n", started.elapsed().as_secs_f64());
    let mut right = 0;
    for sample in SAMPLES {
        right += usize::from(show(&annotator, sample)?);
    }
    println!(
        "{right} of {} right. The demo model is tiny: it reads shapes, colours and digits, nothing else.",
        SAMPLES.len()
    );
    println!("For the true model (2.2 billion parameters): {TRUE_MODEL}");
    Ok(0)
}

/// Asks one sample's question; whether the answer is right.
fn show(annotator: &Annotator, sample: &Sample) -> Result<bool> {
    let mut request = Request::question(sample.question);
    for (_, bytes) in sample.images {
        request = request.image(*bytes);
    }
    if !sample.frames.is_empty() {
        request = request.video(sample.frames.iter().map(|(_, bytes)| *bytes).collect::<VideoInput>());
    }
    let started = Instant::now();
    let annotation = annotator.run(&request).with_context(|| format!("sample {}", sample.name))?;
    let elapsed = started.elapsed();
    let right = annotation.result == sample.answer;
    let names: Vec<&str> = sample.images.iter().chain(sample.frames).map(|(name, _)| *name).collect();
    println!("{} ({})", sample.kind, names.join(", "));
    println!("  question  {}", sample.question);
    println!("  answer    {}", annotation.result);
    println!("  truth     {}{}", sample.answer, if right { "" } else { "   <- differs" });
    println!("  time      {:.0} ms\n", elapsed.as_secs_f64() * 1000.0);
    Ok(right)
}
