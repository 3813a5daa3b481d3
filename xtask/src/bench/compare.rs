//! Two runs side by side: what became better or worse. Ratios are compared, not times: each was measured beside its peer.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Args;

use super::report::{Better, Row, read, same};
use super::table::{number, render};

#[derive(Debug, Args)]
pub struct CompareArgs {
    /// JSON file of the earlier run
    old: PathBuf,
    /// JSON file of the later run
    new: PathBuf,
    /// How much worse a ratio may be, as a share of it
    #[arg(long, default_value_t = 0.10, value_name = "SHARE", value_parser = parse_share)]
    tolerance: f64,
}

fn parse_share(text: &str) -> Result<f64, String> {
    let share = text.parse::<f64>().ok().filter(|s| (0.0..=10.0).contains(s));
    share.ok_or_else(|| "not a share from 0 to 10, as 0.1".to_owned())
}

/// Prints the comparison; fails where something became worse.
///
/// # Errors
///
/// If a file cannot be read, or the runs have nothing in common.
pub fn run(args: &CompareArgs) -> Result<ExitCode> {
    let (old, new) = (read(&args.old)?, read(&args.new)?);
    let changes = changes(&old, &new);
    if changes.is_empty() {
        bail!("{} and {} have no figure in common", args.old.display(), args.new.display());
    }
    let verdict = |change: &Change| match change.worse {
        worse if worse > args.tolerance => "**worse**",
        worse if worse < -args.tolerance => "better",
        _ => "",
    };
    let rows: Vec<Vec<String>> = changes
        .iter()
        .map(|change| {
            let Change { old, new, worse } = change;
            vec![
                format!("{}, {} beside {}", new.scenario, new.metric, new.peer_name),
                number(old.ratio),
                number(new.ratio),
                format!("{:+.0} %", -worse * 100.0),
                verdict(change).to_owned(),
            ]
        })
        .collect();
    println!("{}", render(&["ours / peer", "old", "new", "better by", ""], &rows));
    for missing in old.iter().filter(|old| !new.iter().any(|new| same(old, new))) {
        println!(
            "not in the later run: {}, {} beside {}",
            missing.scenario, missing.metric, missing.peer_name
        );
    }
    let worse = changes.iter().filter(|change| change.worse > args.tolerance).count();
    println!("{worse} of {} figures are worse by more than {:.0} %", changes.len(), args.tolerance * 100.0);
    Ok(if worse == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

struct Change<'r> {
    old: &'r Row,
    new: &'r Row,
    /// By which share the new ratio is worse; below 0 it is better.
    worse: f64,
}

fn changes<'r>(old: &'r [Row], new: &'r [Row]) -> Vec<Change<'r>> {
    let pairs = new.iter().filter_map(|new| Some((old.iter().find(|old| same(old, new))?, new)));
    pairs
        .map(|(old, new)| {
            let grown = new.ratio / old.ratio;
            let worse = if new.better == Better::Lower { grown - 1.0 } else { 1.0 / grown - 1.0 };
            Change { old, new, worse }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::row;
    use super::*;

    #[test]
    fn worse_is_higher_times_and_lower_speeds() {
        let old = [
            row("time", Better::Lower, 1.0, 2.0, None),
            row("speed", Better::Higher, 4.0, 2.0, None),
            row("gone", Better::Lower, 1.0, 1.0, None),
        ];
        let new = [row("time", Better::Lower, 1.2, 2.0, None), row("speed", Better::Higher, 8.0, 2.0, None)];
        let worse: Vec<i64> = changes(&old, &new).iter().map(|c| (c.worse * 100.0).round() as i64).collect();
        assert_eq!(worse, [20, -50]);
    }

    #[test]
    fn the_exit_code_tells_and_strangers_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, rows: &[Row]| {
            let path = folder.path().join(name);
            std::fs::write(&path, serde_json::to_string(rows).unwrap()).unwrap();
            path
        };
        let old = write("old", &[row("time", Better::Lower, 1.0, 2.0, None)]);
        let new = write("new", &[row("time", Better::Lower, 1.5, 2.0, None)]);
        let other = write("other", &[row("another", Better::Lower, 1.5, 2.0, None)]);
        let run = |old: &PathBuf, new: &PathBuf, tolerance| {
            run(&CompareArgs { old: old.clone(), new: new.clone(), tolerance })
        };
        assert_eq!(run(&old, &new, 0.1).unwrap(), ExitCode::FAILURE);
        assert_eq!(run(&old, &new, 0.6).unwrap(), ExitCode::SUCCESS);
        assert_eq!(run(&new, &old, 0.1).unwrap(), ExitCode::SUCCESS);
        assert!(run(&old, &other, 0.1).unwrap_err().to_string().contains("in common"));
    }
}
