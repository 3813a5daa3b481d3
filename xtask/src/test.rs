//! Sets everything up, then runs all tests and counts them.

use std::fmt;
use std::io::{BufRead, BufReader, Write};
use std::process::{ExitCode, Stdio};

use anyhow::{Context, Result};

use crate::setup;
use crate::workspace::{cargo, show};

/// Set for the tests: those that need OpenVINO fail where they would otherwise say that they were skipped.
pub const ENV_REQUIRE: &str = "QWEN2VL_REQUIRE_OPENVINO";

/// Runs the workspace's tests; the last line is `N passed, N failed`.
///
/// # Errors
///
/// If the set-up fails or cargo cannot be started. Failing tests are an exit code.
pub fn run(args: &[String]) -> Result<ExitCode> {
    setup::run()?;
    let mut command = cargo();
    command.args(["test", "--no-fail-fast"]);
    if !names_packages(args) {
        command.arg("--workspace");
    }
    command.args(args);
    command.env(ENV_REQUIRE, "1").stdout(Stdio::piped());
    let shown = show(&command);
    let mut child = command.spawn().with_context(|| format!("cannot start `{shown}`"))?;
    let stdout = child.stdout.take().context("cargo's output is not piped")?;
    let counts = pass_on(BufReader::new(stdout), std::io::stdout().lock())?;
    let success = child.wait()?.success();
    if !success && counts.failed == 0 {
        eprintln!("error: `{shown}` failed outside of the tests");
    }
    if success && counts.passed == 0 {
        eprintln!("error: no test ran");
    }
    println!("{counts}");
    let good = success && counts.failed == 0 && counts.passed > 0;
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Whether cargo's arguments choose packages, which `--workspace` would override.
fn names_packages(args: &[String]) -> bool {
    let for_cargo = args.iter().take_while(|arg| *arg != "--");
    for_cargo.into_iter().any(|arg| arg.starts_with("-p") || arg.starts_with("--package"))
}

/// Results of all test programs.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    passed: u64,
    failed: u64,
    skipped: u64,
    /// Tests of the program that is running.
    running: Option<u64>,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)?;
        if self.skipped > 0 {
            write!(f, ", {} skipped", self.skipped)?;
        }
        Ok(())
    }
}

impl Counts {
    /// Takes in a line of libtest's output.
    fn feed(&mut self, line: &str) {
        let running = line.strip_prefix("running ").and_then(|rest| {
            let (n, unit) = rest.trim_end().split_once(' ')?;
            matches!(unit, "test" | "tests").then(|| n.parse().ok())?
        });
        if running.is_some() {
            self.close();
            self.running = running;
        } else if let Some(result) = line.strip_prefix("test result: ") {
            self.running = None;
            let number = |what: &str| -> u64 {
                let before = result.split(&[';', '.'][..]).find_map(|part| part.trim().strip_suffix(what));
                before.and_then(|n| n.trim().parse().ok()).unwrap_or(0)
            };
            self.passed += number("passed");
            self.failed += number("failed");
            self.skipped += number("ignored");
        }
    }

    /// A program that ended without a result has crashed, and with it its tests.
    fn close(&mut self) {
        self.failed += self.running.take().map_or(0, |n| n.max(1));
    }
}

/// Copies lines as they come and counts.
fn pass_on(mut from: impl BufRead, mut to: impl Write) -> Result<Counts> {
    let mut counts = Counts::default();
    let mut line = Vec::new();
    while from.read_until(b'\n', &mut line).context("cannot read the tests' output")? > 0 {
        to.write_all(&line).context("cannot write")?;
        to.flush().context("cannot write")?;
        counts.feed(&String::from_utf8_lossy(&line));
        line.clear();
    }
    counts.close();
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(output: &str) -> Counts {
        let mut copy = Vec::new();
        let counts = pass_on(output.as_bytes(), &mut copy).unwrap();
        assert_eq!(copy, output.as_bytes(), "the output must be passed on unchanged");
        counts
    }

    const OK: &str = "\nrunning 3 tests\ntest a ... ok\n\ntest result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; \
                      0 filtered out; finished in 0.01s\n\n";
    const FAILED: &str = "running 1 test\ntest b ... FAILED\n\ntest result: FAILED. 0 passed; 1 failed; 0 ignored; \
                          0 measured; 0 filtered out; finished in 0.00s\n";

    #[test]
    fn results_of_all_programs_are_added() {
        assert_eq!(count(&format!("{OK}{FAILED}{OK}")).to_string(), "4 passed, 1 failed, 2 skipped");
        assert_eq!(count(FAILED).to_string(), "0 passed, 1 failed");
        assert_eq!(count("").to_string(), "0 passed, 0 failed");
    }

    #[test]
    fn a_program_that_crashed_counts_as_failed() {
        let crashed = "running 5 tests\ntest a ... ok\n";
        assert_eq!(count(&format!("{crashed}{OK}")).to_string(), "2 passed, 5 failed, 1 skipped");
        assert_eq!(count(&format!("{OK}{crashed}")).to_string(), "2 passed, 5 failed, 1 skipped");
        assert_eq!(count("running 0 tests\n").to_string(), "0 passed, 1 failed");
    }

    #[test]
    fn packages_are_named_before_the_dashes() {
        let cases: [(&[&str], bool); 5] = [
            (&[], false),
            (&["resize"], false),
            (&["-p", "qwen2vl-types"], true),
            (&["--package=qwen2vl-types"], true),
            (&["--", "-p"], false),
        ];
        for (args, want) in cases {
            let args: Vec<String> = args.iter().map(|&a| a.to_owned()).collect();
            assert_eq!(names_packages(&args), want, "{args:?}");
        }
    }

    #[test]
    fn other_lines_count_nothing() {
        let text = "running late\nrunning 3 miles\nthe test result: ok. 7 passed\n\u{fffd}test result\n";
        assert_eq!(count(text), Counts::default());
    }
}
