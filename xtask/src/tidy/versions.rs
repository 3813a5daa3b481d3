//! One OpenVINO version everywhere: the runtime's, the one that is fetched, the one that the Python scripts pin. One folder
//! of the ffmpeg that is fetched.

use std::path::{Path, PathBuf};

use super::Problems;
use crate::ffmpeg;
use crate::openvino::{self, TESTED_VERSION};

const RUNTIME: &str = "crates/qwen2vl-runtime/src/library.rs";
const CONSTANT: &str = "pub const TESTED_VERSION: &str = \"";
const PIPELINE: &str = "crates/qwen2vl-pipeline/src/video/prepared.rs";
const FOLDER: &str = "const FETCHED_FFMPEG: &str = \"";
const REQUIREMENT: &str = "openvino==";

/// Compares all places with [`TESTED_VERSION`].
pub fn check(root: &Path, files: &[PathBuf]) -> Problems {
    let mut problems = Problems::new();
    let runtime = std::fs::read_to_string(root.join(RUNTIME)).unwrap_or_default();
    match runtime.lines().find_map(|line| line.strip_prefix(CONSTANT)?.strip_suffix("\";")) {
        Some(TESTED_VERSION) => {}
        Some(other) => problems.push(format!("{RUNTIME} says {other}, xtask {TESTED_VERSION}")),
        None => problems.push(format!("{RUNTIME} has no line `{CONSTANT}...`")),
    }
    let pipeline = std::fs::read_to_string(root.join(PIPELINE)).unwrap_or_default();
    let want = ffmpeg::folder_below_cache();
    match pipeline.lines().find_map(|line| line.strip_prefix(FOLDER)?.strip_suffix("\";")) {
        Some(folder) if folder == want => {}
        folder => problems.push(format!("{PIPELINE} has {folder:?} in `{FOLDER}...`, xtask {want}")),
    }
    if !openvino::WHEEL.requirement.ends_with(&format!("=={TESTED_VERSION}")) {
        problems.push(format!("{} is fetched, tested is {TESTED_VERSION}", openvino::WHEEL.requirement));
    }
    let is_requirements = |f: &&PathBuf| {
        f.extension().is_some_and(|e| e == "txt")
            && f.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.starts_with("requirements"))
    };
    for file in files.iter().filter(is_requirements) {
        let text = std::fs::read_to_string(root.join(file)).unwrap_or_default();
        let pinned = text.lines().filter_map(|line| line.trim().strip_prefix(REQUIREMENT));
        for other in pinned.filter(|version| *version != TESTED_VERSION) {
            problems.push(format!("{} pins {other}, xtask {TESTED_VERSION}", file.display()));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::tree;

    #[test]
    fn each_place_can_differ() {
        let runtime = format!("//! A.\n{CONSTANT}{TESTED_VERSION}\";\n");
        let requirements = format!("torch==2\n{REQUIREMENT}{TESTED_VERSION}\n");
        let pipeline = format!("{FOLDER}{}\";\n", ffmpeg::folder_below_cache());
        let cases = [
            (runtime.clone(), requirements.clone(), None),
            (runtime.replace("202", "203"), requirements.clone(), Some("library.rs says 203")),
            (String::new(), requirements.clone(), Some("library.rs has no line")),
            (runtime, requirements.replace("202", "203"), Some("requirements-x.txt pins 203")),
        ];
        for (runtime, requirements, want) in cases {
            let (dir, files) = tree(&[
                (RUNTIME, &runtime),
                (PIPELINE, &pipeline),
                ("tools/requirements-x.txt", &requirements),
            ]);
            let got = check(dir.path(), &files);
            match want {
                None => assert_eq!(got, Problems::new()),
                Some(want) => assert!(got.len() == 1 && got[0].contains(want), "want {want}, got {got:?}"),
            }
        }
    }
}
