//! Choosing a token from logits of the true vocabulary.

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use qwen2vl_runtime::{GenerationConfig, Sampler};

const VOCAB_SIZE: usize = 151_936;

fn benches(criterion: &mut Criterion) {
    let logits: Vec<f32> = (0..VOCAB_SIZE).map(|i| ((i * 7919) % 10_007) as f32 / 500.0).collect();
    let greedy = GenerationConfig::default();
    let sampled = GenerationConfig { do_sample: true, top_k: 50, top_p: 0.9, ..GenerationConfig::default() };
    let penalty = GenerationConfig { repetition_penalty: 1.05, ..GenerationConfig::default() };
    let all = GenerationConfig {
        presence_penalty: 0.5,
        frequency_penalty: 0.5,
        no_repeat_ngram_size: 3,
        min_p: 0.05,
        logprobs: Some(5),
        ..sampled.clone()
    };
    for (name, config) in
        [("greedy", greedy), ("top-k 50, top-p 0.9", sampled), ("penalty", penalty), ("many options", all)]
    {
        let prompt: Vec<u32> = (0..300).collect();
        let mut row = logits.clone();
        criterion.bench_function(name, |b| {
            // Afresh each time: an answer of a million tokens is not what is measured.
            b.iter_batched_ref(
                || Sampler::new(&config, &prompt).expect("the options are in range"),
                |sampler| {
                    row.copy_from_slice(&logits);
                    sampler.sample(&mut row)
                },
                BatchSize::NumIterations(100),
            );
        });
    }
}

criterion_group!(all, benches);
criterion_main!(all);
