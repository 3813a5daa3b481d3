//! What can be typed: every flag, its help and its environment variable, once.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand, ValueEnum};
use qwen2vl_pipeline::{ImageSize, RequestOptions};

mod boxes;
mod bulk;
mod cache;
mod engine;
mod generation;
mod memory;
mod models;
mod structured;
mod video;

pub use boxes::BoxArgs;
pub use bulk::BulkArgs;
pub use cache::{CacheClearArgs, CacheCommand, CacheInfoArgs, VisionCacheArgs};
pub use engine::EngineArgs;
pub use generation::GenerationArgs;
pub use models::{
    ModelCommand, ModelFetchArgs, ModelInfoArgs, ModelListArgs, ModelSourceArgs, ModelVerifyArgs,
};
pub use structured::StructuredArgs;
pub use video::VideoArgs;

/// Annotate images with Qwen2-VL on ordinary CPUs.
///
/// Without --model the embedded demo model answers: it reads coloured shapes and handwritten digits, nothing else.
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 110)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Ask about images: one result per input
    Annotate(Box<AnnotateArgs>),
    /// Choose among given labels: one result per input, with probabilities, without generating
    Classify(Box<ClassifyArgs>),
    /// Talk about images in the terminal; answers appear as they grow, and no turn is computed twice
    Chat(Box<ChatArgs>),
    /// Show what the model would be given, as JSON, without inference
    Inspect(Box<InspectArgs>),
    /// Predict resized size, tokens and peak memory of image sizes, as JSON
    Plan(PlanArgs),
    /// Fetch models, list those that are here, look into one, verify one
    #[command(subcommand)]
    Model(ModelCommand),
    /// See what is in the cache, and empty it
    #[command(subcommand)]
    Cache(CacheCommand),
    /// Check what is installed, found and usable, and say what to do about the rest
    Doctor(DoctorArgs),
    /// Annotate the embedded sample pictures with the embedded demo model
    Demo(DemoArgs),
}

#[derive(Debug, Args)]
pub struct AnnotateArgs {
    #[command(flatten)]
    pub bulk: BulkArgs,
    /// Inputs answered at once; each step of the language model serves all of them
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=512),
          env = "QWEN2VL_CONCURRENCY")]
    pub concurrency: u16,
    #[command(flatten)]
    pub generation: GenerationArgs,
    #[command(flatten)]
    pub structured: StructuredArgs,
    #[command(flatten)]
    pub boxes: BoxArgs,
}

#[derive(Debug, Args)]
pub struct ClassifyArgs {
    #[command(flatten)]
    pub bulk: BulkArgs,
    /// The labels, each as the model would answer it, with commas between them
    #[arg(
        long,
        value_name = "LABELS",
        value_delimiter = ',',
        required_unless_present = "labels_file",
        env = "QWEN2VL_LABELS"
    )]
    pub labels: Vec<String>,
    /// A text file with a label on each line, instead of --labels
    #[arg(long, value_name = "FILE", conflicts_with = "labels")]
    pub labels_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct ChatArgs {
    /// Images of the first question
    #[arg(value_name = "IMAGE")]
    pub images: Vec<PathBuf>,
    /// The system prompt [default: the model's]
    #[arg(long, value_name = "TEXT", env = "QWEN2VL_SYSTEM")]
    pub system: Option<String>,
    /// Name the images in the prompt: "Picture 1: "
    #[arg(long, env = "QWEN2VL_ADD_VISION_ID")]
    pub add_vision_id: bool,
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub limits: LimitArgs,
    #[command(flatten)]
    pub pdf: PdfArgs,
    #[command(flatten)]
    pub generation: GenerationArgs,
}

#[derive(Debug, Args)]
pub struct InspectArgs {
    /// Images and videos that go into one prompt, or JSONL files, of which each row is a prompt; none for text alone
    #[arg(value_name = "INPUT")]
    pub inputs: Vec<String>,
    #[command(flatten)]
    pub prompt: PromptArgs,
    /// Write the pixel_values of each image and video to this folder as NumPy files
    #[arg(long, value_name = "DIR")]
    pub npy: Option<PathBuf>,
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub limits: LimitArgs,
    #[command(flatten)]
    pub pdf: PdfArgs,
    #[command(flatten)]
    pub video: VideoArgs,
}

#[derive(Debug, Args)]
pub struct PlanArgs {
    /// Image sizes, width x height in pixels, for example 1920x1080
    #[arg(required = true, value_name = "WxH", value_parser = parse_size)]
    pub sizes: Vec<ImageSize>,
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub limits: LimitArgs,
    /// The most tokens an answer may have
    #[arg(long, value_name = "N", env = "QWEN2VL_MAX_NEW_TOKENS")]
    pub max_new_tokens: Option<usize>,
}

#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Print the findings as one JSON object
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub model: ModelArgs,
}

#[derive(Debug, Args)]
pub struct DemoArgs {
    #[command(flatten)]
    pub engine: EngineArgs,
}

#[derive(Debug, Args)]
pub struct PromptArgs {
    /// The question; JSONL rows may have their own
    #[arg(short, long, value_name = "TEXT", env = "QWEN2VL_PROMPT", conflicts_with = "messages")]
    pub prompt: Option<String>,
    /// Take the prompt verbatim, without the chat template; <|image_pad|> is still expanded. A prompt with <|im_start|>
    /// in it is always taken so
    #[arg(long, conflicts_with = "messages")]
    pub raw: bool,
    /// Refuse a verbatim prompt without <|image_pad|> for its images, which otherwise is put in front, with a warning
    #[arg(long, env = "QWEN2VL_STRICT_PROMPT")]
    pub strict_prompt: bool,
    /// A conversation in the JSON form of Qwen and OpenAI instead of a prompt; image parts without a source take the
    /// inputs
    #[arg(long, value_name = "FILE")]
    pub messages: Option<PathBuf>,
    /// Name the images in the prompt: "Picture 1: "
    #[arg(long, env = "QWEN2VL_ADD_VISION_ID")]
    pub add_vision_id: bool,
    /// Put the question before its images: a long one about many images is then computed once for all
    #[arg(long, conflicts_with_all = ["raw", "messages"], env = "QWEN2VL_TEXT_FIRST")]
    pub text_first: bool,
}

impl PromptArgs {
    /// Puts what is no part of the prompt itself into options.
    pub fn fill(&self, options: &mut RequestOptions) {
        options.add_vision_id = Some(self.add_vision_id);
        options.text_first = Some(self.text_first);
        options.strict_prompt = Some(self.strict_prompt);
    }
}

#[derive(Debug, Args)]
pub struct ModelArgs {
    /// The model: a path, or the name of a fetched one (`qwen2vl model list`) [default: the embedded demo model]
    #[arg(long, value_name = "MODEL", env = "QWEN2VL_MODEL")]
    pub model: Option<PathBuf>,
    #[command(flatten)]
    pub engine: EngineArgs,
}

#[derive(Debug, Args)]
pub struct LimitArgs {
    /// Fewest pixels of an image after resizing [default: the model's]
    #[arg(long, value_name = "N", env = "QWEN2VL_MIN_PIXELS")]
    pub min_pixels: Option<u64>,
    /// Most pixels of an image after resizing, or "model" for the model's own limit [default: the model's, on a CPU at
    /// most 1003520]
    #[arg(long, value_name = "N", env = "QWEN2VL_MAX_PIXELS")]
    pub max_pixels: Option<MaxPixels>,
}

/// How pages of PDFs become images.
#[derive(Debug, Args)]
pub struct PdfArgs {
    /// Dots an inch at which pages of PDFs are rendered
    #[arg(
        long = "pdf-dpi",
        value_name = "N",
        default_value_t = 150,
        value_parser = clap::value_parser!(u32).range(1..=2400),
        env = "QWEN2VL_PDF_DPI"
    )]
    pub dpi: u32,
}

/// A number of pixels, or the model's own limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaxPixels {
    Model,
    Pixels(u64),
}

impl FromStr for MaxPixels {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "model" {
            return Ok(Self::Model);
        }
        text.parse().map(Self::Pixels).map_err(|_| "expected a number of pixels, or \"model\"".to_owned())
    }
}

/// Form of the results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// The answers; with several inputs each behind its input's name
    Text,
    /// One JSON object a line
    Jsonl,
}

fn parse_size(text: &str) -> Result<ImageSize, String> {
    let parsed = text.split_once(['x', 'X', '×']).and_then(|(width, height)| {
        Some(ImageSize { height: height.trim().parse().ok()?, width: width.trim().parse().ok()? })
    });
    parsed.ok_or_else(|| "expected WIDTHxHEIGHT in pixels, for example 1920x1080".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flags_are_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn sizes_are_width_by_height() {
        assert_eq!(parse_size("1920x1080"), Ok(ImageSize { height: 1080, width: 1920 }));
        for bad in ["", "1920", "x", "1920x", "-1x5", "1e3x5", "99999999999x1"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn max_pixels_is_a_number_or_model() {
        assert_eq!("model".parse(), Ok(MaxPixels::Model));
        assert_eq!("1003520".parse(), Ok(MaxPixels::Pixels(1_003_520)));
        assert!("lots".parse::<MaxPixels>().is_err());
    }
}
