//! `qwen2vl cache`, and what annotating keeps.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::{Ran, evaluation, finished, has_openvino, qwen2vl, text};

/// A cache folder of one test, in which models are compiled already.
struct Cache {
    dir: tempfile::TempDir,
}

impl Cache {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        #[cfg(unix)]
        {
            let compiled = qwen2vl_pipeline::cache_root().unwrap().join("compiled");
            std::fs::create_dir_all(&compiled).unwrap();
            std::os::unix::fs::symlink(compiled, dir.path().join("compiled")).unwrap();
        }
        Self { dir }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = qwen2vl(arguments);
        command.env("QWEN2VL_CACHE", self.dir.path()).env_remove("QWEN2VL_NO_VISION_CACHE");
        // It may lie in the usual cache.
        if let Ok(found) = qwen2vl_pipeline::library::locate(None) {
            command.env("QWEN2VL_OPENVINO", found.path);
        }
        command
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        finished(&self.command(arguments).output().unwrap())
    }

    fn annotate(&self, more: &[&str]) -> Ran {
        let images = [evaluation("caption_00.png"), evaluation("caption_01.png")];
        let common =
            ["annotate", &images[0], &images[1], "--format", "jsonl", "--prompt", "Describe the image."];
        let ran = self.run(&[&common[..], more].concat());
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        ran
    }

    fn info(&self) -> Value {
        serde_json::from_str(&self.run(&["cache", "info", "--json"]).stdout).unwrap()
    }

    fn entries(&self) -> Vec<PathBuf> {
        let folders = |path: &Path| {
            let entries = std::fs::read_dir(path).into_iter().flatten();
            entries.map(|e| e.unwrap().path()).collect::<Vec<_>>()
        };
        let shards = folders(&self.dir.path().join("vision")).into_iter().filter(|p| !p.ends_with("models"));
        shards.flat_map(|shard| folders(&shard)).collect()
    }
}

/// What must not depend on a cache.
fn answers(ran: &Ran) -> Vec<Value> {
    ran.rows().iter().map(|row| row["result"].clone()).collect()
}

fn known(ran: &Ran) -> Vec<Option<u64>> {
    ran.rows().iter().map(|row| row["cached"]["vision"].as_u64()).collect()
}

#[test]
fn a_second_run_finds_what_the_first_one_computed_and_answers_the_same() {
    if !has_openvino() {
        return;
    }
    let cache = Cache::new();
    let without = cache.annotate(&["--no-vision-cache"]);
    assert_eq!((known(&without), cache.entries().len()), (vec![None, None], 0));
    let first = cache.annotate(&[]);
    let second = cache.annotate(&[]);
    assert_eq!((known(&first), known(&second)), (vec![None, None], vec![Some(1), Some(1)]));
    assert_eq!((answers(&first), answers(&second)), (answers(&without), answers(&without)));
    let other = cache.annotate(&["--max-pixels", "784"]);
    assert_eq!(known(&other), [None, None]);

    let image = evaluation("caption_00.png");
    let labels = ["classify", &image, "--labels", "star,circle", "--format", "jsonl"];
    let scored = cache.run(&labels);
    assert_eq!(known(&scored), [Some(1)], "{}", scored.stderr);

    // Damaged, and too small for anything.
    for entry in cache.entries() {
        std::fs::write(entry, "damaged").unwrap();
    }
    let damaged = cache.annotate(&[]);
    assert_eq!((known(&damaged), answers(&damaged)), (vec![None, None], answers(&without)));
    assert_eq!(damaged.stderr.matches("is damaged").count(), 1, "{}", damaged.stderr);
    assert_eq!(cache.run(&["cache", "clear"]).code, 0);
    let none = cache.annotate(&["--vision-cache-size", "1kB"]);
    assert_eq!((known(&none), cache.entries().len()), (vec![None, None], 0));
}

#[test]
fn processes_that_begin_together_share_a_folder() {
    if !has_openvino() {
        return;
    }
    let cache = Cache::new();
    let want = answers(&cache.annotate(&["--no-vision-cache"]));
    let images = [evaluation("caption_00.png"), evaluation("caption_01.png")];
    let arguments =
        ["annotate", &images[0], &images[1], "--format", "jsonl", "--prompt", "Describe the image."];
    let start = || {
        let mut command = cache.command(&arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let children: Vec<_> = (0..5).map(|_| start()).collect();
    for child in children {
        let ran = finished(&child.wait_with_output().unwrap());
        assert_eq!((ran.code, answers(&ran), ran.stderr.as_str()), (0, want.clone(), ""));
    }
    assert_eq!((cache.entries().len(), cache.info()["vision"]["entries"].as_u64()), (2, Some(2)));
    assert_eq!(known(&cache.annotate(&[])), [Some(1), Some(1)]);
}

#[test]
fn the_cache_is_shown_and_emptied_and_nothing_else_is() {
    let cache = Cache::new();
    let root = cache.dir.path();
    std::fs::remove_file(root.join("compiled")).ok();
    let entry = format!("vision/ab/{}.q2v", "ab".repeat(32));
    let files = [
        (entry.as_str(), true),
        ("vision/ab/mine.txt", false),
        ("compiled/1.blob", true),
        ("compiled/mine.txt", false),
        ("packages/demo-1/.unpacked.json", true),
        ("packages/mine/model.xml", false),
        ("openvino/2026.4.1/libs/x.so", false),
        ("mine.txt", false),
    ];
    let write = || {
        for (name, _) in files {
            std::fs::create_dir_all(root.join(name).parent().unwrap()).unwrap();
            std::fs::write(root.join(name), [1; 1000]).unwrap();
        }
    };
    write();
    let info = cache.info();
    let parts = ["vision", "compiled", "packages", "openvino", "fetch"];
    let counts = parts.map(|part| (info[part]["entries"].as_u64(), info[part]["bytes"].as_u64()));
    let count = |entries, bytes| (Some(entries), Some(bytes));
    let want = [count(1, 2000), count(2, 2000), count(1, 2000), count(1, 1000), count(0, 0)];
    assert_eq!((counts, info["path"].as_str()), (want, root.to_str()));
    let shown = cache.run(&["cache", "info"]);
    assert!(shown.stdout.starts_with(&text(root)) && shown.stdout.contains("1 entries"), "{}", shown.stdout);

    for (what, gone, says) in [
        ("vision", &["vision"][..], "vision: 1 entries, 1000 B freed\n"),
        ("compiled", &["compiled"], "compiled: 1 files, 1000 B freed\n"),
        ("packages", &["packages"], "packages: 1 packages, 1000 B freed\n"),
        ("all", &["vision", "compiled", "packages"], "vision: 1 entries"),
    ] {
        write();
        let ran = cache.run(&["cache", "clear", what]);
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
        assert!(ran.stdout.starts_with(says), "{}", ran.stdout);
        for (name, is_ours) in files {
            let is_meant = gone.iter().any(|folder| name.starts_with(folder));
            assert_eq!(root.join(name).exists(), !(is_ours && is_meant), "{what}: {name}");
        }
    }
    write();
    let ran = cache.run(&["cache", "clear", "--json"]);
    assert_eq!(ran.stdout, "{\"vision\":{\"entries\":1,\"bytes\":1000}}\n");
    assert_eq!(cache.run(&["cache", "clear", "openvino"]).code, 2);
    assert_eq!(cache.run(&["annotate", "x.png", "--vision-cache-size", "lots"]).code, 2);
}
