//! Goldens are what their manifest says: script, versions, and the hash of every file beside it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::Problems;
use crate::wheel::hex;

const FOLDER: &str = "tests/golden";
const MANIFEST: &str = "MANIFEST.json";

#[derive(Debug, Deserialize)]
struct Manifest {
    script: String,
    versions: BTreeMap<String, String>,
    /// Path, relative to the manifest, to SHA-256.
    files: BTreeMap<String, String>,
}

/// Checks each area of `tests/golden`.
pub fn check(root: &Path, files: &[PathBuf]) -> Problems {
    let mut areas: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut problems = Problems::new();
    for file in files {
        let Ok(below) = file.strip_prefix(FOLDER) else {
            continue;
        };
        match below.to_str().and_then(|p| p.split_once('/')) {
            Some((area, name)) => areas.entry(area.to_owned()).or_default().push(name.to_owned()),
            None => problems.push(format!("{} belongs to no area", file.display())),
        }
    }
    for (area, names) in &areas {
        let folder = format!("{FOLDER}/{area}");
        match read_manifest(&root.join(&folder).join(MANIFEST)) {
            Ok(manifest) => check_area(root, &folder, &manifest, names, &mut problems),
            Err(error) => problems.push(format!("{folder}/{MANIFEST}: {error}")),
        }
    }
    problems
}

fn read_manifest(path: &Path) -> Result<Manifest, String> {
    let text = std::fs::read_to_string(path).map_err(|e| e.to_string())?;
    serde_json::from_str(&text).map_err(|e| e.to_string())
}

fn check_area(root: &Path, folder: &str, manifest: &Manifest, names: &[String], problems: &mut Problems) {
    if !root.join(&manifest.script).is_file() {
        problems.push(format!("{folder}: its script {} is missing", manifest.script));
    }
    if manifest.versions.is_empty() {
        problems.push(format!("{folder}: its manifest names no versions"));
    }
    for (name, want) in &manifest.files {
        match std::fs::read(root.join(folder).join(name)) {
            Err(error) => problems.push(format!("{folder}/{name}: {error}")),
            Ok(bytes) => {
                let got = hex(&Sha256::digest(bytes));
                if got != *want {
                    problems.push(format!("{folder}/{name} has sha256 {got}, its manifest says {want}"));
                }
            }
        }
    }
    for name in names.iter().filter(|n| *n != MANIFEST && !manifest.files.contains_key(*n)) {
        problems.push(format!("{folder}/{name} is not in its manifest"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::tree;

    fn manifest(hash: &str) -> String {
        format!(r#"{{"script": "make.py", "versions": {{"torch": "2"}}, "files": {{"a.json": "{hash}"}}}}"#)
    }

    #[test]
    fn each_rule_can_fail() {
        let hash = hex(&Sha256::digest("1"));
        let good = manifest(&hash);
        let no_versions = good.replace(r#""torch": "2""#, "");
        let manifest_path = "tests/golden/x/MANIFEST.json";
        let (script, data) = (("make.py", ""), ("tests/golden/x/a.json", "1"));
        type Files<'a> = Vec<(&'a str, &'a str)>;
        let cases: [(Files<'_>, Option<&str>); 9] = [
            (vec![script, data, (manifest_path, &good)], None),
            (vec![script], None),
            (vec![data, (manifest_path, &good)], Some("tests/golden/x: its script make.py is missing")),
            (vec![script, data, (manifest_path, &no_versions)], Some("names no versions")),
            (vec![script, (manifest_path, &good)], Some("tests/golden/x/a.json: ")),
            (vec![script, ("tests/golden/x/a.json", "2"), (manifest_path, &good)], Some("its manifest says")),
            (
                vec![script, data, ("tests/golden/x/b/c", ""), (manifest_path, &good)],
                Some("x/b/c is not in its"),
            ),
            (vec![script, data], Some("tests/golden/x/MANIFEST.json: ")),
            (vec![script, ("tests/golden/a.json", "1")], Some("a.json belongs to no area")),
        ];
        for (content, want) in cases {
            let (dir, files) = tree(&content);
            let got = check(dir.path(), &files);
            match want {
                None => assert_eq!(got, Problems::new()),
                Some(want) => assert!(got.len() == 1 && got[0].contains(want), "want {want}, got {got:?}"),
            }
        }
    }
}
