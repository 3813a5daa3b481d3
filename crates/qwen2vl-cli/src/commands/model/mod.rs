//! `qwen2vl model`: fetching models and looking at them.

mod fetch;
mod info;
mod list;
mod verify;

use anyhow::Result;

use crate::args::ModelCommand;

/// Runs one of the commands; the exit code.
pub fn run(command: &ModelCommand) -> Result<u8> {
    match command {
        ModelCommand::Fetch(args) => fetch::run(args),
        ModelCommand::List(args) => list::run(args),
        ModelCommand::Info(args) => info::run(args),
        ModelCommand::Verify(args) => verify::run(args),
    }
}
