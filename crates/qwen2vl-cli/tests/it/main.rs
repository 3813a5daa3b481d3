//! The command as scripts and people use it: rows, exit codes, what goes to stderr.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod annotate;
mod boxes;
mod cache;
mod chat;
mod classify;
mod look;
mod model;
mod package;
mod sources;
mod structured;
mod video;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// The command with an environment of its own settings only.
fn qwen2vl(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_qwen2vl"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("QWEN2VL_")) {
        if !matches!(name.as_str(), "QWEN2VL_CACHE" | "QWEN2VL_OPENVINO") {
            command.env_remove(name);
        }
    }
    // What one test computes does not depend on others.
    command.env("QWEN2VL_NO_VISION_CACHE", "1").args(arguments);
    command
}

/// What a finished command left.
struct Ran {
    code: i32,
    stdout: String,
    stderr: String,
}

fn run(arguments: &[&str]) -> Ran {
    finished(&qwen2vl(arguments).output().unwrap())
}

fn finished(output: &Output) -> Ran {
    Ran {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

impl Ran {
    fn rows(&self) -> Vec<Value> {
        let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"));
        self.stdout.lines().map(parse).collect()
    }
}

/// Whether OpenVINO is there; where the tests must run in full, its absence fails them.
fn has_openvino() -> bool {
    let found = qwen2vl_pipeline::library::locate(None);
    if let Err(error) = &found {
        qwen2vl_testkit::skip(error);
    }
    found.is_ok()
}

fn evaluation(name: &str) -> String {
    text(&qwen2vl_testkit::evaluation(name))
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// A folder with two good images and, between them by name, a bad one.
fn mixed_folder(dir: &Path) -> [PathBuf; 3] {
    let [a, b, c] = ["a.png", "b.jpg", "sub/c.png"].map(|name| dir.join(name));
    std::fs::create_dir(dir.join("sub")).unwrap();
    std::fs::copy(evaluation("caption_00.png"), &a).unwrap();
    std::fs::write(&b, "not an image").unwrap();
    std::fs::copy(evaluation("caption_01.png"), &c).unwrap();
    std::fs::write(dir.join("notes.txt"), "left out").unwrap();
    [a, b, c]
}
