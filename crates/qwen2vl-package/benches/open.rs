//! Opening the demo model: an export in place, an annotator's zip for the first time and again.

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use qwen2vl_package::ModelPackage;
use qwen2vl_testkit::{demo_model_dir, demo_spark_zip};

fn benches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("open");
    group.sample_size(20);
    let cache = tempfile::tempdir().expect("a temporary folder");
    let (export, zip) = (demo_model_dir(), demo_spark_zip());
    group.bench_function("export", |b| {
        b.iter(|| ModelPackage::open(&export, cache.path()).expect("the demo model"));
    });
    group.bench_function("annotator's zip, first time", |b| {
        let empty = || tempfile::tempdir().expect("a temporary folder");
        b.iter_batched_ref(
            empty,
            |cache| ModelPackage::open(&zip, cache.path()).expect("the demo model"),
            BatchSize::PerIteration,
        );
    });
    ModelPackage::open(&zip, cache.path()).expect("the demo model");
    group.bench_function("annotator's zip, again", |b| {
        b.iter(|| ModelPackage::open(&zip, cache.path()).expect("the demo model"));
    });
    group.finish();
}

criterion_group!(open, benches);
criterion_main!(open);
