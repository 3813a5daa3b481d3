//! `qwen2vl classify`: of given labels the most probable one for each input.

use std::ops::ControlFlow;

use anyhow::{Context, Result};
use qwen2vl_pipeline::{Labels, ScoreRow};

use super::Prompt;
use super::bulk::{self, Notices};
use crate::args::ClassifyArgs;
use crate::interrupt;
use crate::model;
use crate::output::Output;

/// Up to so many labels are named in the question, unless one was typed.
const MOST_NAMED: usize = 50;

/// Runs the command; the exit code.
pub fn run(args: &ClassifyArgs) -> Result<u8> {
    let labels = labels(args)?;
    let bulk = &args.bulk;
    let prompt = Prompt::read(&bulk.prompt)?.animations_as_videos(bulk.video.animations_as_videos);
    let prompt = prompt.or(question(&labels));
    let cancel = interrupt::cancel_on_interrupt()?;
    let package = model::package(&bulk.model)?;
    let model_name = package.name.clone();

    let (options, limits) = bulk::options(bulk, &package);
    let (names, requests) = bulk::requests(bulk, &prompt, &options);
    let annotator = model::builder(package, &bulk.model.engine)
        .pdf_dpi(bulk.pdf.dpi)
        .vision_cache(bulk.cache.options())
        .build()?;
    let labels = Labels::new(annotator.processor().tokenizer(), &labels)?;
    let mut output = Output::open(bulk.output.as_deref(), bulk.format, names.len() > 1)?;
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
