//! The repository's chores, as `cargo xtask COMMAND`.
//!
//! It depends on no crate of this workspace, so that it builds in seconds and works while they do not.

#![forbid(unsafe_code)]

mod bench;
mod ci;
mod demo;
mod fetch_model;
mod ffmpeg;
mod openvino;
mod pip;
mod setup;
mod test;
mod tidy;
mod wheel;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The repository's chores
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make OpenVINO available: use the one that is installed or named, else fetch the pinned one, once
    ///
    /// Looked at, in this order: QWEN2VL_OPENVINO (the library or a folder that holds it); an installation
    /// (OPENVINO_INSTALL_DIR, INTEL_OPENVINO_DIR, LD_LIBRARY_PATH, the system's folders); the per-user cache
    /// (QWEN2VL_CACHE, else $XDG_CACHE_HOME/qwen2vl, else ~/.cache/qwen2vl). If there is none, pip downloads the
    /// pinned wheel, as it is configured; the wheel is checked and its libraries are unpacked into the cache.
    /// Python is not needed after that.
    #[command(verbatim_doc_comment)]
    Setup,
    /// Set everything up, then annotate sample pictures with the embedded demo model
    Demo {
        /// Passed on to `qwen2vl demo`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Fetch a model: by its published name, a URL, a hub repository, or a zip that lies here
    #[command(disable_help_flag = true)]
    FetchModel {
        /// Passed on to `qwen2vl model fetch`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Set everything up, then run all tests, end-to-end ones included; closes with their count
    Test {
        /// Passed on to `cargo test --workspace`: a filter, `-p CRATE`, `-- --nocapture`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Check what the compiler does not: layers, module headers, metadata, golden hashes
    Tidy,
    /// Print the benchmark tables, peers side by side in one run
    Bench(Box<bench::BenchArgs>),
    /// Run what has to pass before a change goes in: formatting, clippy, tidy, docs without OpenVINO, tests
    Ci {
        /// Leave the tests out
        #[arg(long)]
        skip_tests: bool,
    },
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Setup => setup::run().map(|_| ExitCode::SUCCESS),
        Command::Demo { args } => demo::run(&args),
        Command::FetchModel { args } => fetch_model::run(&args),
        Command::Test { args } => test::run(&args),
        Command::Tidy => tidy::run(),
        Command::Bench(args) => bench::run(&args),
        Command::Ci { skip_tests } => ci::run(skip_tests),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
