//! Times attention of the 2B's vision tower, 16 heads of 80 values, for so many patches:
//! `cargo run --release -p qwen2vl-kernels --example attention -- 1024 4096`.

use std::time::Instant;

use qwen2vl_kernels::{Attention, Pool, Rotation, Scratch, attend};

const HEADS: usize = 16;
const WIDTH: usize = 80;

fn main() {
    let sizes: Vec<usize> =
        std::env::args().skip(1).map(|n| n.parse().expect("a number of patches")).collect();
    let pool = Pool::new(std::thread::available_parallelism().map_or(1, usize::from));
    let mut scratch = Scratch::default();
    for n in if sizes.is_empty() { vec![1024] } else { sizes } {
        let of = |i: usize| (i as u32).wrapping_mul(2_654_435_761) as f32 / u32::MAX as f32 * 4.0 - 2.0;
        let qkv: Vec<f32> = (0..n * 3 * HEADS * WIDTH).map(of).collect();
        let tables: Vec<f32> = (0..n * WIDTH).map(|i| of(i) / 2.0).collect();
        let mut out = vec![0.0; n * HEADS * WIDTH];
        let mut times: Vec<f64> = (0..(32_000_000 / (n * n)).clamp(3, 200))
            .map(|_| {
                let started = Instant::now();
                let rotation = Some(Rotation { width: WIDTH, cos: &tables, sin: &tables });
                let scale = 1.0 / (WIDTH as f32).sqrt();
                let attention =
                    Attention { qkv: &qkv, heads: HEADS, width: WIDTH, scale, rotation, out: &mut out };
                attend(attention, &mut scratch, &pool);
                started.elapsed().as_secs_f64()
            })
            .collect();
        times.sort_by(f64::total_cmp);
        let time = times[times.len() / 2];
        let operations = (4 * n * n * HEADS * WIDTH) as f64;
        println!("{n} patches: {:.2} ms, {:.0} GFLOP/s", time * 1e3, operations / time / 1e9);
    }
}
