//! Loads a model, answers one question about one image and prints what it took, as one JSON line: a fresh process for
//! each measurement of `cargo xtask bench`, and a small program to profile.
//!
//! `bench_one --model DIR --image FILE [--prompt TEXT] [--max-new-tokens N] [--max-pixels N] [--threads N] [--cache DIR]`

use std::time::Instant;

use anyhow::{Context, Result, bail};
use qwen2vl_pipeline::{Annotator, FinishReason, Request, RequestOptions};

fn main() -> Result<()> {
    let mut builder = Annotator::builder();
    let mut options = RequestOptions::default();
    let (mut image, mut prompt) = (None, "Describe the image.".to_owned());
    let mut args = std::env::args().skip(1);
    while let Some(flag) = args.next() {
        let value = args.next().with_context(|| format!("{flag} needs a value"))?;
        let number = || value.parse::<u64>().with_context(|| format!("{flag} {value} is not a number"));
        match flag.as_str() {
            "--model" => builder = builder.model(&value),
            "--image" => image = Some(value),
            "--prompt" => prompt = value,
            "--max-new-tokens" => options.max_new_tokens = Some(number()?.try_into()?),
            "--max-pixels" => options.max_pixels = Some(number()?),
            "--threads" => builder = builder.threads(number()?.try_into()?),
            "--cache" => builder = builder.cache_root(&value),
            _ => bail!("unknown flag {flag}"),
        }
    }
    let image = image.context("--image is missing")?;

    let started = Instant::now();
    let annotator = builder.build()?;
    let load = started.elapsed();
    let started = Instant::now();
    let annotation = annotator.run(&Request::question(prompt).image(image).options(options))?;
    let answer = started.elapsed();

    let times = annotation.times;
    let output_tokens = annotation.token_ids.len();
    // The first token comes with the prompt's pass. The stop token is computed and not among the ids.
    let stop_token = usize::from(annotation.finish_reason == FinishReason::Stop);
    let decode_steps = (output_tokens + stop_token).saturating_sub(1);
    let ms = |duration: std::time::Duration| duration.as_secs_f64() * 1000.0;
    let row = serde_json::json!({
        "load_ms": ms(load),
        "ttft_ms": ms(answer.saturating_sub(times.generate)),
        "tpot_ms": (decode_steps > 0).then(|| ms(times.generate) / decode_steps as f64),
        "vision_ms": ms(times.vision),
        "prompt_tokens": annotation.prompt_tokens,
        "output_tokens": output_tokens,
        "peak_rss_bytes": peak_rss_bytes(),
        "text": annotation.result,
    });
    println!("{row}");
    Ok(())
}

/// The most memory that this process has held; only Linux tells.
fn peak_rss_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()? * 1024)
}
