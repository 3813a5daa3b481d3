//! `qwen2vl model info`: what exactly is in a package.

use std::fmt::Write as _;

use anyhow::Result;
use indicatif::HumanBytes;
use qwen2vl_pipeline::{IrReport, PackageReport};
use serde_json::Value;

use crate::args::ModelInfoArgs;
use crate::{model, output};

pub fn run(args: &ModelInfoArgs) -> Result<u8> {
    let report = model::named_package(args.model.as_deref())?.report()?;
    let text = if args.json { serde_json::to_string_pretty(&report)? + "\n" } else { text(&report) };
    output::print_text(&text)?;
    Ok(0)
}

/// The report as people read it.
fn text(report: &PackageReport) -> String {
    let mut out = String::new();
    heading(&mut out, report);
    models(&mut out, &report.models);
    contents(&mut out, report);
    parameters(&mut out, report);
    if !report.notes.is_empty() {
        out.push_str("\nmissing or odd\n");
        for note in &report.notes {
            _ = writeln!(out, "  {note}");
        }
    }
    out
}

fn heading(out: &mut String, report: &PackageReport) {
    _ = writeln!(out, "{}: {}", report.name, report.kind);
    line(out, "source", &report.source.display().to_string());
    if report.root != report.source {
        line(out, "unpacked", &report.root.display().to_string());
    }
    if let Some(sha256) = &report.sha256 {
        line(out, "sha256", sha256);
    }
    if let Some(spark) = &report.spark {
        line(out, "saved by", &format!("Spark {}, {}", spark.spark_version, date(spark.timestamp)));
        line(out, "class", &spark.class);
        line(out, "uid", &spark.uid);
        if let Some(pipeline) = &spark.pipeline {
            let stages: Vec<&str> =
                pipeline.stages.iter().map(|s| s.rsplit('.').next().unwrap_or(s)).collect();
            line(out, "pipeline", &format!("{}: {}", pipeline.uid, stages.join(", ")));
        }
    }
    let written = report.models.iter().find_map(|m| m.openvino_version.as_deref());
    line(
        out,
        "engine",
        &format!("{}, models written by {}", report.engine, written.unwrap_or("an unknown version")),
    );
}

fn models(out: &mut String, models: &[IrReport]) {
    let short = |name: &str| name.trim_start_matches("openvino_").trim_end_matches("_model").to_owned();
    let rows: Vec<[String; 4]> = models
        .iter()
        .map(|m| {
            let compression = m.compression.clone().unwrap_or_default();
            [short(&m.name), m.precision.clone(), HumanBytes(m.weight_bytes).to_string(), compression]
        })
        .collect();
    let width = |i: usize| rows.iter().map(|r| r[i].chars().count()).max().unwrap_or(0);
    let (name, precision, size) = (width(0).max(5), width(1).max(9), width(2).max(7));
    _ = writeln!(out, "\n  {:name$}  {:precision$}  {:>size$}", "model", "precision", "weights");
    for [n, p, s, compression] in &rows {
        _ = writeln!(out, "{}", format!("  {n:name$}  {p:precision$}  {s:>size$}  {compression}").trim_end());
    }
    out.push('\n');
}

fn contents(out: &mut String, report: &PackageReport) {
    let number = |value: &Value| value.to_string();
    let (text, vision) = (&report.config["text_config"], &report.config["vision_config"]);
    line(
        out,
        "language",
        &format!(
            "{} layers of width {}, MLP {}, {} KV heads of {}, vocabulary {}, at most {} tokens",
            text["num_hidden_layers"],
            text["hidden_size"],
            text["intermediate_size"],
            text["num_key_value_heads"],
            text["head_dim"],
            text["vocab_size"],
            text["max_position_embeddings"]
        ),
    );
    line(
        out,
        "vision",
        &format!(
            "{} layers of width {}, {} heads, patches of {} pixels and {} frames, {}x{} merged",
            vision["depth"],
            vision["embed_dim"],
            vision["num_heads"],
            vision["patch_size"],
            vision["temporal_patch_size"],
            vision["spatial_merge_size"],
            vision["spatial_merge_size"]
        ),
    );
    let tokenizer = &report.tokenizer;
    line(
        out,
        "tokenizer",
        &format!(
            "{} tokens, {} added, {} merges",
            tokenizer.vocabulary, tokenizer.added_tokens, tokenizer.merges
        ),
    );
    let images = &report.preprocessor;
    line(
        out,
        "images",
        &format!(
            "{} to {} pixels, mean {}, deviation {}",
            images["min_pixels"],
            images["max_pixels"],
            number(&images["image_mean"]),
            number(&images["image_std"])
        ),
    );
    let generation = &report.generation;
    let how = match generation["do_sample"].as_bool() {
        Some(true) => format!(
            "drawn at temperature {}, top_k {}, top_p {}",
            generation["temperature"], generation["top_k"], generation["top_p"]
        ),
        _ => "greedy".to_owned(),
    };
    line(
        out,
        "answers",
        &format!(
            "{how}, at most {} tokens, ended by {}",
            generation["max_new_tokens"], generation["eos_token_id"]
        ),
    );
}

fn parameters(out: &mut String, report: &PackageReport) {
    if report.parameters.is_empty() {
        return;
    }
    out.push_str("\nparameters (* set, the others are defaults of Spark NLP's class)\n");
    let width = report.parameters.iter().map(|p| p.name.len()).max().unwrap_or(0);
    for p in &report.parameters {
        let mark = if p.explicit { '*' } else { ' ' };
        let used = if p.honored { "" } else { "not used: " };
        _ = writeln!(out, "{mark} {:width$} = {}  ({used}{})", p.name, p.value, p.effect);
    }
}

fn line(out: &mut String, name: &str, value: &str) {
    _ = writeln!(out, "  {name:<10}{value}");
}

/// Milliseconds since 1970 as a date.
fn date(timestamp: i64) -> String {
    match jiff::Timestamp::from_millisecond(timestamp) {
        Ok(time) => time.strftime("%Y-%m-%d %H:%M UTC").to_string(),
        Err(_) => format!("timestamp {timestamp}"),
    }
}
