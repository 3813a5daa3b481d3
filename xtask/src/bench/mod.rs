//! The benchmarks: scenarios in which ours and its peers do the same work in turns, in one run. On a machine whose speed
//! comes and goes only ratios count.

mod compare;
mod join;
mod machine;
mod peer;
mod picture;
mod plot;
mod prepare;
mod preprocess;
mod program;
mod quiet;
mod report;
mod scenario;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, Subcommand, ValueEnum};

use crate::{setup, workspace};
use prepare::Prepared;
use program::Programs;
use report::Report;
use scenario::{SCENARIOS, Scenario};

/// Flags of `cargo xtask bench`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct BenchArgs {
    #[command(subcommand)]
    command: Option<BenchCommand>,
    #[command(flatten)]
    run: RunArgs,
}

#[derive(Debug, Subcommand)]
enum BenchCommand {
    /// Compare the JSON files of two runs; fails where a ratio to a peer became worse
    Compare(compare::CompareArgs),
    /// Make one of the JSON files of runs of single scenarios
    Join(join::JoinArgs),
}

/// What is written of a run beside its table.
#[derive(Debug, Args)]
struct Output {
    /// Write the figures: rows of scenario, metric, ours, peer, peer_name, ratio, goal, met
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw the ratios as a picture
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct RunArgs {
    /// Peers to run beside ours; one that cannot be prepared is skipped
    #[arg(long, value_enum, value_delimiter = ',')]
    against: Vec<Peer>,
    /// Only these scenarios, by name
    #[arg(long, value_delimiter = ',', value_name = "SCENARIO", value_parser = scenario::parse_name)]
    only: Vec<String>,
    /// All scenarios with the demo model, small and once: shows that everything runs, and no figure that means anything
    #[arg(long)]
    quick: bool,
    #[command(flatten)]
    output: Output,
    /// The model, an OpenVINO export [default: one of random weights and the 2B's shapes, made once with Python]
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// The same model as Hugging Face has it, for llama.cpp [default: as --model]
    #[arg(long, value_name = "DIR")]
    hf_model: Option<PathBuf>,
    /// Inference threads [default: each one's own choice]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    threads: Option<u32>,
    /// How often each is measured; medians are shown [default: 3, 1 with --quick]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,
}

impl RunArgs {
    fn rounds(&self) -> u32 {
        self.rounds.unwrap_or(if self.quick { 1 } else { 3 })
    }

    fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == name)
    }
}

/// What ours is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Peer {
    /// openvino-genai, with the same model
    Genai,
    /// llama.cpp with weights of 4 bits (Q4_0), built from the source that llama-cpp-python brings
    Llamacpp,
    /// Hugging Face's fast image processor, for preprocessing
    Hf,
}

/// Runs the scenarios, prints their table and writes what is asked for; or compares two runs.
///
/// # Errors
///
/// If the set-up, a build or one of our own programs fails, or a file cannot be written. A peer that fails is skipped.
pub fn run(args: &BenchArgs) -> Result<ExitCode> {
    match &args.command {
        Some(BenchCommand::Compare(args)) => compare::run(args),
        Some(BenchCommand::Join(args)) => join::run(args),
        None => measure(&args.run).map(|()| ExitCode::SUCCESS),
    }
}

fn measure(args: &RunArgs) -> Result<()> {
    if let Some(path) = &args.output.plot {
        plot::check_name(path)?;
    }
    let library = setup::run()?;
    let mut report = Report::new(machine::describe(&library));
    print!("{}", report.machine);
    report.quiet = quiet::check();
    println!("{}", report.quiet);
    let scenarios: Vec<&Scenario> = SCENARIOS.iter().filter(|s| args.wants(s.name)).collect();
    if !scenarios.is_empty() {
        let work = workspace::target_dir()?.join("bench");
        std::fs::create_dir_all(&work).with_context(|| format!("cannot create {}", work.display()))?;
        let prepared = Prepared::new(args, &scenarios, &work)?;
        let mut programs = Programs::new(args, prepared, &work)?;
        for scenario in scenarios {
            report.add(scenario.measure(&mut programs, args)?);
            // What was measured is kept, whatever becomes of the others.
            report.write(&args.output)?;
        }
    }
    if args.wants(scenario::PREPROCESS) {
        report.add(preprocess::run(args)?);
    }
    println!("\n{}", report.table());
    report.write(&args.output)
}
