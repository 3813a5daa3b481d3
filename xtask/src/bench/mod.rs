//! The benchmark tables, peers side by side in one run: on a machine whose speed comes and goes only ratios count.

mod end_to_end;
mod machine;
mod peer;
mod picture;
mod preprocess;
mod table;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::setup;
use picture::Size;

/// Flags of `cargo xtask bench`.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// Peers to run beside ours; one that Python lacks is skipped
    #[arg(long, value_enum, value_delimiter = ',')]
    against: Vec<Peer>,
    /// Only this table
    #[arg(long, value_enum)]
    only: Option<Table>,
    /// The model: an OpenVINO export folder [default: the demo model]
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// The image to ask about [default: a made-up one]
    #[arg(long, value_name = "FILE", conflicts_with = "size")]
    image: Option<PathBuf>,
    /// Size of the made-up image, width x height
    #[arg(long, value_name = "WxH", default_value = "448x448")]
    size: Size,
    /// The question
    #[arg(long, default_value = "Describe the image.")]
    prompt: String,
    /// The most tokens of an answer
    #[arg(long, value_name = "N", default_value_t = 32)]
    max_new_tokens: u32,
    /// Inference threads [default: OpenVINO's choice]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    threads: Option<u32>,
    /// How often each is measured; medians are shown
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
}

/// What ours is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Peer {
    /// openvino-genai's VLMPipeline, end to end
    Genai,
    /// Hugging Face's fast image processor, preprocessing
    Hf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Table {
    /// Load time, time to first token, time per token, peak memory
    EndToEnd,
    /// Image preprocessing
    Preprocess,
}

/// Runs the tables and prints them.
///
/// # Errors
///
/// If the set-up, a build or one of our own programs fails. A peer that cannot run is skipped.
pub fn run(args: &BenchArgs) -> Result<()> {
    let library = setup::run()?;
    print!("{}", machine::describe(&library));
    let wanted = |table| args.only.is_none_or(|only| only == table);
    if wanted(Table::EndToEnd) {
        end_to_end::run(args)?;
    }
    if wanted(Table::Preprocess) {
        preprocess::run(args)?;
    }
    Ok(())
}
