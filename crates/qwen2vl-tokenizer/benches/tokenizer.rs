//! Encoding, detokenizing token by token, positions of a large image.

use criterion::{Criterion, criterion_group, criterion_main};
use qwen2vl_tokenizer::{Tokenizer, rope_index};

fn benches(criterion: &mut Criterion) {
    let path = qwen2vl_testkit::demo_model_dir().join("tokenizer.json");
    let tokenizer = Tokenizer::from_file(path).expect("the demo model's tokenizer loads");
    let text = "The quick brown fox jumps over the lazy dog. 敏捷的棕色狐狸跳过懒狗。 ".repeat(50);
    let ids = tokenizer.encode(&text).expect("text encodes");
    criterion.bench_function("encode 3.6 kB", |b| b.iter(|| tokenizer.encode(&text)));
    criterion.bench_function("detokenize stream", |b| {
        b.iter(|| {
            let mut stream = tokenizer.stream(false);
            ids.iter().filter_map(|&id| stream.push(id)).map(|delta| delta.len()).sum::<usize>()
        });
    });
    // A 1080p image.
    let mut prompt = vec![151_652];
    prompt.extend(vec![151_655; 39 * 69]);
    prompt.push(151_653);
    criterion.bench_function("rope_index 1080p", |b| {
        b.iter(|| rope_index(&prompt, &[[1, 78, 138]], &[]));
    });
}

criterion_group!(all, benches);
criterion_main!(all);
