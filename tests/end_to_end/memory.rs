//! Memory of a process that goes on and on, measured in a process of its own: tests beside this one have theirs.

use std::ops::ControlFlow;
use std::process::Command;

use qwen2vl_pipeline::{Annotator, CancelToken};
use qwen2vl_testkit::demo_model_dir;

use crate::set::{SET, has_openvino, package};

const IN_CHILD: &str = "QWEN2VL_TEST_MEMORY";

/// Requests before the first look, and between the two looks.
const WARM: usize = 300;
const MORE: usize = 400;

/// Between the two looks, bytes. A leak of one image's embeddings or one prompt's cache per request would be 20 MB or more.
const SLACK: u64 = 8 << 20;

#[test]
fn nothing_grows_with_the_number_of_requests() {
    if !has_openvino() || !cfg!(target_os = "linux") {
        return;
    }
    let test = std::env::current_exe().unwrap();
    let mut child = Command::new(test);
    child.args(["--exact", "memory::many_requests", "--nocapture"]).env(IN_CHILD, "1");
    let output = child.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let figures: Vec<u64> = text
        .lines()
        .filter_map(|line| line.split_once("resident: "))
        .filter_map(|(_, bytes)| bytes.trim().parse().ok())
        .collect();
    let [before, after] = figures[..] else { panic!("{text}\n{}", String::from_utf8_lossy(&output.stderr)) };
    println!("{before} bytes after {WARM} requests, {after} after {MORE} more");
    assert!(after <= before + SLACK, "{before} bytes after {WARM} requests, {after} after {MORE} more");
}

/// The part of the test above that runs alone; does nothing elsewhere.
#[test]
fn many_requests() {
    if std::env::var_os(IN_CHILD).is_none() {
        return;
    }
    let annotator = Annotator::builder().package(package(&demo_model_dir())).concurrency(6).build().unwrap();
    let ask = |from: usize, n: usize| {
        let requests = (from..from + n).map(|i| Ok(SET[i * 7 % SET.len()].0.request()));
        let mut answered = 0;
        annotator.run_all(requests, &CancelToken::new(), |_, answer| {
            answer.unwrap();
            answered += 1;
            ControlFlow::Continue(())
        });
        assert_eq!(answered, n);
        println!("resident: {}", resident());
    };
    ask(0, WARM);
    ask(WARM, MORE);
}

fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap() * 1024
}
