//! Sets everything up, then runs the main job.

use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::workspace::{cargo, check, show};
use crate::{setup, workspace};

const BUILD: &[&str] = &["build", "--release", "--package", "qwen2vl-cli", "--bin", "qwen2vl"];

/// Builds the `qwen2vl` program and becomes `qwen2vl demo` with `args`.
///
/// # Errors
///
/// If the set-up or the build fails.
pub fn run(args: &[String]) -> Result<ExitCode> {
    setup::run()?;
    become_qwen2vl(&["demo"], args)
}

/// Builds the `qwen2vl` program and becomes it.
///
/// # Errors
///
/// If the build fails.
pub fn become_qwen2vl(command: &[&str], args: &[String]) -> Result<ExitCode> {
    check(cargo().args(BUILD))?;
    let program =
        workspace::target_dir()?.join("release").join(format!("qwen2vl{}", std::env::consts::EXE_SUFFIX));
    become_command(Command::new(program).args(command).args(args))
}

/// On Unix the program takes our place, so that Ctrl-C reaches it alone and its exit code is ours.
fn become_command(command: &mut Command) -> Result<ExitCode> {
    let shown = show(command);
    #[cfg(unix)]
    {
        let error = std::os::unix::process::CommandExt::exec(command);
        Err(error).with_context(|| format!("cannot start `{shown}`"))
    }
    #[cfg(not(unix))]
    {
        let status = command.status().with_context(|| format!("cannot start `{shown}`"))?;
        Ok(ExitCode::from(status.code().and_then(|c| u8::try_from(c).ok()).unwrap_or(1)))
    }
}
