//! `qwen2vl`: annotate images with Qwen2-VL on ordinary CPUs.
//!
//! Glue between a person and `qwen2vl-pipeline`: arguments in, requests built, rows out. Results go to stdout, progress
//! and messages to stderr.

#![forbid(unsafe_code)]

mod args;
mod columns;
mod commands;
mod files;
mod inputs;
mod interrupt;
mod model;
mod output;

use std::io::IsTerminal;
use std::process::ExitCode;

use args::{Cli, Command};
use clap::Parser;

/// Exit code when the work is done but some inputs failed.
const SOME_FAILED: u8 = 1;
/// Exit code when nothing could be done.
const NOTHING_DONE: u8 = 2;
/// Exit code after Ctrl-C, the shell's convention for it.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    let cli = Cli::parse();
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("QWEN2VL_LOG").unwrap_or_else(|_| "warn".into()),
        )
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        .without_time()
        .with_target(false)
        .init();
    let result = match &cli.command {
        Command::Annotate(args) => commands::annotate::run(args),
        Command::Classify(args) => commands::classify::run(args),
        Command::Chat(args) => commands::chat::run(args),
        Command::Inspect(args) => commands::inspect::run(args),
        Command::Plan(args) => commands::plan::run(args),
        Command::Model(command) => commands::model::run(command),
        Command::Cache(command) => commands::cache::run(command),
        Command::Doctor(args) => commands::doctor::run(args),
        Command::Demo(args) => commands::demo::run(args),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        // Whoever reads the rows has enough of them.
        Err(error) if output::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(NOTHING_DONE)
        }
    }
}
