//! Where rows go: stdout or a file, each row whole and flushed before the next is computed.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use qwen2vl_pipeline::ResultRow;

use crate::args::Format;

/// Writes rows.
pub struct Output {
    writer: Box<dyn Write>,
    path: Option<PathBuf>,
    format: Format,
    named: bool,
}

impl Output {
    /// Opens the file, or stdout. `named` puts the input's name before each text row.
    pub fn open(path: Option<&Path>, format: Format, named: bool) -> Result<Self> {
        let writer: Box<dyn Write> = match path {
            Some(path) => {
                Box::new(File::create(path).with_context(|| format!("cannot write {}", path.display()))?)
            }
            None => Box::new(io::stdout()),
        };
        Ok(Self { writer, path: path.map(Path::to_owned), format, named })
    }

    /// Writes one row.
    pub fn write(&mut self, row: &ResultRow) -> Result<()> {
        let mut line = match self.format {
            Format::Jsonl => serde_json::to_string(row)?,
            Format::Text => text(row, self.named),
        };
        line.push('\n');
        let written = self.writer.write_all(line.as_bytes()).and_then(|()| self.writer.flush());
        match (&self.path, written) {
            (_, Ok(())) => Ok(()),
            (Some(path), Err(error)) => {
                Err(error).with_context(|| format!("cannot write {}", path.display()))
            }
            (None, Err(error)) => Err(error).context("cannot write to stdout"),
        }
    }
}

fn text(row: &ResultRow, named: bool) -> String {
    let input = match &row.input {
        serde_json::Value::String(name) => name.clone(),
        other => other.to_string(),
    };
    match (&row.error, &row.result) {
        // Most errors name their input themselves.
        (Some(error), _) if error.message.contains(&input) => format!("error: {}", error.message),
        (Some(error), _) => format!("{input}: error: {}", error.message),
        (None, Some(result)) if !named => result.clone(),
        (None, result) => format!("{input}: {}", result.as_deref().unwrap_or_default()),
    }
}

/// Prints one JSON object to stdout.
pub fn print_json(value: &serde_json::Value) -> Result<()> {
    writeln!(io::stdout().lock(), "{value}").context("cannot write to stdout")
}

/// Whether an error is a reader that went away.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .any(|e| e.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe))
}
