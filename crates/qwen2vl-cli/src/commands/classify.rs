//! `qwen2vl classify`: of given labels the most probable one for each input.

use std::ops::ControlFlow;

use anyhow::{Context, Result};
use qwen2vl_pipeline::{Labels, RequestOptions, ScoreRow};

use super::Prompt;
use super::bulk::{self, Notices};
use crate::args::ClassifyArgs;
use crate::interrupt;
use crate::model::{self, Limits};
use crate::output::Output;

/// Up to so many labels are named in the question, unless one was typed.
const MOST_NAMED: usize = 50;

/// Runs the command; the exit code.
pub fn run(args: &ClassifyArgs) -> Result<u8> {
    let labels = labels(args)?;
    let prompt = Prompt::read(&args.prompt)?.or(question(&labels));
    let cancel = interrupt::cancel_on_interrupt()?;
    let package = model::package(&args.model)?;
    let model_name = package.name.clone();

    let mut options = RequestOptions::default();
    options.add_vision_id = Some(args.prompt.add_vision_id);
    options.strict_prompt = Some(args.prompt.strict_prompt);
    let max_pixels = package.preprocess.pixel_limits.max_pixels;
    let limits = Limits::apply(&args.limits, &args.model.engine.device, max_pixels, &mut options);

    let (names, requests) = bulk::requests(&args.inputs, &args.prompt, &prompt, &options);
    let annotator = model::builder(package, &args.model.engine).pdf_dpi(args.pdf.dpi).build()?;
    let labels = Labels::new(annotator.processor().tokenizer(), &labels)?;
    let mut output = Output::open(args.output.as_deref(), args.format, names.len() > 1)?;
    let bar = bulk::progress_bar(names.len());

    let (mut failed, mut written) = (0, Ok(()));
    let mut notices = Notices::new(limits);
    annotator.score_all(requests, &labels, &cancel, |index, result| {
        match &result {
            Ok(scores) => notices.show(&bar, &scores.media, &scores.warnings),
            Err(_) => failed += 1,
        }
        let (name, prompt) = names[index].clone();
        written = bar.suspend(|| output.write(&ScoreRow::new(name, prompt, &model_name, result)));
        bar.inc(1);
        if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    bar.finish_and_clear();
    written?;
    Ok(bulk::exit_code(&cancel, failed))
}

/// The labels that were typed, or those of the file, a line each.
fn labels(args: &ClassifyArgs) -> Result<Vec<String>> {
    let Some(path) = &args.labels_file else {
        return Ok(args.labels.iter().map(|label| label.trim().to_owned()).collect());
    };
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    Ok(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect())
}

/// What is asked when nothing is.
fn question(labels: &[String]) -> String {
    if labels.len() > MOST_NAMED {
        return "What is in this image? Answer with its name only.".to_owned();
    }
    format!("Which of these is in this image: {}? Answer with one of them only.", labels.join(", "))
}
