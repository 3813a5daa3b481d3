//! Memory of a process that goes on and on, measured in a process of its own: tests beside this one have theirs.

use std::ops::ControlFlow;
use std::process::Command;

use image::RgbImage;
use qwen2vl_pipeline::{Annotator, CancelToken, ImageSize, OnExceed, Request};
use qwen2vl_testkit::demo_model_dir;

use crate::set::{SET, has_openvino, package};

const IN_CHILD: &str = "QWEN2VL_TEST_MEMORY";

/// Requests before the first look, and between the two looks. The allocator still grows by 5 to 12 MB between the 300th and the
/// 700th, then by 0 to 5 for as many more, and ends a little above.
const WARM: usize = 800;
const MORE: usize = 500;

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

#[test]
fn a_memory_limit_gives_images_fewer_pixels_or_refuses() {
    if !has_openvino() {
        return;
    }
    // Large enough that encoding it takes more than answering.
    let size = ImageSize { height: 1200, width: 1440 };
    let pixels = RgbImage::from_fn(1440, 1200, |x, y| image::Rgb([(x / 2) as u8, (y / 2) as u8, 90]));
    let mut png = std::io::Cursor::new(Vec::new());
    pixels.write_to(&mut png, image::ImageFormat::Png).unwrap();
    let mut request = Request::question("What is in the picture?").image(png.into_inner());
    request.options.max_pixels = Some(12_845_056);
    let options = request.options.clone();
    let builder = || Annotator::builder().package(package(&demo_model_dir()));
    let whole = builder().memory_limit(1 << 40, OnExceed::Refuse).build().unwrap();
    let plan = |annotator: &Annotator| annotator.processor().plan(size, &options);
    let needed = plan(&whole).unwrap().peak_bytes;
    let limit = needed - (4 << 20);

    let lowered = builder().memory_limit(limit, OnExceed::Lower).build().unwrap();
    let planned = plan(&lowered).unwrap();
    assert!(planned.lowered_to.is_some() && planned.peak_bytes <= limit, "{planned:?} for {limit}");
    let answer = lowered.run(&request).unwrap();
    assert!(answer.warnings.iter().any(|w| w.contains("memory limit of")), "{:?}", answer.warnings);
    let full = whole.run(&request).unwrap();
    assert!(answer.media[0].tokens < full.media[0].tokens && full.warnings.is_empty());
    // Text needs no pixels.
    assert!(lowered.run(&Request::question("Hello")).unwrap().warnings.is_empty());

    let refusing = builder().memory_limit(limit, OnExceed::Refuse).build().unwrap();
    let tiny = builder().memory_limit(50 << 20, OnExceed::Lower).build().unwrap();
    for annotator in [refusing, tiny] {
        let error = annotator.run(&request).unwrap_err();
        assert_eq!(error.kind(), "memory");
        assert!(error.to_string().contains("the limit is"), "{error}");
    }
}
