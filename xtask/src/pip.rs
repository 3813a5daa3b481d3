//! Wheels by pip's ordinary download, so that a configured index, proxy or certificate is honoured.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::wheel::{self, Wheel};
use crate::workspace;

/// Python versions whose wheels are tried where there is none for the user's own: the libraries do not depend on it.
const OTHER_PYTHONS: &[&str] = &["312", "311", "313", "310", "314"];

/// How much of pip's output an error shows.
const SHOWN_LINES: usize = 12;

/// What a run of pip came to.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Downloaded,
    /// The index has no wheel for this Python or platform.
    NoWheel,
    Failed,
}

/// Downloads a wheel into the empty folder `dir`.
///
/// # Errors
///
/// If there is no Python or pip, no wheel for this platform, or the download fails.
pub fn download(what: &Wheel, dir: &Path) -> Result<PathBuf> {
    let python = python_with_pip(what, &workspace::pythons())?;
    let mut last = String::new();
    let others = OTHER_PYTHONS.iter().map(Some);
    for version in std::iter::once(None).chain(others) {
        let (outcome, output) = run_pip(what, &python, dir, version.copied())?;
        match outcome {
            Outcome::Downloaded => {
                let path = the_wheel_in(dir)?;
                if is_acceptable(what, &path) {
                    return Ok(path);
                }
                std::fs::remove_file(&path)?;
                last = format!("{} has no pinned hash", path.display());
            }
            Outcome::NoWheel => last = output,
            Outcome::Failed => bail!(
                "pip could not download {}; its last words:\n{}\n\
                 check the network and pip's settings for index and proxy (`pip config list`), or {}",
                what.requirement,
                last_lines(&output),
                what.remedy
            ),
        }
    }
    bail!(
        "pip finds no wheel of {} for this platform ({} {}); its last words:\n{}\n{}",
        what.requirement,
        std::env::consts::OS,
        std::env::consts::ARCH,
        last_lines(&last),
        what.remedy
    )
}

/// Where all wheels are pinned, one with an unknown name is passed over.
fn is_acceptable(what: &Wheel, path: &Path) -> bool {
    let pinned_platform = (std::env::consts::OS, std::env::consts::ARCH) == wheel::PINNED_PLATFORM;
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    !pinned_platform || what.is_pinned(name)
}

fn python_with_pip(what: &Wheel, pythons: &[PathBuf]) -> Result<PathBuf> {
    let mut without_pip = None;
    for python in pythons {
        match Command::new(python).args(["-m", "pip", "--version"]).output() {
            Ok(output) if output.status.success() => return Ok(python.clone()),
            Ok(_) => without_pip = Some(python),
            Err(_) => {}
        }
    }
    match without_pip {
        Some(python) => bail!(
            "{} has no pip, which fetches {} (once); install it (on Debian: apt-get install python3-pip), or {}",
            python.display(),
            what.title,
            what.remedy
        ),
        None => bail!(
            "there is no python3, whose pip fetches {} (once); install it (on Debian: apt-get install python3 \
             python3-pip) or name one with QWEN2VL_PYTHON, or {}",
            what.title,
            what.remedy
        ),
    }
}

fn run_pip(what: &Wheel, python: &Path, dir: &Path, version: Option<&str>) -> Result<(Outcome, String)> {
    let mut command = Command::new(python);
    command.args(["-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--progress-bar", "off"]);
    if let Some(version) = version {
        command.args([
            "--implementation",
            "cp",
            "--python-version",
            version,
            "--abi",
            &format!("cp{version}"),
        ]);
    }
    command.arg("--dest").arg(dir).arg(what.requirement);
    let output = command.output().with_context(|| format!("cannot start {}", python.display()))?;
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    Ok((classify(output.status.success(), &text), text))
}

/// Without a network pip retries, and then says as well that there is no matching distribution.
fn classify(success: bool, output: &str) -> Outcome {
    if success {
        Outcome::Downloaded
    } else if output.contains("No matching distribution") && !output.contains("Retrying (") {
        Outcome::NoWheel
    } else {
        Outcome::Failed
    }
}

fn the_wheel_in(dir: &Path) -> Result<PathBuf> {
    let wheels = std::fs::read_dir(dir)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|e| e == "whl"));
    wheels.last().with_context(|| format!("pip has left no wheel in {}", dir.display()))
}

fn last_lines(output: &str) -> String {
    let lines: Vec<&str> = output.lines().filter(|l| !l.trim().is_empty()).collect();
    let shown = &lines[lines.len().saturating_sub(SHOWN_LINES)..];
    shown.iter().map(|l| format!("  {l}")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::openvino::WHEEL;

    #[test]
    fn an_absent_wheel_and_an_absent_network_are_told_apart() {
        let cases = [
            (true, "Saved ./openvino.whl", Outcome::Downloaded),
            (false, "ERROR: No matching distribution found for openvino==2026.4.1", Outcome::NoWheel),
            (
                false,
                "WARNING: Retrying (Retry(total=0)) after connection broken\nERROR: No matching distribution found",
                Outcome::Failed,
            ),
            (false, "ERROR: [Errno 28] No space left on device", Outcome::Failed),
        ];
        for (success, output, want) in cases {
            assert_eq!(classify(success, output), want, "{output}");
        }
    }

    #[test]
    fn what_is_missing_is_named_with_its_remedy() {
        let none = python_with_pip(&WHEEL, &["no-such-python".into()]).unwrap_err().to_string();
        assert!(none.contains("there is no python3") && none.contains("apt-get install python3"), "{none}");
        // A program that is there and is no Python with pip.
        let no_pip = python_with_pip(&WHEEL, &["false".into()]).unwrap_err().to_string();
        assert!(no_pip.contains("has no pip") && no_pip.contains("python3-pip"), "{no_pip}");
    }

    #[test]
    fn the_last_lines_are_the_last() {
        let output: String = (0..40).map(|i| format!("line {i}\n\n")).collect();
        let shown = last_lines(&output);
        assert_eq!(shown.lines().count(), SHOWN_LINES);
        assert!(shown.ends_with("  line 39"), "{shown}");
    }
}
