//! `qwen2vl model`: fetching models and looking at them.

mod fetch;
mod info;
mod list;
mod verify;

use anyhow::Result;
use qwen2vl_fetch::FetchOptions;

use crate::args::{ModelCommand, ModelSourceArgs};

/// Runs one of the commands; the exit code.
pub fn run(command: &ModelCommand) -> Result<u8> {
    match command {
        ModelCommand::Fetch(args) => fetch::run(args),
        ModelCommand::List(args) => list::run(args),
        ModelCommand::Info(args) => info::run(args),
        ModelCommand::Verify(args) => verify::run(args),
    }
}

/// The environment's options with those that were typed.
pub fn fetch_options(args: &ModelSourceArgs) -> Result<FetchOptions> {
    let mut options = FetchOptions::from_env()?;
    if let Some(dir) = &args.dir {
        options.models_dir.clone_from(dir);
    }
    if let Some(url) = &args.base_url {
        options.base_url.clone_from(url);
    }
    options.language.clone_from(&args.lang);
    options.offline |= args.offline;
    Ok(options)
}
