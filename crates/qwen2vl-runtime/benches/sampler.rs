//! Choosing a token from logits of the true vocabulary.

use criterion::{Criterion, criterion_group, criterion_main};
use qwen2vl_runtime::{GenerationConfig, Sampler};

const VOCAB_SIZE: usize = 151_936;

fn benches(criterion: &mut Criterion) {
    let logits: Vec<f32> = (0..VOCAB_SIZE).map(|i| ((i * 7919) % 10_007) as f32 / 500.0).collect();
    let greedy = GenerationConfig::default();
    let sampled = GenerationConfig { do_sample: true, top_k: 50, top_p: 0.9, ..GenerationConfig::default() };
    let penalty = GenerationConfig { repetition_penalty: 1.05, ..GenerationConfig::default() };
    for (name, config) in [("greedy", greedy), ("top-k 50, top-p 0.9", sampled), ("penalty", penalty)] {
        let mut sampler = Sampler::new(&config, &[1, 2, 3]).expect("the options are in range");
        let mut row = logits.clone();
        criterion.bench_function(name, |b| {
            b.iter(|| {
                row.copy_from_slice(&logits);
                sampler.sample(&mut row)
            });
        });
    }
}

criterion_group!(all, benches);
criterion_main!(all);
