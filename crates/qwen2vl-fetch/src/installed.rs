//! Which Qwen2-VL models lie on this machine.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::completeness;
use crate::fetched::folder_bytes;
use crate::published::PublishedName;

/// A model that lies here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Installed {
    /// What `--model` takes.
    pub name: String,
    /// Its folder, or its zip.
    pub path: PathBuf,
    /// Bytes of its files.
    pub bytes: u64,
    /// Which cache it is in.
    pub place: Place,
    /// What it lacks; empty for a whole one.
    pub missing: Vec<String>,
}

/// A cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Place {
    /// Spark NLP's, which is ours as well.
    Models,
    /// The hub's.
    Hub,
    /// Zips and annotators that this project unpacked to open them.
    Packages,
}

/// Looks through the caches: models of Spark NLP, the hub, this project's unpacked packages. Folders that do not exist
/// are empty ones.
pub fn installed(models_dir: &Path, hub_cache: Option<&Path>, packages_dir: Option<&Path>) -> Vec<Installed> {
    let mut found = in_models(models_dir);
    found.extend(hub_cache.map(in_hub).unwrap_or_default());
    found.extend(packages_dir.map(in_packages).unwrap_or_default());
    found
}

fn in_models(dir: &Path) -> Vec<Installed> {
    let mut found = Vec::new();
    for (path, name) in entries(dir) {
        let half = [".partial-", ".incomplete-"].iter().any(|mark| name.contains(mark));
        let named = PublishedName::parse(&name).is_some_and(|n| n.name.contains("qwen2_vl"));
        if path.is_dir() && !half && (named || completeness::is_qwen2_vl(&path)) {
            let missing = completeness::missing(&path);
            found.push(Installed { name, bytes: folder_bytes(&path), path, place: Place::Models, missing });
        } else if path.is_file() && named && name.ends_with(".zip") {
            let bytes = std::fs::metadata(&path).map_or(0, |m| m.len());
            found.push(Installed { name, path, bytes, place: Place::Models, missing: Vec::new() });
        }
    }
    found
}

fn in_hub(dir: &Path) -> Vec<Installed> {
    let mut found = Vec::new();
    for (repository, folder) in entries(dir) {
        let Some(name) = folder.strip_prefix("models--").map(|n| n.replacen("--", "/", 1)) else { continue };
        for (path, _) in entries(&repository.join("snapshots")) {
            if !completeness::is_qwen2_vl(&path) {
                continue;
            }
            let missing = completeness::missing(&path);
            let bytes = folder_bytes(&path);
            found.push(Installed { name: name.clone(), path, bytes, place: Place::Hub, missing });
        }
    }
    found
}

fn in_packages(dir: &Path) -> Vec<Installed> {
    let folders = entries(dir).into_iter().filter(|(path, name)| path.is_dir() && name != "index");
    folders
        .filter(|(path, _)| holds_language_model(path))
        .map(|(path, name)| {
            let bytes = folder_bytes(&path);
            Installed { name, path, bytes, place: Place::Packages, missing: Vec::new() }
        })
        .collect()
}

/// Packages have the form that this project opens, whatever they came from.
fn holds_language_model(path: &Path) -> bool {
    let files = walkdir::WalkDir::new(path).max_depth(2).into_iter().flatten();
    files
        .filter(|e| e.file_type().is_file())
        .any(|e| e.file_name().to_string_lossy().contains("language_model"))
}

/// Visible entries, sorted.
fn entries(dir: &Path) -> Vec<(PathBuf, String)> {
    let read = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut entries: Vec<(PathBuf, String)> =
        read.map(|e| (e.path(), e.file_name().to_string_lossy().into_owned())).collect();
    entries.retain(|(_, name)| !name.starts_with('.'));
    entries.sort();
    entries
}
