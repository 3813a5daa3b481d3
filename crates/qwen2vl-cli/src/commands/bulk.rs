//! What commands with one row per input have in common.

use std::collections::HashSet;

use indicatif::{ProgressBar, ProgressStyle};
use qwen2vl_pipeline::{CancelToken, Error, MediaInfo, ModelPackage, Request, RequestOptions};
use serde_json::Value;

use super::Prompt;
use crate::args::BulkArgs;
use crate::inputs::{self, Content, Item};
use crate::model::Limits;
use crate::{INTERRUPTED, SOME_FAILED};

/// What rows call their input and prompt.
pub type Names = Vec<(Value, String)>;

/// The options of all requests, and the limits among them.
pub fn options(args: &BulkArgs, package: &ModelPackage) -> (RequestOptions, Limits) {
    let mut options = RequestOptions::default();
    args.prompt.fill(&mut options);
    options.video = args.video.options();
    let max_pixels = package.preprocess.pixel_limits.max_pixels;
    let limits = Limits::apply(&args.limits, &args.model.engine.device, max_pixels, &mut options);
    (options, limits)
}

/// Everything to ask about, in order; what cannot be asked keeps its place as an error.
pub fn requests(
    args: &BulkArgs,
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
pub fn progress_bar(len: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {per_sec} eta {eta}")
        .expect("the template is a constant");
    let bar = ProgressBar::new(len as u64).with_style(style);
    bar.enable_steady_tick(std::time::Duration::from_millis(500));
    bar
}

/// What people should know about inputs that have a result, each said once.
pub struct Notices {
    limits: Limits,
    said: HashSet<String>,
}

impl Notices {
    /// Nothing was said yet.
    pub fn new(limits: Limits) -> Self {
        Self { limits, said: HashSet::new() }
    }

    /// Says on stderr what is new.
    pub fn show(&mut self, bar: &ProgressBar, media: &[MediaInfo], warnings: &[String]) {
        for notice in media.iter().filter_map(|m| self.limits.notice(m.size)) {
            bar.suspend(|| eprintln!("{notice}"));
        }
        for warning in warnings.iter().filter(|w| self.said.insert((*w).clone())) {
            bar.suspend(|| eprintln!("warning: {warning}"));
        }
    }
}

/// The exit code after so many failures.
pub fn exit_code(cancel: &CancelToken, failed: usize) -> u8 {
    match (cancel.is_cancelled(), failed) {
        (true, _) => INTERRUPTED,
        (false, 0) => 0,
        (false, _) => SOME_FAILED,
    }
}
