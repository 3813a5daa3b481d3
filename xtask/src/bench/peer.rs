//! Peers that live in Python, and the JSON lines that all measured programs print.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use super::prepare::bench_cache;
use crate::{wheel, workspace};

/// A script of `tools/bench` and the first Python that has what it needs.
#[derive(Debug)]
pub struct PythonPeer {
    python: PathBuf,
    script: PathBuf,
    /// What the script says of itself.
    pub versions: String,
}

impl PythonPeer {
    /// Looks for a Python in which the script's `--check` succeeds, or says on stdout why the peer is skipped. Where none
    /// has what it needs, a virtual environment is made for all peers, once, unless `QWEN2VL_PYTHON` names a Python.
    pub fn find(name: &str, script: &str) -> Option<Self> {
        let script = workspace::root().join("tools/bench").join(script);
        let found = find_in(&workspace::pythons(), &script).or_else(|reasons| match named_python() {
            true => Err(format!("{reasons}; name a Python that has it with QWEN2VL_PYTHON")),
            false => {
                let python = venv().map_err(|error| format!("{reasons}; {error:#}"))?;
                find_in(&[python], &script)
            }
        });
        match found {
            Ok(peer) => {
                println!("{name}: {}", peer.versions);
                Some(peer)
            }
            Err(reasons) => {
                println!("{name}: skipped: {reasons}");
                None
            }
        }
    }

    /// The script, ready for arguments.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.python);
        command.arg(&self.script);
        command
    }
}

fn named_python() -> bool {
    std::env::var_os("QWEN2VL_PYTHON").is_some_and(|value| !value.is_empty())
}

/// The Python of a virtual environment with what all peers need; fetches some gigabytes the first time.
fn venv() -> Result<PathBuf> {
    let requirements = workspace::root().join("tools/bench/requirements.txt");
    let text = std::fs::read(&requirements).context("cannot read tools/bench/requirements.txt")?;
    let key = &wheel::hex(&Sha256::digest(&text))[..8];
    let folder = bench_cache()?.join(format!("venv-{key}"));
    let python = folder.join(if cfg!(windows) { "Scripts/python.exe" } else { "bin/python3" });
    // Made last: an environment without it is half done.
    let done = folder.join("requirements.done");
    if !done.is_file() {
        eprintln!("fetching what the peers need into {}, once: some gigabytes", folder.display());
        let base = workspace::pythons().pop().context("there is no Python")?;
        workspace::check(Command::new(base).args(["-m", "venv", "--clear"]).arg(&folder))?;
        let mut pip = Command::new(&python);
        pip.args(["-m", "pip", "install", "--quiet", "-r"]).arg(&requirements);
        workspace::check(pip.stdout(Stdio::null()))?;
        std::fs::write(&done, "")?;
    }
    Ok(python)
}

fn find_in(pythons: &[PathBuf], script: &Path) -> Result<PythonPeer, String> {
    let mut reasons = Vec::new();
    for python in pythons {
        let output = match Command::new(python).arg(script).arg("--check").output() {
            Ok(output) => output,
            Err(error) => {
                reasons.push(format!("{}: {error}", python.display()));
                continue;
            }
        };
        if output.status.success() {
            let versions = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            return Ok(PythonPeer { python: python.clone(), script: script.to_owned(), versions });
        }
        let stderr = String::from_utf8_lossy(&output.stderr);
        reasons.push(stderr.lines().last().unwrap_or("it does not start").to_owned());
    }
    Err(reasons.join("; "))
}

/// Runs a program and reads each line of its stdout that is a JSON object.
///
/// # Errors
///
/// If it fails, prints no such line, or one that is no `T`.
pub fn json_lines<T: DeserializeOwned>(command: &mut Command) -> Result<Vec<T>> {
    let shown = workspace::show(command);
    let output =
        command.stderr(Stdio::inherit()).output().with_context(|| format!("cannot start `{shown}`"))?;
    if !output.status.success() {
        bail!("`{shown}` failed ({})", output.status);
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let rows = text.lines().filter(|line| line.starts_with('{')).map(|line| {
        serde_json::from_str(line).with_context(|| format!("`{shown}` printed an unexpected line: {line}"))
    });
    let rows = rows.collect::<Result<Vec<T>>>()?;
    if rows.is_empty() {
        bail!("`{shown}` printed no figures");
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_from_among_other_lines() {
        let mut command = Command::new("printf");
        command.arg("loading\n{\"a\": 1}\n{\"a\": 2}\n");
        let rows: Vec<serde_json::Value> = json_lines(&mut command).unwrap();
        assert_eq!(rows.iter().map(|r| r["a"].as_u64()).collect::<Vec<_>>(), [Some(1), Some(2)]);
    }

    #[test]
    fn failures_and_silence_are_errors() {
        let error = |program: &str| {
            json_lines::<serde_json::Value>(&mut Command::new(program)).unwrap_err().to_string()
        };
        assert!(error("false").contains("`false` failed"));
        assert!(error("true").contains("no figures"));
        assert!(error("no-such-program").contains("cannot start"));
    }

    #[test]
    fn the_first_python_that_has_it_is_taken_and_reasons_are_collected() {
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join("script");
        std::fs::write(&script, "echo 'no module named peer' >&2; exit 3").unwrap();
        let pythons = ["no-such-python".into(), "sh".into()];
        let error = find_in(&pythons, &script).unwrap_err();
        assert!(
            error.starts_with("no-such-python: ") && error.ends_with("; no module named peer"),
            "{error}"
        );
        std::fs::write(&script, "echo 1.0").unwrap();
        assert_eq!(find_in(&pythons, &script).unwrap().versions, "1.0");
    }
}
