//! Image preprocessing, ours beside Hugging Face's fast processor; the two alternate.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::Result;
use serde::Deserialize;

use super::peer::{PythonPeer, json_lines};
use super::report::{Better, Row};
use super::scenario::PREPROCESS;
use super::table::{median, optional, ratio, render};
use super::{Peer, RunArgs};
use crate::workspace;

/// One line of the measured programs.
#[derive(Debug, Deserialize)]
struct Sample {
    /// Which image.
    case: String,
    /// Where it starts: decoded pixels or JPEG bytes.
    from: String,
    threads: u32,
    wall_ms: Vec<f64>,
    cpu_ms: Vec<f64>,
}

/// Case, start and threads, in the order in which they were first seen.
type Key = (String, String, u32);

#[derive(Debug, Default)]
struct Figures {
    wall_ms: Vec<f64>,
    cpu_ms: Vec<f64>,
}

#[derive(Debug, Default)]
struct Collected {
    order: Vec<Key>,
    figures: BTreeMap<Key, Figures>,
}

impl Collected {
    fn add(&mut self, samples: Vec<Sample>) {
        for sample in samples {
            let key = (sample.case, sample.from, sample.threads);
            if !self.figures.contains_key(&key) {
                self.order.push(key.clone());
            }
            let figures = self.figures.entry(key).or_default();
            figures.wall_ms.extend(sample.wall_ms);
            figures.cpu_ms.extend(sample.cpu_ms);
        }
    }
}

/// Measures and prints the table; rows of what the peer measured too.
///
/// # Errors
///
/// If our own program cannot be built or fails.
pub fn run(args: &RunArgs) -> Result<Vec<Row>> {
    let program = workspace::build_example("qwen2vl-preprocess", "preprocess_timing")?;
    let mut peer = args
        .against
        .contains(&Peer::Hf)
        .then(|| PythonPeer::find("transformers' fast processor", "hf_preprocess.py"))
        .flatten();
    let (mut ours, mut theirs) = (Collected::default(), Collected::default());
    for round in 1..=args.rounds() {
        eprintln!("preprocessing: round {round} of {}", args.rounds());
        ours.add(json_lines(&mut Command::new(&program))?);
        match peer.as_ref().map(|p| json_lines(&mut p.command())) {
            Some(Ok(samples)) => theirs.add(samples),
            Some(Err(error)) => {
                println!("transformers' fast processor: skipped: {error:#}");
                peer = None;
            }
            None => {}
        }
    }
    println!("\nPreprocessing, milliseconds an image, {} rounds:\n", args.rounds());
    println!("{}", table(&ours, &theirs));
    println!("More detail on ours: cargo bench -p qwen2vl-preprocess");
    Ok(rows(&ours, &theirs, args.quick))
}

/// Wall times beside the peer's.
fn rows(ours: &Collected, theirs: &Collected, quick: bool) -> Vec<Row> {
    let row = |key: &Key| {
        let (case, from, threads) = key;
        let metric = format!("{case} from {from}, threads {threads}");
        let of = |collected: &Collected| Some(collected.figures.get(key)?.wall_ms.clone());
        let peer = ("transformers' fast processor", of(theirs)?);
        Row::new(PREPROCESS, (&metric, "ms"), of(ours)?, peer, Better::Lower, None, quick)
    };
    ours.order.iter().filter_map(row).collect()
}

fn table(ours: &Collected, theirs: &Collected) -> String {
    let mut header = vec!["image", "from", "threads", "wall", "cpu"];
    let compare = !theirs.figures.is_empty();
    if compare {
        header.extend(["hf wall", "hf cpu", "hf / ours, wall", "hf / ours, cpu"]);
    }
    let rows: Vec<Vec<String>> = ours
        .order
        .iter()
        .map(|key| {
            let medians = |c: &Collected| {
                let figures = c.figures.get(key);
                (figures.and_then(|f| median(&f.wall_ms)), figures.and_then(|f| median(&f.cpu_ms)))
            };
            let ((wall, cpu), (hf_wall, hf_cpu)) = (medians(ours), medians(theirs));
            let mut row =
                vec![key.0.clone(), key.1.clone(), key.2.to_string(), optional(wall), optional(cpu)];
            if compare {
                row.extend([optional(hf_wall), optional(hf_cpu), ratio(hf_wall, wall), ratio(hf_cpu, cpu)]);
            }
            row
        })
        .collect();
    render(&header, &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(case: &str, threads: u32, wall_ms: &[f64]) -> Sample {
        let cpu_ms = wall_ms.iter().map(|ms| ms * 2.0).collect();
        Sample { case: case.to_owned(), from: "rgb".to_owned(), threads, wall_ms: wall_ms.to_vec(), cpu_ms }
    }

    #[test]
    fn rounds_are_pooled_and_cases_matched() {
        let (mut ours, mut theirs) = (Collected::default(), Collected::default());
        ours.add(vec![sample("large", 1, &[10.0, 30.0]), sample("large", 2, &[5.0])]);
        ours.add(vec![sample("large", 1, &[20.0])]);
        theirs.add(vec![sample("large", 1, &[60.0]), sample("other", 1, &[1.0])]);
        let text = table(&ours, &theirs);
        let lines: Vec<Vec<&str>> =
            text.lines().skip(2).map(|l| l.split('|').map(str::trim).collect()).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0][1..10], ["large", "rgb", "1", "20", "40", "60", "120", "3.00x", "3.00x"]);
        assert_eq!(lines[1][1..10], ["large", "rgb", "2", "5.00", "10", "-", "-", "-", "-"]);
        assert!(!table(&ours, &Collected::default()).contains("hf"));
        let rows = rows(&ours, &theirs, false);
        assert_eq!(rows.len(), 1);
        assert!((rows[0].ratio - 1.0 / 3.0).abs() < 1e-9 && rows[0].metric.contains("large"));
    }
}
