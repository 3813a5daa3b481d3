//! The workspace's folder, and the programs that the chores start.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use cargo_metadata::{Message, Metadata, MetadataCommand};

/// The folder of the workspace.
pub fn root() -> PathBuf {
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    manifest.parent().map_or_else(|| PathBuf::from("."), Path::to_owned)
}

/// A cargo command in the workspace's folder, without what the cargo that started us has put into the environment:
/// build scripts would take it for a change.
pub fn cargo() -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(program);
    command.current_dir(root());
    for (name, _) in std::env::vars_os() {
        let inherited = name.to_str().is_some_and(|n| {
            n.starts_with("CARGO_PKG_") || n.starts_with("CARGO_MANIFEST_") || n == "CARGO_BIN_NAME"
        });
        if inherited {
            command.env_remove(name);
        }
    }
    command
}

/// Runs a command with our own streams.
///
/// # Errors
///
/// If it cannot be started or does not succeed.
pub fn check(command: &mut Command) -> Result<()> {
    let shown = show(command);
    let status = command.status().with_context(|| format!("cannot start `{shown}`"))?;
    if !status.success() {
        bail!("`{shown}` failed ({status})");
    }
    Ok(())
}

/// Program and arguments, as typed.
pub fn show(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let program = program.file_name().unwrap_or(program.as_os_str());
    std::iter::once(program)
        .chain(command.get_args())
        .map(|part| part.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

/// What cargo knows of the workspace's own packages.
///
/// # Errors
///
/// If cargo cannot read the manifests.
pub fn metadata() -> Result<Metadata> {
    MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .no_deps()
        .exec()
        .context("cargo metadata failed")
}

/// Cargo's target folder.
///
/// # Errors
///
/// As [`metadata`].
pub fn target_dir() -> Result<PathBuf> {
    Ok(metadata()?.target_directory.into_std_path_buf())
}

/// Builds an example of a package with the release profile and returns the program's path.
///
/// # Errors
///
/// If it does not build.
pub fn build_example(package: &str, example: &str) -> Result<PathBuf> {
    let mut command = cargo();
    command.args(["build", "--release", "--message-format=json-render-diagnostics", "--package", package]);
    command.args(["--example", example]).stdout(Stdio::piped());
    let shown = show(&command);
    let mut child = command.spawn().with_context(|| format!("cannot start `{shown}`"))?;
    let stdout = child.stdout.take().context("cargo's output is not piped")?;
    let mut program = None;
    for message in Message::parse_stream(std::io::BufReader::new(stdout)) {
        if let Message::CompilerArtifact(artifact) = message.context("cannot read cargo's messages")?
            && artifact.target.name == example
        {
            program = artifact.executable;
        }
    }
    if !child.wait()?.success() {
        bail!("`{shown}` failed");
    }
    Ok(program.with_context(|| format!("`{shown}` built no program"))?.into_std_path_buf())
}

/// Python interpreters in the order in which they are tried: `QWEN2VL_PYTHON` alone where it is set, else that of the
/// active virtual environment and `python3`.
pub fn pythons() -> Vec<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    if let Some(python) = variable("QWEN2VL_PYTHON") {
        return vec![python];
    }
    let mut pythons: Vec<PathBuf> =
        variable("VIRTUAL_ENV").map(|venv| venv.join("bin/python3")).into_iter().collect();
    pythons.push("python3".into());
    pythons
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_shown_as_typed() {
        let mut command = Command::new("/opt/tools/cargo");
        command.args(["test", "--workspace"]);
        assert_eq!(show(&command), "cargo test --workspace");
    }

    #[test]
    fn the_root_is_the_workspace() {
        assert!(root().join("xtask/Cargo.toml").is_file());
    }

    #[test]
    fn failures_name_the_command() {
        let error = check(cargo().arg("no-such-subcommand").stderr(Stdio::null())).unwrap_err();
        assert!(error.to_string().contains("no-such-subcommand"), "{error}");
    }
}
