//! `qwen2vl model list`: which models lie here, or which are published.

use std::fmt::Write;

use anyhow::Result;
use indicatif::HumanBytes;
use qwen2vl_fetch::{Entry, FetchOptions, Fetcher, Installed, Place, installed};
use qwen2vl_pipeline::cache_root;
use serde_json::json;

use super::fetch::Display;
use crate::args::ModelListArgs;
use crate::model::fetch_options;
use crate::output::{print_json, print_text};

/// Runs the command; the exit code.
pub fn run(args: &ModelListArgs) -> Result<u8> {
    let options = fetch_options(&args.source)?;
    if args.remote { remote(args, options) } else { local(args, &options) }?;
    Ok(0)
}

fn local(args: &ModelListArgs, options: &FetchOptions) -> Result<()> {
    let packages = cache_root()?.join("packages");
    let found = installed(&options.models_dir, Some(&options.hub_cache), Some(&packages));
    if args.json {
        return print_json(&serde_json::to_value(&found)?);
    }
    if found.is_empty() {
        eprintln!("no models here; `qwen2vl model fetch` fetches one");
    }
    print_text(&table(&found))
}

fn table(found: &[Installed]) -> String {
    let width = found.iter().map(|m| m.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for model in found {
        let place = match model.place {
            Place::Models => "models",
            Place::Hub => "hub",
            Place::Packages => "unpacked",
            _ => "elsewhere",
        };
        let size = HumanBytes(model.bytes).to_string();
        let _ = writeln!(text, "{:width$}  {place:8}  {size:>11}  {}", model.name, model.path.display());
        if let Some(first) = model.missing.first() {
            let more = match model.missing.len() - 1 {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            let _ = writeln!(text, "{:width$}  incomplete: lacks {first}{more}", "");
        }
    }
    text
}

fn remote(args: &ModelListArgs, options: FetchOptions) -> Result<()> {
    let base_url = options.base_url.clone();
    let mut display = Display::new();
    let catalogue = Fetcher::new(options)?.catalogue(&mut |progress| display.show(&progress));
    display.clear();
    let catalogue = catalogue?;
    let wanted = |e: &&Entry| {
        let lang = args.source.lang.as_ref();
        e.is_qwen2_vl()
            && e.ready_to_use
            && lang.is_none_or(|l| e.language.as_ref().is_none_or(|found| found == l))
    };
    let mut entries: Vec<&Entry> = catalogue.entries.iter().filter(wanted).collect();
    entries.sort_by(|a, b| a.name.cmp(&b.name).then(b.time_ms.cmp(&a.time_ms)));
    let url = |e: &Entry| format!("{}/{}", base_url.trim_end_matches('/'), e.file_name());
    if args.json {
        let rows: Vec<_> =
            entries.iter().map(|e| json!({ "entry": e, "file": e.file_name(), "url": url(e) })).collect();
        return print_json(&rows.into());
    }
    if entries.is_empty() {
        eprintln!("the catalogue has no Qwen2-VL among {} models", catalogue.entries.len());
    }
    let mut text = String::new();
    for entry in entries {
        let language = entry.language.as_ref().map(|l| format!("@{l}")).unwrap_or_default();
        let engine = entry.engine.as_deref().unwrap_or("engine unknown");
        let _ = writeln!(text, "{}{language}  {engine}  {}", entry.name, url(entry));
    }
    print_text(&text)
}
