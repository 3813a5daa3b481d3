//! Loads a model, answers questions about images and prints what it took, as one JSON line: a fresh process for each
//! measurement of `cargo xtask bench`, and a small program to profile.
//!
//! ```text
//! bench_job --model DIR (--job FILE | [--image FILE] [--prompt TEXT] [--max-new-tokens N])
//!           [--way one-by-one|together] [--disk-cache] [--max-pixels N] [--threads N] [--cache DIR]
//! ```
//!
//! The job is `{"requests": [{"images": ["a.png"], "prompt": "What?", "max_new_tokens": 32}]}`. Answers are greedy and have
//! all their tokens.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use qwen2vl_pipeline::{
    Annotation, Annotator, CancelToken, FinishReason, Request, RequestOptions, VisionCacheOptions,
};
use serde::Deserialize;

/// The most that images' embeddings may take on disk.
const DISK_CACHE_BYTES: u64 = 4 << 30;

#[derive(Deserialize)]
struct Job {
    requests: Vec<Question>,
}

#[derive(Deserialize)]
struct Question {
    images: Vec<String>,
    prompt: String,
    max_new_tokens: usize,
}

impl Question {
    fn request(&self, max_pixels: Option<u64>) -> Request {
        let mut options = RequestOptions::default();
        options.do_sample = Some(false);
        options.max_new_tokens = Some(self.max_new_tokens);
        options.min_new_tokens = Some(self.max_new_tokens);
        options.max_pixels = max_pixels;
        // A random model repeats itself; no peer may win or lose by that.
        options.prompt_lookup_num_tokens = Some(0);
        let request = Request::question(&self.prompt).options(options);
        self.images.iter().fold(request, |request, image| request.image(image.as_str()))
    }
}

fn main() -> Result<()> {
    let mut builder = Annotator::builder();
    let mut one =
        Question { images: Vec::new(), prompt: "Describe the image.".to_owned(), max_new_tokens: 32 };
    let (mut job, mut max_pixels, mut together) = (None, None, false);
    let mut args = std::env::args().skip(1);
    while let Some(flag) = args.next() {
        if flag == "--disk-cache" {
            builder = builder.vision_cache(VisionCacheOptions::default().disk_bytes(DISK_CACHE_BYTES));
            continue;
        }
        let value = args.next().with_context(|| format!("{flag} needs a value"))?;
        let number = || value.parse::<u64>().with_context(|| format!("{flag} {value} is not a number"));
        match flag.as_str() {
            "--model" => builder = builder.model(&value),
            "--job" => job = Some(value),
            "--image" => one.images.push(value),
            "--prompt" => one.prompt = value,
            "--max-new-tokens" => one.max_new_tokens = number()?.try_into()?,
            "--way" => together = value == "together",
            "--max-pixels" => max_pixels = Some(number()?),
            "--threads" => builder = builder.threads(number()?.try_into()?),
            "--cache" => builder = builder.cache_root(&value),
            _ => bail!("unknown flag {flag}"),
        }
    }
    let job = match job {
        Some(path) => serde_json::from_slice(&std::fs::read(&path).with_context(|| path.clone())?)?,
        None => Job { requests: vec![one] },
    };
    let requests: Vec<Request> = job.requests.iter().map(|question| question.request(max_pixels)).collect();

    let started = Instant::now();
    let annotator = builder.build()?;
    let load = started.elapsed();
    let started = Instant::now();
    let mut first_answer = Duration::ZERO;
    let answers = answer(&annotator, &requests, together, || first_answer = started.elapsed())?;
    let wall = started.elapsed();
    print(&annotator, &answers, &Clock { load, first_answer, wall, together });
    Ok(())
}

/// All answers, in order; says when the first is there.
fn answer(
    annotator: &Annotator,
    requests: &[Request],
    together: bool,
    mut on_first: impl FnMut(),
) -> Result<Vec<Annotation>> {
    let mut answers = Vec::new();
    let mut failed = None;
    let mut add = |answer| match answer {
        Ok(answer) => {
            if answers.is_empty() {
                on_first();
            }
            answers.push(answer);
            ControlFlow::Continue(())
        }
        Err(error) => {
            failed = Some(error);
            ControlFlow::Break(())
        }
    };
    if together {
        let requests = requests.iter().cloned().map(Ok);
        annotator.run_all(requests, &CancelToken::new(), |_, answer| add(answer));
    } else {
        let _ = requests.iter().map(|request| annotator.run(request)).try_for_each(&mut add);
    }
    match failed {
        Some(error) => Err(error.into()),
        None => Ok(answers),
    }
}

struct Clock {
    load: Duration,
    first_answer: Duration,
    wall: Duration,
    together: bool,
}

fn print(annotator: &Annotator, answers: &[Annotation], clock: &Clock) {
    let Some(first) = answers.first() else { return };
    let ms = |duration: Duration| duration.as_secs_f64() * 1000.0;
    // The first token comes with the prompt's pass. The stop token is computed and not among the ids.
    let stop_token = usize::from(first.finish_reason == FinishReason::Stop);
    let decode_steps = (first.token_ids.len() + stop_token).saturating_sub(1);
    // Of an answer among others there are no times of its own.
    let alone = |value: f64| (!clock.together).then_some(value);
    let stats = annotator.engine_stats();
    let row = serde_json::json!({
        "load_ms": ms(clock.load),
        "ttft_ms": alone(ms(clock.first_answer.saturating_sub(first.times.generate))),
        "tpot_ms": (decode_steps > 0).then(|| alone(ms(first.times.generate) / decode_steps as f64)),
        "vision_ms": alone(ms(first.times.vision)),
        "wall_ms": ms(clock.wall),
        "requests": answers.len(),
        "prompt_tokens": answers.iter().map(|a| a.prompt_tokens).sum::<usize>(),
        "output_tokens": answers.iter().map(|a| a.token_ids.len()).sum::<usize>(),
        "peak_rss_bytes": peak_rss_bytes(),
        "model_ms": ms(stats.model),
        "scheduling_ms": ms(stats.scheduling),
        "text": first.result,
    });
    println!("{row}");
}

/// The most memory that this process has held; only Linux tells.
fn peak_rss_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()? * 1024)
}
