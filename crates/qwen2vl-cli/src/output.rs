//! Where rows go: stdout or a file, each row whole and flushed before the next is computed.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use qwen2vl_pipeline::{ResultRow, RowError, ScoreRow};
use serde::Serialize;
use serde_json::Value;

use crate::args::Format;

/// A row of bulk output.
pub trait Row: Serialize {
    /// The input's name, the error, and the result for people to read.
    fn parts(&self) -> (&Value, Option<&RowError>, String);
}

impl Row for ResultRow {
    fn parts(&self) -> (&Value, Option<&RowError>, String) {
        (&self.input, self.error.as_ref(), self.result.clone().unwrap_or_default())
    }
}

/// As text the best labels are shown.
const MOST_LABELS: usize = 5;

impl Row for ScoreRow {
    fn parts(&self) -> (&Value, Option<&RowError>, String) {
        let best = self.labels.iter().flatten().take(MOST_LABELS);
        let shown: Vec<String> = best.map(|l| format!("{} {:.3}", l.label, l.probability)).collect();
        (&self.input, self.error.as_ref(), shown.join(", "))
    }
}

/// Writes rows.
pub struct Output {
    target: Target,
    format: Format,
    named: bool,
}

enum Target {
    Stdout,
    File(File, PathBuf),
}

impl Output {
    /// Opens the file, or stdout. `named` puts the input's name before each text row.
    pub fn open(path: Option<&Path>, format: Format, named: bool) -> Result<Self> {
        let target = match path {
            Some(path) => {
                let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
                Target::File(file, path.to_owned())
            }
            None => Target::Stdout,
        };
        Ok(Self { target, format, named })
    }

    /// Writes one row.
    pub fn write(&mut self, row: &impl Row) -> Result<()> {
        let mut line = match self.format {
            Format::Jsonl => serde_json::to_string(row)?,
            Format::Text => text(row, self.named),
        };
        line.push('\n');
        match &mut self.target {
            Target::Stdout => {
                let mut stdout = io::stdout().lock();
                let written = stdout.write_all(line.as_bytes()).and_then(|()| stdout.flush());
                written.context("cannot write to stdout")
            }
            Target::File(file, path) => append_whole(file, line.as_bytes())
                .with_context(|| format!("cannot write {}", path.display())),
        }
    }
}

/// Appends all of `bytes` or, on a full disk, none of them. What is no regular file is written as it comes.
fn append_whole(file: &mut File, bytes: &[u8]) -> io::Result<()> {
    let before = file.stream_position().ok();
    file.write_all(bytes).inspect_err(|_| {
        if let Some(before) = before {
            file.set_len(before).ok();
        }
    })
}

fn text(row: &impl Row, named: bool) -> String {
    let (input, error, result) = row.parts();
    let input = match input {
        serde_json::Value::String(name) => name.clone(),
        other => other.to_string(),
    };
    match (error, result) {
        // Most errors name their input themselves.
        (Some(error), _) if error.message.contains(&input) => format!("error: {}", error.message),
        (Some(error), _) => format!("{input}: error: {}", error.message),
        (None, result) if !named => result,
        (None, result) => format!("{input}: {result}"),
    }
}

/// Prints one JSON object to stdout.
pub fn print_json(value: &serde_json::Value) -> Result<()> {
    writeln!(io::stdout().lock(), "{value}").context("cannot write to stdout")
}

/// Prints a text to stdout as it is.
pub fn print_text(text: &str) -> Result<()> {
    io::stdout().lock().write_all(text.as_bytes()).context("cannot write to stdout")
}

/// Whether an error is a reader that went away.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .any(|e| e.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe))
}
