//! Fetches a model through the `qwen2vl` program. Nothing is set up: fetching needs no OpenVINO.

use std::process::ExitCode;

use anyhow::Result;

use crate::demo::become_qwen2vl;

/// Builds the `qwen2vl` program and becomes `qwen2vl model fetch` with `args`.
///
/// # Errors
///
/// If the build fails.
pub fn run(args: &[String]) -> Result<ExitCode> {
    become_qwen2vl(&["model", "fetch"], args)
}
