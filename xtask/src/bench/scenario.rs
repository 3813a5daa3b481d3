//! What is measured: jobs, whose figures are compared, and the goals.

use anyhow::Result;

use super::picture::Size;
use super::program::{DiskCache, Job, Programs, Sample, Way, Who};
use super::report::{Better, Row};
use super::table::median;
use super::{Peer, RunArgs};

/// The table of image preprocessing, which has programs of its own.
pub const PREPROCESS: &str = "preprocess";

/// Work that ours and its peers do in turns.
pub struct Scenario {
    pub name: &'static str,
    /// The demo model in place of the large one.
    demo: bool,
    jobs: &'static [Job],
    metrics: &'static [Metric],
}

/// A figure of ours beside that of others.
struct Metric {
    name: &'static str,
    unit: &'static str,
    better: Better,
    figure: Figure,
    /// Index of our job.
    ours: usize,
    beside: Beside,
    goal: Option<f64>,
}

type Figure = fn(&Sample) -> Option<f64>;

/// What a figure is beside.
enum Beside {
    /// The best of some jobs.
    Best(&'static str, &'static [usize]),
    /// A fixed value, in the metric's unit.
    Limit(f64),
    /// The memory's speed, in GB/s.
    MemoryRead,
}

impl Scenario {
    /// Whether a peer takes part.
    pub fn has(&self, peer: Peer) -> bool {
        self.jobs.iter().any(|job| job.who.peer() == Some(peer))
    }

    pub fn needs_large_model(&self) -> bool {
        !self.demo
    }

    /// Runs all jobs in turns, as often as asked for.
    ///
    /// # Errors
    ///
    /// If a job of ours fails.
    pub fn measure(&self, programs: &mut Programs, args: &RunArgs) -> Result<Vec<Row>> {
        let rounds = args.rounds();
        let mut samples: Vec<Vec<Sample>> = self.jobs.iter().map(|_| Vec::new()).collect();
        programs.begin(self.demo);
        // In turns as well: what a machine's memory gives changes from one minute to the next.
        let reads_memory = self.metrics.iter().any(|m| matches!(m.beside, Beside::MemoryRead));
        let mut memory_reads = Vec::new();
        for round in 1..=rounds {
            for (job, samples) in self.jobs.iter().zip(&mut samples) {
                eprintln!("{}: {}: round {round} of {rounds}", self.name, job.name());
                samples.extend(programs.run(job)?);
                if reads_memory {
                    memory_reads.extend(programs.memory_read()?);
                }
            }
        }
        Ok(self
            .metrics
            .iter()
            .filter_map(|m| m.row(self.name, &samples, &memory_reads, args.quick))
            .collect())
    }
}

impl Metric {
    fn row(&self, scenario: &str, samples: &[Vec<Sample>], memory_reads: &[f64], quick: bool) -> Option<Row> {
        let values = |job: usize| samples[job].iter().filter_map(self.figure).collect::<Vec<f64>>();
        let ours = values(self.ours);
        let peers = match &self.beside {
            Beside::Best(_, jobs) => jobs.iter().map(|job| values(*job)).collect(),
            Beside::Limit(value) => vec![vec![*value]],
            Beside::MemoryRead => vec![memory_reads.to_vec()],
        };
        let best = peers.into_iter().filter(|v: &Vec<f64>| !v.is_empty()).max_by(|a, b| {
            let order = median(a).unwrap_or(f64::NAN).total_cmp(&median(b).unwrap_or(f64::NAN));
            if self.better == Better::Higher { order } else { order.reverse() }
        });
        let peer_name = match &self.beside {
            Beside::Best(name, _) => name,
            Beside::Limit(_) => "limit",
            Beside::MemoryRead => "memory read",
        };
        Row::new(scenario, (self.name, self.unit), ours, (peer_name, best?), self.better, self.goal, quick)
    }
}

/// The name of a scenario, for clap.
pub fn parse_name(text: &str) -> Result<String, String> {
    let names: Vec<&str> = SCENARIOS.iter().map(|s| s.name).chain([PREPROCESS]).collect();
    match names.contains(&text) {
        true => Ok(text.to_owned()),
        false => Err(format!("the scenarios are {}", names.join(", "))),
    }
}

const SMALL: Size = Size { height: 448, width: 448 };
const FULL_HD: Size = Size { height: 1080, width: 1920 };
const FOUR_MEGAPIXELS: Size = Size { height: 1736, width: 2304 };
const TWELVE_MEGAPIXELS: Size = Size { height: 3024, width: 4032 };

const fn job(who: Who, images: usize, questions: usize, max_new_tokens: u32) -> Job {
    Job {
        who,
        way: Way::OneByOne,
        images,
        questions,
        size: SMALL,
        max_new_tokens,
        disk_cache: DiskCache::Off,
    }
}

const fn together(job: Job) -> Job {
    Job { way: Way::Together, ..job }
}

const fn large(who: Who, size: Size) -> Job {
    Job { size, ..job(who, 1, 1, 4) }
}

const fn lower(name: &'static str, unit: &'static str, figure: Figure, beside: Beside, goal: f64) -> Metric {
    Metric { name, unit, better: Better::Lower, figure, ours: 0, beside, goal: Some(goal) }
}

const fn higher(name: &'static str, unit: &'static str, figure: Figure, beside: Beside, goal: f64) -> Metric {
    Metric { name, unit, better: Better::Higher, figure, ours: 0, beside, goal: Some(goal) }
}

const fn without_goal(metric: Metric) -> Metric {
    Metric { goal: None, ..metric }
}

const GENAI: &str = "openvino-genai";
const TTFT: Figure = |s| s.ttft_ms;
const TPOT: Figure = |s| s.tpot_ms;
const LOAD: Figure = |s| Some(s.load_ms);
const VISION: Figure = |s| s.vision_ms;
const PEAK: Figure = |s| s.peak_rss_bytes.map(|b| b / 1e6);
const FIRST_TOKEN: Figure = |s| s.ttft_ms.map(|ms| s.load_ms + ms);
const FIRST_ANSWER: Figure = |s| Some(s.load_ms + s.wall_ms);
const REQUESTS: Figure = |s| Some(s.requests * 60_000.0 / s.wall_ms);
const TOKENS: Figure = |s| Some(s.output_tokens * 1000.0 / s.wall_ms);
const READ: Figure = |s| Some(s.weight_bytes? / 1e6 / s.tpot_ms?);
const SCHEDULING: Figure = |s| Some(100.0 * s.scheduling_ms? / (s.scheduling_ms? + s.model_ms?));
/// 1 GiB in MB.
const GIB: f64 = (1u64 << 30) as f64 / 1e6;

/// All of them, but for preprocessing.
pub static SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "one-image",
        demo: false,
        jobs: &[job(Who::Ours, 1, 1, 32), job(Who::Genai, 1, 1, 32), job(Who::Llamacpp, 1, 1, 32)],
        metrics: &[
            lower("time to first token", "ms", TTFT, Beside::Best(GENAI, &[1]), 0.95),
            lower("time per output token", "ms", TPOT, Beside::Best(GENAI, &[1]), 0.90),
            lower("peak memory", "MB", PEAK, Beside::Best(GENAI, &[1]), 0.65),
            lower("start to ready", "ms", LOAD, Beside::Best(GENAI, &[1]), 0.25),
            lower("start to first token", "ms", FIRST_TOKEN, Beside::Best(GENAI, &[1]), 0.60),
            lower("start to first answer", "ms", FIRST_ANSWER, Beside::Best(GENAI, &[1]), 0.50),
            without_goal(lower("vision", "ms", VISION, Beside::Best(GENAI, &[1]), 0.0)),
            without_goal(lower("time to first token", "ms", TTFT, Beside::Best("llama.cpp", &[2]), 0.0)),
            lower("time per output token", "ms", TPOT, Beside::Best("llama.cpp", &[2]), 1.0),
            without_goal(lower("peak memory", "MB", PEAK, Beside::Best("llama.cpp", &[2]), 0.0)),
            higher("weights read", "GB/s", READ, Beside::MemoryRead, 0.60),
        ],
    },
    Scenario {
        name: "full-hd",
        demo: false,
        jobs: &[large(Who::Ours, FULL_HD), large(Who::Genai, FULL_HD)],
        metrics: &[
            lower("peak memory", "MB", PEAK, Beside::Best(GENAI, &[1]), 0.60),
            without_goal(lower("time to first token", "ms", TTFT, Beside::Best(GENAI, &[1]), 0.0)),
        ],
    },
    Scenario {
        name: "four-megapixels",
        demo: false,
        jobs: &[large(Who::Ours, FOUR_MEGAPIXELS), large(Who::Genai, FOUR_MEGAPIXELS)],
        metrics: &[
            lower("peak memory", "MB", PEAK, Beside::Best(GENAI, &[1]), 0.50),
            lower("peak memory", "MB", PEAK, Beside::Limit(3.5 * GIB), 1.0),
            without_goal(lower("time to first token", "ms", TTFT, Beside::Best(GENAI, &[1]), 0.0)),
        ],
    },
    Scenario {
        name: "twelve-megapixels-demo-model",
        demo: true,
        jobs: &[large(Who::Ours, TWELVE_MEGAPIXELS)],
        metrics: &[lower("peak memory", "MB", PEAK, Beside::Limit(1.5 * GIB), 1.0)],
    },
    Scenario {
        name: "sixteen-images",
        demo: false,
        jobs: &[
            together(job(Who::Ours, 16, 1, 64)),
            job(Who::Genai, 16, 1, 64),
            together(job(Who::Genai, 16, 1, 64)),
        ],
        metrics: &[
            higher("images", "1/min", REQUESTS, Beside::Best("openvino-genai's best", &[1, 2]), 1.3),
            lower("scheduler's share of a step", "%", SCHEDULING, Beside::Limit(2.0), 1.0),
            without_goal(lower(
                "peak memory",
                "MB",
                PEAK,
                Beside::Best("openvino-genai's best", &[1, 2]),
                0.0,
            )),
        ],
    },
    Scenario {
        name: "eight-images-five-questions",
        demo: false,
        jobs: &[
            together(job(Who::Ours, 8, 5, 16)),
            job(Who::Genai, 8, 5, 16),
            together(job(Who::Genai, 8, 5, 16)),
        ],
        metrics: &[
            higher("answers", "1/min", REQUESTS, Beside::Best("openvino-genai one by one", &[1]), 4.0),
            higher("answers", "1/min", REQUESTS, Beside::Best("openvino-genai's best", &[1, 2]), 1.5),
        ],
    },
    Scenario {
        name: "second-time",
        demo: false,
        jobs: &[
            Job { disk_cache: DiskCache::Empty, ..together(job(Who::Ours, 16, 1, 16)) },
            Job { disk_cache: DiskCache::Filled, ..together(job(Who::Ours, 16, 1, 16)) },
        ],
        metrics: &[Metric {
            ours: 1,
            ..higher("answers", "1/min", REQUESTS, Beside::Best("our first time", &[0]), 2.0)
        }],
    },
    Scenario {
        name: "conversations",
        demo: false,
        jobs: &[
            together(job(Who::Ours, 0, 8, 64)),
            together(job(Who::Ours, 0, 16, 64)),
            together(job(Who::Ours, 0, 1, 64)),
        ],
        metrics: &[
            higher("tokens of 8 at once", "1/s", TOKENS, Beside::Best("one alone", &[2]), 3.0),
            Metric {
                ours: 1,
                ..higher("tokens of 16 at once", "1/s", TOKENS, Beside::Best("one alone", &[2]), 4.0)
            },
        ],
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_metrics_name_jobs_of_their_scenario() {
        let mut names: Vec<&str> = SCENARIOS.iter().map(|s| s.name).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
        for scenario in SCENARIOS {
            for metric in scenario.metrics {
                assert_eq!(scenario.jobs[metric.ours].who, Who::Ours, "{}", scenario.name);
                if let Beside::Best(_, jobs) = metric.beside {
                    assert!(jobs.iter().all(|job| *job < scenario.jobs.len()), "{}", scenario.name);
                }
            }
        }
        assert!(parse_name("one-image").is_ok() && parse_name(PREPROCESS).is_ok());
        assert!(parse_name("none").unwrap_err().contains("sixteen-images"));
    }

    #[test]
    fn the_best_peer_is_taken_in_the_direction_of_the_metric() {
        let sample = |wall_ms: f64, mb: f64| Sample {
            wall_ms,
            requests: 1.0,
            peak_rss_bytes: Some(mb * 1e6),
            ..Sample::default()
        };
        let samples = [vec![sample(1000.0, 5.0)], vec![sample(4000.0, 10.0)], vec![sample(2000.0, 20.0)]];
        let best = Beside::Best("best", &[1, 2]);
        let row = higher("answers", "1/min", REQUESTS, best, 1.5).row("s", &samples, &[], false).unwrap();
        assert_eq!((row.ours, row.peer, row.ratio, row.met), (60.0, 30.0, 2.0, Some(true)));
        let best = Beside::Best("best", &[1, 2]);
        let row = lower("peak memory", "MB", PEAK, best, 0.4).row("s", &samples, &[], false).unwrap();
        assert_eq!((row.peer, row.ratio, row.met), (10.0, 0.5, Some(false)));
        // Without the peer there is no row; a small run meets no goal.
        let none = Beside::Best("best", &[1]);
        let samples = [samples[0].clone(), Vec::new()];
        assert!(lower("peak memory", "MB", PEAK, none, 0.4).row("s", &samples, &[], false).is_none());
        let limit = lower("peak memory", "MB", PEAK, Beside::Limit(10.0), 1.0);
        assert_eq!(limit.row("s", &samples, &[], true).unwrap().met, None);
    }
}
