//! Load time, time to first token, time per token and peak memory, ours beside openvino-genai.
//!
//! Each measurement is a fresh process; the two alternate. Both keep compiled models in a cache folder that is empty
//! in the first round, so that loading is shown without and with it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::peer::{PythonPeer, json_lines};
use super::table::{median, optional, ratio, render};
use super::{BenchArgs, Peer, picture};
use crate::{wheel, workspace};

const DEMO_MODEL: &str = "demo-model/demo-model-int4-ov.zip";

/// What one process measured.
#[derive(Debug, Clone, Deserialize)]
struct Sample {
    load_ms: f64,
    ttft_ms: f64,
    tpot_ms: Option<f64>,
    vision_ms: Option<f64>,
    prompt_tokens: u64,
    output_tokens: u64,
    peak_rss_bytes: Option<u64>,
}

/// One of the two, and what it has measured so far.
struct Runner {
    name: &'static str,
    program: Box<dyn Fn() -> Command>,
    model: PathBuf,
    samples: Vec<Sample>,
}

/// Measures and prints the table.
///
/// # Errors
///
/// If our own program cannot be built or fails.
pub fn run(args: &BenchArgs) -> Result<()> {
    let work = workspace::target_dir()?.join("bench");
    fs::create_dir_all(&work).with_context(|| format!("cannot create {}", work.display()))?;
    let model = match &args.model {
        Some(model) => std::path::absolute(model)?,
        None => unpack_demo_model(&work)?,
    };
    let image = match &args.image {
        Some(image) => std::path::absolute(image)?,
        None => {
            let path = work.join(format!("{}x{}.ppm", args.size.width, args.size.height));
            picture::write(&path, args.size)?;
            path
        }
    };
    let ours = workspace::build_example("qwen2vl-pipeline", "bench_one")?;
    let mut runners = vec![Runner {
        name: "qwen2vl",
        program: Box::new(move || Command::new(&ours)),
        model: model.clone(),
        samples: Vec::new(),
    }];
    runners.extend(genai(args, &model, &work));
    let caches = tempfile::tempdir_in(&work)?;
    for round in 1..=args.rounds {
        eprintln!("end to end: round {round} of {}", args.rounds);
        // A peer that fails drops out; ours must not.
        let mut failed = None;
        for runner in &mut runners {
            match measure(runner, args, &image, caches.path()) {
                Ok(sample) => runner.samples.push(sample),
                Err(error) if runner.name != "qwen2vl" => {
                    println!("{}: skipped: {error:#}", runner.name);
                    failed = Some(runner.name);
                }
                Err(error) => return Err(error),
            }
        }
        runners.retain(|runner| Some(runner.name) != failed);
    }
    let name = |path: &Path| path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    println!(
        "\n## End to end: {}, {}, at most {} new tokens, {} rounds\n",
        name(&model),
        name(&image),
        args.max_new_tokens,
        args.rounds
    );
    println!("{}", table(&runners));
    Ok(())
}

fn genai(args: &BenchArgs, model: &Path, work: &Path) -> Option<Runner> {
    if !args.against.contains(&Peer::Genai) {
        return None;
    }
    let peer = PythonPeer::find("openvino-genai", "genai.py")?;
    match genai_model(&peer, model, work) {
        Ok(model) => Some(Runner {
            name: "openvino-genai",
            program: Box::new(move || peer.command()),
            model,
            samples: Vec::new(),
        }),
        Err(error) => {
            println!("openvino-genai: skipped: cannot prepare its tokenizer: {error:#}");
            None
        }
    }
}

/// The model with the tokenizer that openvino-genai needs.
fn genai_model(peer: &PythonPeer, model: &Path, work: &Path) -> Result<PathBuf> {
    let key = &wheel::hex(&Sha256::digest(model.as_os_str().as_encoded_bytes()))[..8];
    let mut command = peer.command();
    command.arg("--prepare").arg("--model").arg(model).arg("--work").arg(work.join(format!("genai-{key}")));
    let output = command.output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let folder = text.lines().last().map(PathBuf::from).filter(|_| output.status.success());
    folder.filter(|f| f.is_dir()).with_context(|| {
        let stderr = String::from_utf8_lossy(&output.stderr);
        stderr.lines().last().unwrap_or("no folder was made").to_owned()
    })
}

fn measure(runner: &Runner, args: &BenchArgs, image: &Path, caches: &Path) -> Result<Sample> {
    let mut command = (runner.program)();
    command.arg("--model").arg(&runner.model).arg("--image").arg(image);
    command.args(["--prompt", &args.prompt, "--max-new-tokens", &args.max_new_tokens.to_string()]);
    command.arg("--cache").arg(caches.join(runner.name));
    if let Some(threads) = args.threads {
        command.args(["--threads", &threads.to_string()]);
    }
    json_lines(&mut command)?.pop().context("no figures")
}

fn table(runners: &[Runner]) -> String {
    let of = |runner: &Runner, rounds: std::ops::Range<usize>, figure: &dyn Fn(&Sample) -> Option<f64>| {
        let samples = runner.samples.get(rounds).unwrap_or_default();
        median(&samples.iter().filter_map(figure).collect::<Vec<_>>())
    };
    type Figure = fn(&Sample) -> Option<f64>;
    let all = usize::MAX;
    let rows: [(&str, usize, usize, Figure); 8] = [
        ("load, nothing cached, ms", 0, 1, |s| Some(s.load_ms)),
        ("load, compiled model cached, ms", 1, all, |s| Some(s.load_ms)),
        ("time to first token, ms", 0, all, |s| Some(s.ttft_ms)),
        ("of that, vision, ms", 0, all, |s| s.vision_ms),
        ("time per token, ms", 0, all, |s| s.tpot_ms),
        ("peak memory, MB", 0, all, |s| s.peak_rss_bytes.map(|b| b as f64 / 1e6)),
        ("prompt tokens", 0, all, |s| Some(s.prompt_tokens as f64)),
        ("answer tokens", 0, all, |s| Some(s.output_tokens as f64)),
    ];
    let mut header = vec!["median"];
    header.extend(runners.iter().map(|r| r.name));
    if runners.len() > 1 {
        header.push("peer / ours");
    }
    let rows = rows.map(|(label, from, to, figure)| {
        let values: Vec<Option<f64>> =
            runners.iter().map(|r| of(r, from..to.min(r.samples.len()).max(from), &figure)).collect();
        let mut row = vec![label.to_owned()];
        row.extend(values.iter().map(|v| optional(*v)));
        if let [ours, peer] = values[..] {
            row.push(ratio(peer, ours));
        }
        row
    });
    render(&header, &rows)
}

fn unpack_demo_model(work: &Path) -> Result<PathBuf> {
    let zip = workspace::root().join(DEMO_MODEL);
    let bytes = fs::read(&zip).with_context(|| format!("cannot read {}", zip.display()))?;
    let folder = work.join(format!("demo-model-{}", &wheel::hex(&Sha256::digest(&bytes))[..8]));
    if !folder.is_dir() {
        let partial = tempfile::tempdir_in(work)?;
        let unpacked = partial.path().join("model");
        let mut archive = zip::ZipArchive::new(std::io::Cursor::new(bytes))?;
        archive.extract(&unpacked).with_context(|| format!("cannot unpack {}", zip.display()))?;
        fs::rename(&unpacked, &folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runner(name: &'static str, loads: &[f64]) -> Runner {
        let sample = |load_ms: &f64| Sample {
            load_ms: *load_ms,
            ttft_ms: 10.0 * load_ms,
            tpot_ms: None,
            vision_ms: Some(1.0),
            prompt_tokens: 7,
            output_tokens: 2,
            peak_rss_bytes: Some(3_000_000),
        };
        Runner {
            name,
            program: Box::new(|| Command::new("true")),
            model: PathBuf::new(),
            samples: loads.iter().map(sample).collect(),
        }
    }

    fn row(text: &str, label: &str) -> Vec<String> {
        let line = text.lines().find(|l| l.starts_with(&format!("| {label}"))).unwrap();
        line.split('|').map(|c| c.trim().to_owned()).filter(|c| !c.is_empty()).skip(1).collect()
    }

    #[test]
    fn the_first_load_stands_alone_and_ratios_are_peer_over_ours() {
        let text = table(&[runner("ours", &[50.0, 1.0, 3.0]), runner("peer", &[100.0, 4.0, 4.0])]);
        assert_eq!(row(&text, "load, nothing cached"), ["50", "100", "2.00x"]);
        assert_eq!(row(&text, "load, compiled"), ["2.00", "4.00", "2.00x"]);
        assert_eq!(row(&text, "time to first token"), ["30", "40", "1.33x"]);
        assert_eq!(row(&text, "time per token"), ["-", "-", "-"]);
        assert_eq!(row(&text, "peak memory"), ["3.00", "3.00", "1.00x"]);
    }

    #[test]
    fn one_round_and_no_peer_leave_dashes_and_no_ratio() {
        let text = table(&[runner("ours", &[50.0])]);
        assert_eq!(row(&text, "load, nothing cached"), ["50"]);
        assert_eq!(row(&text, "load, compiled"), ["-"]);
        assert!(!text.contains("peer / ours"), "{text}");
    }
}
