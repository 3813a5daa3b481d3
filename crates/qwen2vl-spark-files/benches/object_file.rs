//! The features of a whole annotator: 303,052 elements in 15 MB of object files, with their checksums.

use std::path::{Path, PathBuf};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use qwen2vl_spark_files::checksum::{Checksums, side_file_name};
use qwen2vl_spark_files::object_file::elements;
use qwen2vl_spark_files::sequence_file::SequenceFile;

/// Paths, bytes and checksums of the parts.
fn parts() -> Vec<(PathBuf, Vec<u8>, Checksums)> {
    let fields = qwen2vl_testkit::demo_spark_dir().join("fields");
    let read = |path: &Path| std::fs::read(path).expect("the features of the demo package");
    ["vocabulary/part-00000", "vocabulary/part-00001", "merges/part-00000", "merges/part-00001"]
        .into_iter()
        .map(|part| {
            let path = fields.join(part);
            let name = path.file_name().and_then(|name| name.to_str()).expect("a name in ASCII");
            let side = read(&path.with_file_name(side_file_name(name)));
            (path.clone(), read(&path), Checksums::parse(&side).expect("checksums"))
        })
        .collect()
}

fn benches(criterion: &mut Criterion) {
    let parts = parts();
    let n_bytes: usize = parts.iter().map(|(_, bytes, _)| bytes.len()).sum();
    let mut group = criterion.benchmark_group("vocabulary and merges");
    group.throughput(Throughput::Bytes(n_bytes as u64));
    group.sample_size(20);
    group.bench_function("records", |b| {
        b.iter(|| {
            let records = |bytes: &[u8]| SequenceFile::open(bytes).expect("a SequenceFile").count();
            parts.iter().map(|(_, bytes, _)| records(bytes)).sum::<usize>()
        });
    });
    group.bench_function("elements", |b| {
        b.iter(|| {
            let count = |bytes: &[u8]| elements(bytes).filter(Result::is_ok).count();
            let n: usize = parts.iter().map(|(_, bytes, _)| count(bytes)).sum();
            assert_eq!(n, 303_052);
        });
    });
    group.bench_function("checked elements as text and numbers, from disk", |b| {
        b.iter(|| {
            let mut n = 0;
            for (path, _, checksums) in &parts {
                let file = std::fs::File::open(path).expect("it was there");
                for element in elements(checksums.verify(file)) {
                    let element = element.expect("a good file");
                    let (key, number) = element.as_tuple().expect("pairs");
                    n += usize::from(number.as_int().is_some());
                    n += key.as_str().map_or(2, str::len);
                }
            }
            n
        });
    });
    group.finish();
}

criterion_group!(all, benches);
criterion_main!(all);
