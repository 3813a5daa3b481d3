//! Times a layer of the 2B's attention to a KV cache of 8 bits: of so many new tokens in each of so many sequences behind so many
//! others, `cargo run --release -p qwen2vl-kernels --example paged -- 1,16,300 1024,1,0`.

use std::time::Instant;

use qwen2vl_kernels::{
    BLOCK_TOKENS, CacheShape, KvCache, KvPrecision, PagedAttention, Pool, Sequences, attend_paged,
};

const HEADS: usize = 12;
const KV_HEADS: usize = 2;
const WIDTH: usize = 128;

fn main() {
    let numbers =
        |text: String| text.split(',').map(|n| n.parse().expect("a number")).collect::<Vec<usize>>();
    let cases: Vec<_> = std::env::args().skip(1).map(numbers).collect();
    let pool = Pool::new(std::thread::available_parallelism().map_or(1, usize::from));
    for case in if cases.is_empty() { vec![vec![1, 1, 300]] } else { cases } {
        let [new, sequences, past] = case[..] else { panic!("new tokens, sequences, tokens before") };
        let each = (past + new).div_ceil(BLOCK_TOKENS);
        let shape = CacheShape {
            layers: 1,
            heads: KV_HEADS,
            width: WIDTH,
            blocks: each * sequences,
            precision: KvPrecision::U8,
        };
        let mut cache = KvCache::new(shape).expect("a cache");
        let begins = |step: usize| (0..=sequences).map(|i| (i * step) as i32).collect::<Vec<_>>();
        let blocks: Vec<_> = (0..(each * sequences) as i32).collect();
        let past_lens = vec![past as i32; sequences];
        let all = Sequences::new(&past_lens, &begins(new), &blocks, &begins(each)).expect("sequences");
        let n = new * sequences;
        let of = |i: usize| (i as u32).wrapping_mul(2_654_435_761) as f32 / u32::MAX as f32 * 4.0 - 2.0;
        let rows = |heads: usize| (0..n * heads * WIDTH).map(of).collect::<Vec<_>>();
        let (queries, kv) = (rows(HEADS), rows(KV_HEADS));
        let mut out = vec![0.0; n * HEADS * WIDTH];
        let operations = 4.0 * (n * HEADS * WIDTH) as f64 * (past as f64 + (new + 1) as f64 / 2.0);
        let mut times: Vec<f64> = (0..(2e9 / operations).clamp(5.0, 2000.0) as usize)
            .map(|_| {
                let started = Instant::now();
                let attention = PagedAttention {
                    queries: &queries,
                    keys: &kv,
                    values: &kv,
                    first: 0,
                    layer: 0,
                    heads: HEADS,
                    scale: 1.0 / (WIDTH as f32).sqrt(),
                    out: &mut out,
                };
                attend_paged(attention, &mut cache, &all, &pool);
                started.elapsed().as_secs_f64()
            })
            .collect();
        times.sort_by(f64::total_cmp);
        let time = times[times.len() / 2];
        println!(
            "{new} new in {sequences} behind {past}: {:.3} ms, {:.0} GFLOP/s",
            time * 1e3,
            operations / time / 1e9
        );
    }
}
