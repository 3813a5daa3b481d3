//! Runs of single scenarios as one: their table, JSON and plot.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Args;

use super::report::{Report, Row, read, same};
use super::{Output, plot};

#[derive(Debug, Args)]
pub struct JoinArgs {
    /// JSON files of the runs
    #[arg(required = true)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    output: Output,
}

/// Prints the table of all and writes what is asked for.
///
/// # Errors
///
/// If a file cannot be read or written, or a figure is in two of them.
pub fn run(args: &JoinArgs) -> Result<ExitCode> {
    if let Some(path) = &args.output.plot {
        plot::check_name(path)?;
    }
    let mut report = Report::new(String::new());
    report.add(rows(&args.files)?);
    println!("{}", report.table());
    report.write(&args.output)?;
    Ok(ExitCode::SUCCESS)
}

fn rows(files: &[PathBuf]) -> Result<Vec<Row>> {
    let mut rows: Vec<Row> = Vec::new();
    for file in files {
        for row in read(file)? {
            if rows.iter().any(|other| same(other, &row)) {
                let Row { scenario, metric, peer_name, .. } = row;
                bail!("{}: {scenario}, {metric} beside {peer_name} is in an earlier file", file.display());
            }
            rows.push(row);
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::super::report::Better;
    use super::super::report::tests::row;
    use super::*;

    #[test]
    fn files_follow_each_other_and_no_figure_is_there_twice() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str| {
            let path = folder.path().join(name);
            let rows = [row(name, Better::Lower, 1.0, 2.0, None)];
            std::fs::write(&path, serde_json::to_string(&rows).unwrap()).unwrap();
            path
        };
        let (a, b) = (write("a"), write("b"));
        let joined = rows(&[b.clone(), a.clone()]).unwrap();
        assert_eq!(joined.iter().map(|r| r.metric.as_str()).collect::<Vec<_>>(), ["b", "a"]);
        let error = rows(&[a.clone(), b, a]).unwrap_err().to_string();
        assert!(error.contains("s, a beside peer is in an earlier file"), "{error}");
    }
}
