//! What has to pass before a change goes in.

use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::workspace::{cargo, check, show};
use crate::{openvino, test, tidy};

/// Runs the checks in the order of their price, and stops at the first that fails.
///
/// # Errors
///
/// The first check that fails.
pub fn run(skip_tests: bool) -> Result<ExitCode> {
    step(cargo().args(["fmt", "--all", "--", "--check"]), "run `cargo fmt --all`")?;
    heading("tidy");
    if tidy::run()? != ExitCode::SUCCESS {
        return Ok(ExitCode::FAILURE);
    }
    let clippy = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
    step(cargo().args(clippy), "clippy has warnings")?;
    step(&mut docs(), "the docs do not build")?;
    if skip_tests {
        return Ok(ExitCode::SUCCESS);
    }
    heading("test");
    test::run(&[])
}

/// The docs as a machine without OpenVINO builds them.
fn docs() -> Command {
    let mut command = cargo();
    command.args(["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings");
    for name in openvino::ENV_INSTALLATIONS {
        command.env_remove(name);
    }
    // A named folder is the only place that is looked at.
    command.env(openvino::ENV_LIBRARY, "hidden").env("QWEN2VL_CACHE", "hidden");
    command
}

fn step(command: &mut Command, hint: &'static str) -> Result<()> {
    heading(&show(command));
    check(command).context(hint)
}

fn heading(text: &str) {
    eprintln!("== {text}");
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    #[test]
    fn the_docs_are_built_without_openvino() {
        let command = docs();
        let envs: Vec<_> = command.get_envs().collect();
        for name in openvino::ENV_INSTALLATIONS {
            assert!(envs.contains(&(OsStr::new(name), None)), "{name}");
        }
        assert!(envs.contains(&(OsStr::new("RUSTDOCFLAGS"), Some(OsStr::new("-D warnings")))));
    }
}
