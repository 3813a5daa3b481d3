//! The three stages apart: decoding, resizing with patches, patches alone.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use qwen2vl_preprocess::{
    DecodeOptions, PixelLimits, PreprocessOptions, Preprocessor, RgbImage, decode_image,
};
use qwen2vl_testkit::image;

fn stages(criterion: &mut Criterion) {
    let files = [
        "scene_640x480.jpg",
        "scene_1920x1080.jpg",
        "cat_progressive.jpg",
        "astronaut.png",
        "cat_lossless.webp",
    ];
    let mut group = criterion.benchmark_group("decode_image");
    for name in files {
        let bytes = std::fs::read(image(name)).expect("the picture is committed");
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(name, |b| b.iter(|| decode_image(black_box(&bytes), &DecodeOptions::default())));
    }
    group.finish();

    let preprocessor = Preprocessor::new(PreprocessOptions::default()).expect("the defaults are valid");
    // The first two keep no side, the third only the height, the last both: patches alone.
    for (group, height, width) in [
        ("resize_and_patchify", 480, 640),
        ("resize_and_patchify", 1080, 1920),
        ("resize_width_and_patchify", 1092, 1920),
        ("patchify", 1092, 1932),
    ] {
        let data = (0..height * width * 3).map(|i| (i as u32).wrapping_mul(2_654_435_761).to_be_bytes()[0]);
        let rgb = RgbImage::new(height as u32, width as u32, data.collect()).expect("the length fits");
        let mut group = criterion.benchmark_group(group);
        group.throughput(Throughput::Elements(rgb.size().pixels()));
        group.bench_function(format!("{width}x{height}"), |b| {
            b.iter(|| preprocessor.preprocess_with(black_box(&rgb), PixelLimits::default()));
        });
        group.finish();
    }
}

criterion_group!(benches, stages);
criterion_main!(benches);
