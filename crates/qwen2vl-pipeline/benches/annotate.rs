//! A question about a small image, end to end, on the demo model, and 20 labels scored together and one by one. Beside
//! openvino-genai: `cargo xtask bench --against genai`.

use criterion::{Criterion, criterion_group, criterion_main};
use qwen2vl_pipeline::{Annotator, CancelToken, Labels, Request, VisionCacheOptions, library};

fn benches(criterion: &mut Criterion) {
    if let Err(error) = library::locate(None) {
        eprintln!("skipped: {error}");
        return;
    }
    let model = qwen2vl_testkit::demo_model_dir();
    let load = |cache| {
        let builder = Annotator::builder().model(&model).vision_cache(cache);
        builder.build().expect("the demo model loads")
    };
    let annotator = load(VisionCacheOptions::off());
    let image = std::fs::read(qwen2vl_testkit::evaluation("caption_00.png")).expect("it is there");
    let request = Request::question("Describe the image.").image(image);
    criterion.bench_function("prepare", |b| b.iter(|| annotator.prepare(&request)));
    criterion.bench_function("annotate", |b| b.iter(|| annotator.run(&request)));
    let remembering = load(VisionCacheOptions::default());
    criterion.bench_function("annotate a known image", |b| b.iter(|| remembering.run(&request)));

    let texts: Vec<String> = ["purple", "green", "red", "blue"]
        .iter()
        .flat_map(|color| {
            ["star", "square", "circle", "cross", "triangle"].map(|s| format!("A {color} {s}."))
        })
        .collect();
    let labels =
        |texts: &[String]| Labels::new(annotator.processor().tokenizer(), texts).expect("they differ");
    let together = labels(&texts);
    let single: Vec<Labels> = texts.iter().map(|text| labels(std::slice::from_ref(text))).collect();
    let score = |labels: &Labels| annotator.score_request(&request, labels, &CancelToken::new());
    criterion.bench_function("score 20 labels", |b| b.iter(|| score(&together)));
    criterion.bench_function("score 20 labels one by one", |b| {
        b.iter(|| single.iter().map(score).collect::<Vec<_>>());
    });
}

criterion_group!(all, benches);
criterion_main!(all);
