//! What commands with one result per input have in common, as flags.

use std::path::PathBuf;

use clap::Args;

use super::{Format, LimitArgs, ModelArgs, PdfArgs, PromptArgs, VideoArgs, VisionCacheArgs};

#[derive(Debug, Args)]
pub struct BulkArgs {
    /// What there is to be a result of.
    #[arg(
        required_unless_present = "messages",
        value_name = "INPUT",
        help = "Image and video files, PDFs (all pages, or file.pdf#page=3, or file.pdf#pages=1-3,7), folders (searched \
                for all of them, with subfolders), glob patterns, data: URLs, or JSONL files of \
                {\"image\": path or [paths], \"video\": path or [frame paths], \"prompt\": text, \
                \"options\": {name: value}}; other fields are columns for the prompt, as {category}"
    )]
    pub inputs: Vec<String>,
    #[command(flatten)]
    pub prompt: PromptArgs,
    /// Form of the results
    #[arg(long, value_enum, default_value_t = Format::Text, env = "QWEN2VL_FORMAT")]
    pub format: Format,
    /// Write the results to this file instead of stdout
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub limits: LimitArgs,
    #[command(flatten)]
    pub pdf: PdfArgs,
    #[command(flatten)]
    pub video: VideoArgs,
    #[command(flatten)]
    pub cache: VisionCacheArgs,
}
