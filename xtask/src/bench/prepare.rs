//! What the scenarios need: models and peers. What is made once stays in the cache.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use super::peer::PythonPeer;
use super::scenario::Scenario;
use super::{Peer, RunArgs};
use crate::{openvino, wheel, workspace};

const DEMO_MODEL: &str = "demo-model/demo-model-int4-ov.zip";
const DEMO_MODEL_HF: &str = "demo-model/demo-model-hf.zip";

/// A peer and its form of the models.
struct PreparedPeer {
    peer: Peer,
    script: PythonPeer,
    demo: Option<PathBuf>,
    large: Option<PathBuf>,
}

/// Models and peers that are there.
pub struct Prepared {
    demo: PathBuf,
    large: Option<PathBuf>,
    peers: Vec<PreparedPeer>,
}

impl Prepared {
    /// Makes what is missing; a peer that cannot be had is left out, with its reason on stdout.
    ///
    /// # Errors
    ///
    /// If the model cannot be made.
    pub fn new(args: &RunArgs, scenarios: &[&Scenario], work: &Path) -> Result<Self> {
        let demo = unpack(DEMO_MODEL, work)?;
        let needs_large = !args.quick && scenarios.iter().any(|s| s.needs_large_model());
        let (large, mut hf) = match (&args.model, needs_large) {
            (_, false) => (None, None),
            (Some(model), true) => (Some(std::path::absolute(model)?), args.hf_model.clone()),
            (None, true) => {
                let folder = random_model(&demo)?;
                (Some(folder.join("openvino")), Some(folder.join("hf")))
            }
        };
        if args.hf_model.is_some() {
            hf.clone_from(&args.hf_model);
        }
        let mut prepared = Self { demo, large, peers: Vec::new() };
        for &peer in &args.against {
            if !scenarios.iter().any(|s| s.has(peer)) {
                continue;
            }
            let found = match peer {
                Peer::Genai => prepared.genai(args.quick, work),
                Peer::Llamacpp => prepared.llamacpp(hf.as_deref(), args.quick, work),
                // It has a table of its own.
                Peer::Hf => continue,
            };
            match found {
                Ok(peer) => prepared.peers.extend(peer),
                Err(error) => println!("{peer:?}: skipped: cannot be prepared: {error:#}"),
            }
        }
        Ok(prepared)
    }

    /// The model in the form that somebody takes; `None` where there is none.
    pub fn model(&self, peer: Option<Peer>, demo: bool) -> Option<PathBuf> {
        match peer {
            None if demo => Some(self.demo.clone()),
            None => self.large.clone(),
            Some(peer) => {
                let peer = self.peers.iter().find(|p| p.peer == peer)?;
                if demo { peer.demo.clone() } else { peer.large.clone() }
            }
        }
    }

    /// A peer's program, ready for arguments.
    pub fn command(&self, peer: Peer) -> Option<Command> {
        self.peers.iter().find(|p| p.peer == peer).map(|p| p.script.command())
    }

    fn genai(&self, quick: bool, work: &Path) -> Result<Option<PreparedPeer>> {
        let Some(script) = PythonPeer::find("openvino-genai", "genai.py") else { return Ok(None) };
        let of = |model: &Path| prepare(&script, model, &keyed(work, "genai", model));
        let demo = if quick { Some(of(&self.demo)?) } else { None };
        let large = self.large.as_deref().map(of).transpose()?;
        Ok(Some(PreparedPeer { peer: Peer::Genai, script, demo, large }))
    }

    fn llamacpp(&self, hf: Option<&Path>, quick: bool, work: &Path) -> Result<Option<PreparedPeer>> {
        let Some(script) = PythonPeer::find("llama.cpp", "llamacpp.py") else { return Ok(None) };
        let of = |model: &Path| {
            // Built once for all models.
            let folder = bench_cache()?.join("llama.cpp");
            prepare(&script, model, &keyed(&folder, "models", model))
        };
        let demo = if quick { Some(of(&self.demo_hf(work)?)?) } else { None };
        let large = match (quick, hf) {
            (true, _) => None,
            (false, Some(hf)) => Some(of(&std::path::absolute(hf)?)?),
            (false, None) => {
                bail!("it needs the model as Hugging Face has it; name its folder with --hf-model")
            }
        };
        Ok(Some(PreparedPeer { peer: Peer::Llamacpp, script, demo, large }))
    }

    /// The demo model's checkpoint, whose zip leaves the tokenizer to the export's.
    fn demo_hf(&self, work: &Path) -> Result<PathBuf> {
        let folder = unpack(DEMO_MODEL_HF, work)?;
        let tokenizer = "tokenizer.json";
        fs::copy(self.demo.join(tokenizer), folder.join(tokenizer))
            .with_context(|| format!("cannot write {}", folder.join(tokenizer).display()))?;
        Ok(folder)
    }
}

/// A folder for what is made of a model.
fn keyed(work: &Path, name: &str, model: &Path) -> PathBuf {
    let key = &wheel::hex(&Sha256::digest(model.as_os_str().as_encoded_bytes()))[..8];
    work.join(format!("{name}-{key}"))
}

/// Has a script make what it needs of a model; its last line is the folder.
fn prepare(script: &PythonPeer, model: &Path, work: &Path) -> Result<PathBuf> {
    let mut command = script.command();
    command.arg("--prepare").arg("--model").arg(model).arg("--work").arg(work);
    last_line(&mut command)
}

fn random_model(demo: &Path) -> Result<PathBuf> {
    let folder = bench_cache()?.join("random-2b");
    if folder.join("openvino").is_dir() && folder.join("hf").is_dir() {
        return Ok(folder);
    }
    let script = PythonPeer::find("the random model", "random_model.py")
        .context("no model to measure: name an OpenVINO export with --model, or try --quick")?;
    println!("making a random model of the 2B's shapes in {}, once; this takes minutes", folder.display());
    let mut command = script.command();
    command.arg("--work").arg(folder).arg("--tokenizer").arg(demo);
    last_line(&mut command)
}

/// The folder for what benchmarks make once.
pub fn bench_cache() -> Result<PathBuf> {
    Ok(openvino::cache_root()?.join("bench"))
}

/// Runs a command whose last line on stdout is a folder.
fn last_line(command: &mut Command) -> Result<PathBuf> {
    let shown = workspace::show(command);
    command.stderr(std::process::Stdio::inherit());
    let output = command.output().with_context(|| format!("cannot start `{shown}`"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let folder = text.lines().last().map(PathBuf::from).filter(|_| output.status.success());
    folder.filter(|f| f.is_dir()).with_context(|| format!("`{shown}` failed ({})", output.status))
}

fn unpack(zip: &str, work: &Path) -> Result<PathBuf> {
    let zip = workspace::root().join(zip);
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
