//! Times the products of one decoding step and of prompts on weights of the 2B's shapes, gate and up as one product, beside a
//! plain read of the same memory: `cargo run --release -p qwen2vl-kernels --example bandwidth`; with `--read-only` the read
//! alone, with numbers steps of so many rows alone.

use std::time::Instant;

use qwen2vl_kernels::{Kind, Pool, Product, Rows, Scratch, Weights, is_supported, multiply};

struct Made {
    kind: Kind,
    shape: (usize, usize, usize),
    data: Vec<u8>,
    scales: Vec<u8>,
    points: Vec<u8>,
    /// Multiplied with this one's product.
    times: Option<Box<Made>>,
}

impl Made {
    fn new(kind: Kind, n: usize, k: usize, group: usize) -> Self {
        let bytes = if kind == Kind::U4 { n * k / 2 } else { n * k };
        let data = (0..bytes).map(|i| (i as u32).wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
        let groups = n * k / group;
        let points = if kind == Kind::U4 { groups.div_ceil(2) } else { groups };
        Self {
            kind,
            shape: (n, k, group),
            data,
            scales: vec![0x20; groups * 2],
            points: vec![0x77; points],
            times: None,
        }
    }

    fn times(self, other: Self) -> Self {
        Self { times: Some(Box::new(other)), ..self }
    }

    /// Weights, scales and zero points.
    fn bytes(&self) -> usize {
        let times = self.times.as_ref().map_or(0, |times| times.bytes());
        self.data.len() + self.scales.len() + self.points.len() + times
    }

    /// Packed weights, one after the other.
    fn data(&self) -> impl Iterator<Item = &[u8]> {
        std::iter::once(&self.data[..]).chain(self.times.iter().map(|times| &times.data[..]))
    }

    fn weights(&self) -> Weights<'_> {
        let points = (self.kind != Kind::I8).then_some(&self.points[..]);
        Weights::new(self.kind, self.shape, &self.data, &self.scales, points).expect("the shapes fit")
    }
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn run(name: &str, made: &[Made], m: usize, rounds: usize, pool: &Pool) {
    let mut scratch = Scratch::default();
    let most = made.iter().map(|w| w.shape.0.max(w.shape.1)).max().unwrap_or(0);
    let x: Vec<f32> = (0..m * most).map(|i| (i % 101) as f32 - 50.0).collect();
    let mut out = vec![0.0; m * most];
    let once = |out: &mut [f32], scratch: &mut Scratch| {
        let started = Instant::now();
        for w in made {
            let (n, k, _) = w.shape;
            let (weights, times) = (w.weights(), w.times.as_ref().map(|times| times.weights()));
            let alone = Product::new(&weights, &mut out[..m * n]);
            let product = match &times {
                Some(times) => Product { beta: Some(1.0), times: Some(times), ..alone },
                None => alone,
            };
            multiply(Rows { x: &x[..m * k], norm: None }, &mut [product], scratch, pool);
        }
        started.elapsed().as_secs_f64()
    };
    once(&mut out, &mut scratch);
    let time = median((0..rounds).map(|_| once(&mut out, &mut scratch)).collect());
    let bytes: usize = made.iter().map(Made::bytes).sum();
    let values: usize = made.iter().map(|w| w.data().count() * w.shape.0 * w.shape.1).sum();
    let products = 2.0 * (values * m) as f64;
    println!(
        "{name:28} m {m:5}: {:8.2} ms, {:6.1} GB/s, {:6.0} GFLOP/s",
        time * 1e3,
        bytes as f64 / time / 1e9,
        products / time / 1e9
    );
}

fn main() {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let four = |n, k| Made::new(Kind::U4, n, k, 128);
    let layer = || {
        let gated = four(8960, 1536).times(four(8960, 1536));
        [four(1536, 1536), four(256, 1536), four(256, 1536), four(1536, 1536), gated, four(1536, 8960)]
    };
    let mut language: Vec<Made> = (0..28).flat_map(|_| layer()).collect();
    language.push(Made::new(Kind::U8, 151_936, 1536, 1536));
    read(&language, threads);
    if std::env::args().any(|arg| arg == "--read-only") {
        return;
    }
    if !is_supported() {
        return println!("this processor has no AVX2");
    }
    let pool = Pool::new(threads);
    let asked: Vec<usize> = std::env::args().filter_map(|arg| arg.parse().ok()).collect();
    for m in if asked.is_empty() { vec![1, 2, 4, 8, 16] } else { asked.clone() } {
        run("language model, a step", &language, m, 15, &pool);
    }
    if !asked.is_empty() {
        return;
    }
    language.pop();
    for m in [280, 1024] {
        run("language model, a prompt", &language, m, 3, &pool);
    }
    let vision: Vec<Made> = [(3840, 1280), (1280, 1280), (5120, 1280), (1280, 5120)]
        .into_iter()
        .map(|(n, k)| Made::new(Kind::I8, n, k, k))
        .collect();
    run("vision, one of 32 blocks", &vision, 1024, 5, &pool);
}

/// Reads all weights, as fast as that goes.
fn read(made: &[Made], threads: usize) {
    let bytes: usize = made.iter().flat_map(Made::data).map(<[u8]>::len).sum();
    let once = || {
        let started = Instant::now();
        let sum: u64 = std::thread::scope(|scope| {
            let work: Vec<_> = (0..threads)
                .map(|t| {
                    scope.spawn(move || {
                        let part = |data: &[u8]| {
                            let n = data.len() / threads;
                            let (_, words, _) = {
                                // SAFETY: any bytes are numbers.
                                unsafe { data[t * n..][..n].align_to::<[u64; 8]>() }
                            };
                            let mut sums = [0u64; 8];
                            for word in words {
                                for (sum, word) in sums.iter_mut().zip(word) {
                                    *sum = sum.wrapping_add(*word);
                                }
                            }
                            sums.iter().fold(0u64, |a, b| a.wrapping_add(*b))
                        };
                        made.iter().flat_map(Made::data).map(part).fold(0u64, u64::wrapping_add)
                    })
                })
                .collect();
            work.into_iter().filter_map(|w| w.join().ok()).fold(0, u64::wrapping_add)
        });
        (started.elapsed().as_secs_f64(), sum)
    };
    let time = median((0..7).map(|_| std::hint::black_box(once()).0).collect());
    println!("plain read: {:.2} ms, {:.1} GB/s", time * 1e3, bytes as f64 / time / 1e9);
}
