//! `qwen2vl annotate`: one row per input, whatever happens to the others.

use std::ops::ControlFlow;

use anyhow::{Result, ensure};
use qwen2vl_pipeline::{FinishReason, ResultRow};

use super::Prompt;
use super::boxes::{self, BoxFiles};
use super::bulk::{self, Notices};
use crate::args::{AnnotateArgs, Format};
use crate::interrupt;
use crate::model;
use crate::output::Output;

/// Runs the command; the exit code.
pub fn run(args: &AnnotateArgs) -> Result<u8> {
    let shown = args.generation.logprobs.is_none() || args.bulk.format == Format::Jsonl;
    ensure!(shown, "--logprobs needs --format jsonl: answers as text have no place for them");
    let shown =
        args.generation.num_return_sequences.is_none_or(|n| n < 2) || args.bulk.format == Format::Jsonl;
    ensure!(shown, "--num-return-sequences needs --format jsonl: as text each input has one answer");
    let bulk = &args.bulk;
    let prompt = Prompt::read(&bulk.prompt)?.animations_as_videos(bulk.video.animations_as_videos);
    let cancel = interrupt::cancel_on_interrupt()?;
    let package = model::package(&bulk.model)?;
    let model_name = package.name.clone();

    let (mut options, limits) = bulk::options(bulk, &package);
    args.generation.fill(&mut options);
    options.boxes = Some(args.boxes.forms());
    options.format = args.structured.format()?;
    // Once and before the model is loaded, not as a row for each input.
    options.validate(&package)?;

    let (names, requests) = bulk::requests(bulk, &prompt, &options);
    let mut box_files = BoxFiles::open(args, requests.iter().flatten())?;
    let mut output = Output::open(bulk.output.as_deref(), bulk.format, names.len() > 1)?;
    let images = boxes::images_of(&requests);
    let annotator = model::builder(package, &bulk.model.engine)
        .concurrency(args.concurrency.into())
        .pdf_dpi(bulk.pdf.dpi)
        .vision_cache(bulk.cache.options())
        .build()?;
    annotator.check(&options)?;
    let bar = bulk::progress_bar(names.len());

    let (mut failed, mut written) = (0, Ok(()));
    let mut notices = Notices::new(limits);
    annotator.run_all(requests, &cancel, |index, result| {
        match &result {
            // Half an answer is no result: its row is left out.
            Ok(annotation) if annotation.finish_reason == FinishReason::Cancelled => {
                return ControlFlow::Break(());
            }
            Ok(annotation) => {
                notices.show(&bar, &annotation.media, &annotation.warnings);
                bar.suspend(|| box_files.add(&annotator, &images[index], annotation));
            }
            Err(_) => failed += 1,
        }
        let (name, prompt) = names[index].clone();
        let row = ResultRow::new(name, prompt, &model_name, result);
        written = bar.suspend(|| output.write(&row));
        bar.inc(1);
        if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    bar.finish_and_clear();
    let unwritten = box_files.finish();
    written?;
    Ok(bulk::exit_code(&cancel, failed + unwritten))
}
