//! A question about a small image, end to end, on the demo model. Beside openvino-genai: `cargo xtask bench --against
//! genai`.

use criterion::{Criterion, criterion_group, criterion_main};
use qwen2vl_pipeline::{Annotator, Request, library};

fn benches(criterion: &mut Criterion) {
    if let Err(error) = library::locate(None) {
        eprintln!("skipped: {error}");
        return;
    }
    let model = qwen2vl_testkit::demo_model_dir();
    let annotator = Annotator::builder().model(model).build().expect("the demo model loads");
    let image = std::fs::read(qwen2vl_testkit::evaluation("caption_00.png")).expect("it is there");
    let request = Request::question("Describe the image.").image(image);
    criterion.bench_function("prepare", |b| b.iter(|| annotator.prepare(&request)));
    criterion.bench_function("annotate", |b| b.iter(|| annotator.run(&request)));
}

criterion_group!(all, benches);
criterion_main!(all);
