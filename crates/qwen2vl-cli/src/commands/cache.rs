//! `qwen2vl cache`: what is in the cache folder, and emptying it.

use std::fmt::Write;

use anyhow::Result;
use indicatif::HumanBytes;
use qwen2vl_pipeline::{CacheFolder, cache_root};
use serde_json::{Map, Value, json};

use crate::SOME_FAILED;
use crate::args::{CacheClearArgs, CacheCommand, CacheInfoArgs};
use crate::output::{print_json, print_text};

/// Runs one of the commands; the exit code.
pub fn run(command: &CacheCommand) -> Result<u8> {
    match command {
        CacheCommand::Info(args) => info(args),
        CacheCommand::Clear(args) => clear(args),
    }
}

fn info(args: &CacheInfoArgs) -> Result<u8> {
    let root = cache_root()?;
    let mut text = format!("{}\n", root.display());
    let mut row = Map::from_iter([("path".to_owned(), Value::from(root.display().to_string()))]);
    for folder in CacheFolder::ALL {
        let usage = folder.usage(&root);
        let size = HumanBytes(usage.bytes).to_string();
        let _ = writeln!(text, "{:10}{:>7} {:<9}{size:>12}", folder.name(), usage.entries, entries(folder));
        row.insert(folder.name().to_owned(), json!({ "entries": usage.entries, "bytes": usage.bytes }));
    }
    if args.json { print_json(&row.into()) } else { print_text(&text) }?;
    Ok(0)
}

fn clear(args: &CacheClearArgs) -> Result<u8> {
    let root = cache_root()?;
    let (mut text, mut row, mut failed) = (String::new(), Map::new(), false);
    for folder in args.what.folders() {
        let cleared = folder.clear(&root);
        let (name, size) = (folder.name(), HumanBytes(cleared.bytes));
        let _ = writeln!(text, "{name}: {} {}, {size} freed", cleared.entries, entries(*folder));
        row.insert(name.to_owned(), json!({ "entries": cleared.entries, "bytes": cleared.bytes }));
        for (path, error) in &cleared.failed {
            failed = true;
            eprintln!("error: {} cannot be removed: {error}", path.display());
        }
    }
    if args.json { print_json(&row.into()) } else { print_text(&text) }?;
    Ok(if failed { SOME_FAILED } else { 0 })
}

/// What a folder's entries are.
fn entries(folder: CacheFolder) -> &'static str {
    match folder {
        CacheFolder::Vision => "entries",
        CacheFolder::Packages => "packages",
        CacheFolder::Openvino => "versions",
        _ => "files",
    }
}
