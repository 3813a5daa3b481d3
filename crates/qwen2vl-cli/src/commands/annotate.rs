//! `qwen2vl annotate`: one row per input, whatever happens to the others.

use std::collections::HashSet;
use std::ops::ControlFlow;

use anyhow::{Result, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use qwen2vl_pipeline::{Error, FinishReason, Request, RequestOptions, ResultRow};
use serde_json::Value;

use super::Prompt;
use super::boxes::{self, BoxFiles};
use crate::args::{AnnotateArgs, Format};
use crate::inputs::{self, Content, Item};
use crate::model::{self, Limits};
use crate::output::Output;
use crate::{INTERRUPTED, SOME_FAILED, interrupt};

/// Runs the command; the exit code.
pub fn run(args: &AnnotateArgs) -> Result<u8> {
    let shown = args.generation.logprobs.is_none() || args.format == Format::Jsonl;
    ensure!(shown, "--logprobs needs --format jsonl: answers as text have no place for them");
    let prompt = Prompt::read(&args.prompt)?;
    let cancel = interrupt::cancel_on_interrupt()?;
    let package = model::package(&args.model)?;
    let model_name = package.name.clone();

    let mut options = RequestOptions::default();
    options.add_vision_id = Some(args.prompt.add_vision_id);
    options.strict_prompt = Some(args.prompt.strict_prompt);
    args.generation.fill(&mut options);
    options.boxes = Some(args.boxes.forms());
    // Once and before the model is loaded, not as a row for each input.
    options.validate(&package)?;
    let max_pixels = package.preprocess.pixel_limits.max_pixels;
    let limits = Limits::apply(&args.limits, &args.model.engine.device, max_pixels, &mut options);

    let (names, requests) = requests(args, &prompt, &options);
    let mut box_files = BoxFiles::open(args, requests.iter().flatten())?;
    let mut output = Output::open(args.output.as_deref(), args.format, names.len() > 1)?;
    let images = boxes::images_of(&requests);
    let annotator = model::builder(package, &args.model.engine).build()?;
    let bar = progress_bar(names.len());

    let (mut failed, mut written) = (0, Ok(()));
    let mut warned = HashSet::new();
    annotator.run_all(requests, &cancel, |index, result| {
        match &result {
            // Half an answer is no result: its row is left out.
            Ok(annotation) if annotation.finish_reason == FinishReason::Cancelled => {
                return ControlFlow::Break(());
            }
            Ok(annotation) => {
                for notice in annotation.media.iter().filter_map(|m| limits.notice(m.size)) {
                    bar.suspend(|| eprintln!("{notice}"));
                }
                for warning in annotation.warnings.iter().filter(|w| warned.insert((*w).clone())) {
                    bar.suspend(|| eprintln!("warning: {warning}"));
                }
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
    Ok(match (cancel.is_cancelled(), failed + unwritten) {
        (true, _) => INTERRUPTED,
        (false, 0) => 0,
        (false, _) => SOME_FAILED,
    })
}

/// What rows call their input and prompt.
type Names = Vec<(Value, String)>;

/// Everything to annotate, in order; what cannot be asked keeps its place as an error.
fn requests(
    args: &AnnotateArgs,
    prompt: &Prompt,
    options: &RequestOptions,
) -> (Names, Vec<Result<Request, Error>>) {
    let mut items = inputs::expand(&args.inputs);
    if let (true, Some(path)) = (items.is_empty(), &args.prompt.messages) {
        items.push(Item { name: path.display().to_string().into(), content: Ok(Content::default()) });
    }
    let one = |item: Item| {
        let Item { name, content } = prompt.fill(item);
        let own = content.as_ref().ok().and_then(|c| c.prompt.clone());
        let request = content.map(|content| prompt.request(content, options));
        ((name, prompt.text(own.as_deref()).to_owned()), request)
    };
    items.into_iter().map(one).unzip()
}

/// Hidden where stderr is not a terminal.
fn progress_bar(len: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {per_sec} eta {eta}")
        .expect("the template is a constant");
    let bar = ProgressBar::new(len as u64).with_style(style);
    bar.enable_steady_tick(std::time::Duration::from_millis(500));
    bar
}
