//! Rows of figures: their table, and the JSON file that a later run is compared with.

use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::quiet::Quiet;
use super::table::{median, number, render};
use super::{Output, plot};

/// Which of two figures is the better one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    Lower,
    Higher,
}

/// A figure of ours beside a peer's.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Row {
    pub scenario: String,
    pub metric: String,
    pub unit: String,
    pub better: Better,
    /// Medians.
    pub ours: f64,
    pub peer: f64,
    pub peer_name: String,
    /// Ours over the peer's.
    pub ratio: f64,
    /// What the ratio should be at least, or at most.
    pub goal: Option<f64>,
    /// `None` without a goal, and in quick runs.
    pub met: Option<bool>,
    /// All that was measured, in order.
    pub ours_samples: Vec<f64>,
    pub peer_samples: Vec<f64>,
}

impl Row {
    /// `None` where ours has no figure.
    pub fn new(
        scenario: &str,
        (metric, unit): (&str, &str),
        ours_samples: Vec<f64>,
        (peer_name, peer_samples): (&str, Vec<f64>),
        better: Better,
        goal: Option<f64>,
        quick: bool,
    ) -> Option<Self> {
        let (ours, peer) = (median(&ours_samples)?, median(&peer_samples)?);
        let ratio = ours / peer;
        let met = |goal: f64| if better == Better::Higher { ratio >= goal } else { ratio <= goal };
        Some(Self {
            scenario: scenario.to_owned(),
            metric: metric.to_owned(),
            unit: unit.to_owned(),
            better,
            ours,
            peer,
            peer_name: peer_name.to_owned(),
            ratio,
            goal,
            met: goal.filter(|_| !quick).map(met),
            ours_samples,
            peer_samples,
        })
    }

    /// The goal with its direction.
    pub fn goal_text(&self) -> String {
        let sign = if self.better == Better::Higher { "≥" } else { "≤" };
        self.goal.map_or_else(|| "-".to_owned(), |goal| format!("{sign} {}", number(goal)))
    }
}

/// Whether two rows are of the same figure.
pub fn same(a: &Row, b: &Row) -> bool {
    (&a.scenario, &a.metric, &a.peer_name) == (&b.scenario, &b.metric, &b.peer_name)
}

/// All rows of a run, and what it ran on.
#[derive(Debug)]
pub struct Report {
    pub machine: String,
    pub quiet: Quiet,
    rows: Vec<Row>,
}

impl Report {
    pub fn new(machine: String) -> Self {
        Self { machine, quiet: Quiet::default(), rows: Vec::new() }
    }

    pub fn add(&mut self, rows: Vec<Row>) {
        self.rows.extend(rows);
    }

    /// A Markdown table.
    pub fn table(&self) -> String {
        let rows: Vec<Vec<String>> = self.rows.iter().map(cells).collect();
        render(&["scenario, metric", "ours", "peer", "beside", "ours / peer", "goal", "met"], &rows)
    }

    /// Writes the files that the flags ask for.
    ///
    /// # Errors
    ///
    /// If one cannot be written.
    pub fn write(&self, output: &Output) -> Result<()> {
        if let Some(path) = &output.json {
            write_whole(path, &serde_json::to_string_pretty(&self.rows)?)?;
        }
        if let Some(path) = &output.plot {
            write_whole(path, &plot::svg(&self.rows)?)?;
        }
        Ok(())
    }
}

fn cells(row: &Row) -> Vec<String> {
    let met = row.met.map_or("-", |met| if met { "yes" } else { "**no**" });
    vec![
        format!("{}, {} ({})", row.scenario, row.metric, row.unit),
        number(row.ours),
        number(row.peer),
        row.peer_name.clone(),
        number(row.ratio),
        row.goal_text(),
        met.to_owned(),
    ]
}

/// A file is whole, or is the one that was there before.
fn write_whole(path: &Path, text: &str) -> Result<()> {
    let wrap = || format!("cannot write {}", path.display());
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder).with_context(wrap)?;
    std::io::Write::write_all(&mut file, text.as_bytes()).with_context(wrap)?;
    file.persist(path).with_context(wrap)?;
    Ok(())
}

/// Reads the rows of a run.
///
/// # Errors
///
/// If the file cannot be read or holds something else.
pub fn read(path: &Path) -> Result<Vec<Row>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text)
        .with_context(|| format!("{} is not a file that `cargo xtask bench --json` wrote", path.display()))
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn row(metric: &str, better: Better, ours: f64, peer: f64, goal: Option<f64>) -> Row {
        Row::new("s", (metric, "ms"), vec![ours], ("peer", vec![peer]), better, goal, false).unwrap()
    }

    #[test]
    fn goals_are_met_in_their_direction_and_shown() {
        let mut report = Report::new(String::new());
        report.add(vec![
            row("time", Better::Lower, 30.0, 40.0, Some(0.9)),
            row("speed", Better::Higher, 30.0, 40.0, Some(0.9)),
            row("other", Better::Lower, 30.0, 40.0, None),
        ]);
        let table = report.table();
        let of = |name: &str| table.lines().find(|l| l.contains(name)).unwrap();
        assert!(of("s, time (ms)").contains("≤ 0.90") && of("s, time").contains("yes"), "{table}");
        assert!(of("s, speed").contains("≥ 0.90") && of("s, speed").contains("**no**"), "{table}");
        assert!(of("s, other").contains(" - "), "{table}");
    }

    #[test]
    fn what_is_written_is_read_again_and_other_files_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        let rows = vec![row("time", Better::Lower, 30.0, 40.0, Some(0.9))];
        write_whole(&path, &serde_json::to_string(&rows).unwrap()).unwrap();
        let value: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        for field in ["scenario", "metric", "ours", "peer", "peer_name", "ratio", "goal", "met"] {
            assert!(value[0].get(field).is_some(), "{field}");
        }
        assert_eq!(read(&path).unwrap()[0].ratio, 0.75);
        std::fs::write(&path, "{}").unwrap();
        assert!(format!("{:#}", read(&path).unwrap_err()).contains("a.json is not"));
        assert!(write_whole(&folder.path().join("none/a.json"), "").is_err());
    }
}
