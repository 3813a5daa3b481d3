//! Jobs, and the programs that do them: ours and the peers', each job in a fresh process that prints its figures.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::peer::json_lines;
use super::picture::{self, Size};
use super::prepare::Prepared;
use super::{Peer, RunArgs};
use crate::workspace;

/// Whose program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Who {
    Ours,
    Genai,
    Llamacpp,
}

impl Who {
    pub fn peer(self) -> Option<Peer> {
        match self {
            Self::Ours => None,
            Self::Genai => Some(Peer::Genai),
            Self::Llamacpp => Some(Peer::Llamacpp),
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Ours => "qwen2vl",
            Self::Genai => "openvino-genai",
            Self::Llamacpp => "llama.cpp",
        }
    }
}

/// How several requests are handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Way {
    OneByOne,
    Together,
}

/// Whether embeddings of images are kept on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskCache {
    Off,
    /// In an empty folder.
    Empty,
    /// In that of the job before; the questions are others.
    Filled,
}

/// Questions about images.
#[derive(Debug, Clone, Copy)]
pub struct Job {
    pub who: Who,
    pub way: Way,
    /// Different images; with none the questions stand alone.
    pub images: usize,
    /// About each image.
    pub questions: usize,
    pub size: Size,
    pub max_new_tokens: u32,
    pub disk_cache: DiskCache,
}

/// A job's file.
#[derive(Serialize)]
struct JobFile {
    requests: Vec<Request>,
}

#[derive(Serialize)]
struct Request {
    images: Vec<PathBuf>,
    prompt: String,
    max_new_tokens: u32,
}

const QUESTIONS: [&str; 5] = [
    "Describe the image.",
    "Which colours are there?",
    "Is there any text in it, and what does it say?",
    "What is in the upper left corner?",
    "How many things can be counted?",
];

impl Job {
    pub fn name(&self) -> String {
        match (self.way, self.disk_cache) {
            (Way::OneByOne, _) => self.who.name().to_owned(),
            (_, DiskCache::Filled) => format!("{}, together, again", self.who.name()),
            _ => format!("{}, together", self.who.name()),
        }
    }

    /// The same job in the small: everything is used once.
    fn tiny(self) -> Self {
        let few = |n: usize| n.min(2);
        let size = Size { height: 112, width: 112 };
        Self { images: few(self.images), questions: few(self.questions), max_new_tokens: 2, size, ..self }
    }

    fn file(&self, work: &Path) -> Result<JobFile> {
        let images: Vec<Vec<PathBuf>> = match self.images {
            0 => vec![Vec::new()],
            n => (0..n).map(|i| Ok(vec![picture::made(work, self.size, i)?])).collect::<Result<_>>()?,
        };
        let of_image = |images: &Vec<PathBuf>| {
            let question = |i: usize| {
                let text = QUESTIONS[i % QUESTIONS.len()];
                let again = if self.disk_cache == DiskCache::Filled { "Once more: " } else { "" };
                // Without images, conversations would share their prompts.
                let alone = if images.is_empty() { format!("Page {}. ", i + 1) } else { String::new() };
                Request {
                    images: images.clone(),
                    prompt: format!("{alone}{again}{text}"),
                    max_new_tokens: self.max_new_tokens,
                }
            };
            (0..self.questions).map(question).collect::<Vec<_>>()
        };
        Ok(JobFile { requests: images.iter().flat_map(of_image).collect() })
    }
}

/// What a process measured.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Sample {
    pub load_ms: f64,
    /// Of the first request, as the two after it.
    pub ttft_ms: Option<f64>,
    pub tpot_ms: Option<f64>,
    pub vision_ms: Option<f64>,
    /// Of all requests, without loading.
    pub wall_ms: f64,
    /// Of all requests.
    pub prompt_tokens: Option<f64>,
    pub requests: f64,
    pub output_tokens: f64,
    pub peak_rss_bytes: Option<f64>,
    pub model_ms: Option<f64>,
    pub scheduling_ms: Option<f64>,
    /// Bytes of weights that each token reads.
    pub weight_bytes: Option<f64>,
}

/// The programs and what they need.
pub struct Programs {
    ours: PathBuf,
    prepared: Prepared,
    work: PathBuf,
    /// Compiled models.
    caches: tempfile::TempDir,
    disk_cache: Option<tempfile::TempDir>,
    warm: HashSet<(Who, Way, bool)>,
    demo: bool,
    quick: bool,
    threads: Option<u32>,
    /// Peers that failed.
    failed: HashSet<Who>,
}

impl Programs {
    /// # Errors
    ///
    /// If our own program does not build.
    pub fn new(args: &RunArgs, prepared: Prepared, work: &Path) -> Result<Self> {
        Ok(Self {
            ours: workspace::build_example("qwen2vl-pipeline", "bench_job")?,
            prepared,
            work: work.to_owned(),
            caches: tempfile::tempdir_in(work)?,
            disk_cache: None,
            warm: HashSet::new(),
            demo: false,
            quick: args.quick,
            threads: args.threads,
            failed: HashSet::new(),
        })
    }

    /// Jobs from now on are about the demo model, or the large one.
    pub fn begin(&mut self, demo: bool) {
        self.demo = demo || self.quick;
    }

    /// Does a job; `None` where its peer is not there or fails, then and from now on. Before the first of its kind a tiny
    /// one fills the caches of compiled models.
    ///
    /// # Errors
    ///
    /// If ours fails.
    pub fn run(&mut self, job: &Job) -> Result<Option<Sample>> {
        let job = if self.quick { job.tiny() } else { *job };
        if self.failed.contains(&job.who) || self.model(job.who).is_none() {
            return Ok(None);
        }
        let first = self.warm.insert((job.who, job.way, self.demo));
        let warm_up = first.then(|| Job { disk_cache: DiskCache::Off, ..job.tiny() });
        let sample =
            warm_up.map_or(Ok(()), |job| self.start(&job).map(|_| ())).and_then(|()| self.start(&job));
        match sample {
            Ok(sample) => Ok(Some(sample)),
            Err(error) if job.who != Who::Ours => {
                println!("{}: skipped from here on: {error:#}", job.who.name());
                self.failed.insert(job.who);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn start(&mut self, job: &Job) -> Result<Sample> {
        let file = self.work.join("job.json");
        let text = serde_json::to_vec_pretty(&job.file(&self.work)?)?;
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        let model = self.model(job.who).context("the model was not prepared")?;
        let mut command = match job.who.peer() {
            None => Command::new(&self.ours),
            Some(peer) => self.prepared.command(peer).context("the peer was not prepared")?,
        };
        command.arg("--model").arg(&model).arg("--job").arg(file);
        command.args(["--way", if job.way == Way::Together { "together" } else { "one-by-one" }]);
        let mut cache = self.caches.path().join(job.who.name());
        if job.disk_cache == DiskCache::Empty {
            self.disk_cache = Some(tempfile::tempdir_in(&self.work)?);
        }
        if let Some(folder) = self.disk_cache.as_ref().filter(|_| job.disk_cache != DiskCache::Off) {
            command.arg("--disk-cache");
            cache = folder.path().to_owned();
        }
        command.arg("--cache").arg(cache);
        if job.who == Who::Ours && job.images > 0 {
            // The demo model's own limit is low.
            command.args(["--max-pixels", &job.size.max_pixels().to_string()]);
        }
        if let Some(threads) = self.threads {
            command.args(["--threads", &threads.to_string()]);
        }
        let mut sample: Sample = json_lines(&mut command)?.pop().context("no figures")?;
        sample.requests = sample.requests.max(1.0);
        let least = (job.images * job.questions * job.size.tokens()) as f64;
        if let Some(tokens) = sample.prompt_tokens.filter(|n| job.who == Who::Ours && *n < least) {
            bail!("{tokens} tokens of prompts, {least} of images in them: they were made smaller");
        }
        let weights = fs::metadata(model.join("openvino_language_model.bin"));
        sample.weight_bytes = weights.ok().map(|file| file.len() as f64);
        Ok(sample)
    }

    fn model(&self, who: Who) -> Option<PathBuf> {
        self.prepared.model(who.peer(), self.demo)
    }

    /// The memory's speed in GB/s, as all cores read it; `None` where the kernels do not run.
    ///
    /// # Errors
    ///
    /// If the program does not build or fails.
    pub fn memory_read(&self) -> Result<Option<f64>> {
        let program = workspace::build_example("qwen2vl-kernels", "bandwidth")?;
        let output = Command::new(&program).arg("--read-only").output().context("cannot start bandwidth")?;
        Ok(memory_read(&String::from_utf8_lossy(&output.stdout)))
    }
}

fn memory_read(text: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix("plain read: "))?;
    line.split(", ").nth(1)?.strip_suffix(" GB/s")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(images: usize, questions: usize) -> Job {
        Job {
            who: Who::Ours,
            way: Way::Together,
            images,
            questions,
            size: Size { height: 28, width: 28 },
            max_new_tokens: 3,
            disk_cache: DiskCache::Off,
        }
    }

    #[test]
    fn a_job_asks_each_question_about_each_image() {
        let work = tempfile::tempdir().unwrap();
        let file = job(3, 2).file(work.path()).unwrap();
        let requests: Vec<(&Path, &str)> =
            file.requests.iter().map(|r| (r.images[0].as_path(), r.prompt.as_str())).collect();
        assert_eq!(requests.len(), 6);
        assert!(requests[0].0 == requests[1].0 && requests[0].0 != requests[2].0);
        assert!(requests[0].1 != requests[1].1 && requests[0].1 == requests[2].1);
        let bytes = |i: usize| fs::read(requests[i].0).unwrap();
        assert_ne!(bytes(0), bytes(2));
        let again = Job { disk_cache: DiskCache::Filled, ..job(3, 2) }.file(work.path()).unwrap();
        assert!(
            again
                .requests
                .iter()
                .zip(&file.requests)
                .all(|(a, b)| a.images == b.images && a.prompt != b.prompt)
        );
    }

    #[test]
    fn questions_without_images_are_all_different() {
        let work = tempfile::tempdir().unwrap();
        let file = job(0, 16).file(work.path()).unwrap();
        let prompts: HashSet<&str> = file.requests.iter().map(|r| r.prompt.as_str()).collect();
        assert!(prompts.len() == 16 && file.requests.iter().all(|r| r.images.is_empty()));
    }

    #[test]
    fn the_speed_of_the_memory_is_read() {
        assert_eq!(memory_read("plain read: 15.12 ms,   57.3 GB/s\n"), Some(57.3));
        assert_eq!(memory_read("this processor has no AVX2\n"), None);
    }
}
