//! Paged attention against that of plain numbers, and against itself.

use std::ops::Range;

use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::isa::Isa;

/// Layers of the caches, of which one is used.
const LAYERS: usize = 3;
const LAYER: usize = 1;

/// A sequence at random, and its blocks.
#[derive(Clone)]
struct Made {
    heads: usize,
    kv_heads: usize,
    width: usize,
    queries: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
    blocks: Vec<i32>,
}

impl Made {
    /// Scores are about as large as `size²`.
    fn new(seed: u64, n: usize, (heads, kv_heads, width): (usize, usize, usize), size: f32) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut all = |heads: usize| (0..n * heads * width).map(|_| rng.random_range(-size..=size)).collect();
        let (queries, keys, values) = (all(heads), all(kv_heads), all(kv_heads));
        let blocks = (0..n.div_ceil(BLOCK_TOKENS) as i32).collect();
        Self { heads, kv_heads, width, queries, keys, values, blocks }
    }

    fn tokens(&self) -> usize {
        self.queries.len() / self.heads / self.width
    }

    fn cache(&self, precision: KvPrecision, blocks: usize) -> KvCache {
        let (heads, width) = (self.kv_heads, self.width);
        KvCache::new(CacheShape { layers: LAYERS, heads, width, blocks, precision }).expect("a cache")
    }

    /// In double precision, from what the cache makes of keys and values.
    fn plain(&self, kept: impl Fn(&[f32], bool) -> Vec<f64>) -> Vec<f64> {
        let &Self { heads, kv_heads, width, .. } = self;
        let each = |of: &[f32], is_key| of.chunks(width).map(|head| kept(head, is_key)).collect::<Vec<_>>();
        let (keys, values) = (each(&self.keys, true), each(&self.values, false));
        let mut out = Vec::new();
        for row in 0..self.tokens() {
            for head in 0..heads {
                let query = &self.queries[(row * heads + head) * width..][..width];
                let at = |token: usize| token * kv_heads + head / (heads / kv_heads);
                let dot = |key: &[f64]| key.iter().zip(query).map(|(k, q)| k * f64::from(*q)).sum::<f64>();
                let scores: Vec<_> = (0..=row).map(|t| dot(&keys[at(t)]) / (width as f64).sqrt()).collect();
                let largest = scores.iter().copied().fold(f64::MIN, f64::max);
                let weights: Vec<_> = scores.iter().map(|score| (score - largest).exp()).collect();
                let total: f64 = weights.iter().sum();
                let value = |i: usize| {
                    weights
                        .iter()
                        .enumerate()
                        .map(|(t, weight)| weight / total * values[at(t)][i])
                        .sum::<f64>()
                };
                out.extend((0..width).map(value));
            }
        }
        out
    }
}

/// Steps in which tokens of sequences go through, one after the other in a step.
type Steps = Vec<Vec<(usize, Range<usize>)>>;

/// Results of the sequences' tokens.
fn run(
    isa: Isa,
    made: &[Made],
    steps: &Steps,
    cache: &mut KvCache,
    (threads, rows_at_once): (usize, usize),
) -> Vec<Vec<f32>> {
    let (pool, &Made { heads, kv_heads, width, .. }) = (Pool::new(threads), &made[0]);
    let mut out: Vec<_> = made.iter().map(|made| vec![7.0; made.queries.len()]).collect();
    for step in steps {
        let (mut past, mut begins, mut blocks, mut block_begins) = (vec![], vec![0], vec![], vec![0]);
        let mut rows: [Vec<f32>; 3] = Default::default();
        for (of, tokens) in step {
            let made = &made[*of];
            past.push(tokens.start as i32);
            begins.push(begins[begins.len() - 1] + tokens.len() as i32);
            blocks.extend(&made.blocks[..tokens.end.div_ceil(BLOCK_TOKENS)]);
            block_begins.push(blocks.len() as i32);
            for (rows, (from, heads)) in rows.iter_mut().zip([
                (&made.queries, heads),
                (&made.keys, kv_heads),
                (&made.values, kv_heads),
            ]) {
                rows.extend(&from[tokens.start * heads * width..tokens.end * heads * width]);
            }
        }
        let sequences = Sequences::new(&past, &begins, &blocks, &block_begins).expect("sequences");
        let (n, scale) = (sequences.tokens(), 1.0 / (width as f32).sqrt());
        let mut results = vec![7.0; n * heads * width];
        for first in (0..n).step_by(rows_at_once) {
            let rows_of = |heads: usize| first * heads * width..(first + rows_at_once).min(n) * heads * width;
            let attention = PagedAttention {
                queries: &rows[0][rows_of(heads)],
                keys: &rows[1][rows_of(kv_heads)],
                values: &rows[2][rows_of(kv_heads)],
                first,
                layer: LAYER,
                heads,
                scale,
                out: &mut results[rows_of(heads)],
            };
            job::attend(isa, attention, cache, &sequences, &pool);
        }
        let mut results = results.as_slice();
        for (of, tokens) in step {
            let (mine, rest) = results.split_at(tokens.len() * heads * width);
            out[*of][tokens.start * heads * width..][..mine.len()].copy_from_slice(mine);
            results = rest;
        }
    }
    out
}

fn whole(isa: Isa, made: &Made, precision: KvPrecision) -> Vec<f32> {
    let mut cache = made.cache(precision, made.blocks.len());
    let steps = vec![vec![(0, 0..made.tokens())]];
    run(isa, std::slice::from_ref(made), &steps, &mut cache, (2, usize::MAX / 2)).remove(0)
}

/// The largest difference.
fn difference(found: &[f32], want: &[f64]) -> f64 {
    assert_eq!(found.len(), want.len());
    found
        .iter()
        .zip(want)
        .map(|(a, b)| (f64::from(*a) - b).abs())
        .fold(0.0, |a, b| if b > a || b.is_nan() { b } else { a })
}

const SHAPES: [(usize, usize, usize); 5] = [(12, 2, 128), (7, 1, 64), (4, 2, 32), (3, 3, 96), (14, 2, 128)];

#[test]
fn results_are_those_of_plain_numbers() {
    for (i, shape) in SHAPES.into_iter().enumerate() {
        for (n, size) in [(1, 1.0), (33, 2.0), (300, 0.3), (270, 3.0)] {
            let made = Made::new(i as u64, n, shape, size);
            let plain = made.plain(|head, _| head.iter().map(|value| f64::from(*value)).collect());
            let of_halves =
                made.plain(|head, _| head.iter().map(|value| half::f16::from_f32(*value).to_f64()).collect());
            for isa in Isa::all() {
                let name = format!("{isa:?} {shape:?} {n} {size}");
                let f32s = difference(&whole(isa, &made, KvPrecision::F32), &plain);
                assert!(f32s < f64::from(size) * 2e-5, "{name}: {f32s}");
                let halves = difference(&whole(isa, &made, KvPrecision::F16), &of_halves);
                assert!(halves < f64::from(size) * 2e-5, "{name}: {halves}");
            }
        }
    }
}

/// What groups become in steps of their range.
fn quantized(head: &[f32], most: f64) -> Vec<f64> {
    let group = |group: &[f32]| {
        let ends = |by: fn(f32, f32) -> f32| f64::from(group.iter().copied().fold(group[0], by));
        let (low, high) = (ends(f32::min), ends(f32::max));
        let step = (high - low) / most;
        group
            .iter()
            .map(move |value| low + ((f64::from(*value) - low) / step).round() * step)
            .collect::<Vec<_>>()
    };
    head.chunks(GROUP).flat_map(group).collect()
}

#[test]
fn in_few_bits_results_are_those_of_quantized_groups() {
    for (i, shape) in SHAPES.into_iter().enumerate() {
        let made = Made::new(20 + i as u64, 290, shape, 1.5);
        for (precision, most) in [(KvPrecision::U8, 255.0), (KvPrecision::U4, 15.0)] {
            let want = made.plain(|head, is_key| quantized(head, if is_key { 255.0 } else { most }));
            for isa in Isa::all() {
                // A value at the middle of two steps may become either.
                let found = difference(&whole(isa, &made, precision), &want);
                assert!(found < 3.0 / most, "{isa:?} {shape:?} {precision:?}: {found}");
                let mean = whole(isa, &made, precision)
                    .iter()
                    .zip(&want)
                    .map(|(a, b)| (f64::from(*a) - b).abs())
                    .sum::<f64>()
                    / want.len() as f64;
                assert!(mean < 2e-5, "{isa:?} {shape:?} {precision:?}: {mean}");
            }
        }
    }
}

#[test]
fn a_row_depends_neither_on_pieces_nor_neighbours_nor_blocks_nor_threads_nor_the_processor() {
    for precision in [KvPrecision::U8, KvPrecision::U4, KvPrecision::F16, KvPrecision::F32] {
        let shape = (6, 2, 64);
        let mut made: Vec<_> = [301, 40, 290].iter().map(|n| Made::new(*n as u64, *n, shape, 2.0)).collect();
        let want: Vec<_> = made.iter().map(|made| whole(Isa::Avx2, made, precision)).collect();
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        for isa in Isa::all() {
            for round in 0..6 {
                let mut blocks: Vec<i32> = (0..40).collect();
                blocks.shuffle(&mut rng);
                for made in &mut made {
                    let n = made.blocks.len();
                    made.blocks = blocks.drain(..n).collect();
                }
                let mut steps = Steps::new();
                let mut done = [0; 3];
                while (0..3).any(|i| done[i] < made[i].tokens()) {
                    let mut step = Vec::new();
                    for i in 0..3 {
                        let most = if rng.random_bool(0.5) { 3 } else { 150 };
                        let end = (done[i] + rng.random_range(0..=most)).min(made[i].tokens());
                        // Some of it as sequences of single tokens.
                        let alone = if rng.random_bool(0.3) { done[i]..end } else { end..end };
                        if done[i] < alone.start {
                            step.push((i, done[i]..alone.start));
                        }
                        step.extend(alone.map(|token| (i, token..token + 1)));
                        done[i] = end;
                    }
                    steps.push(step);
                }
                let mut cache = made[0].cache(precision, 40);
                // What was there before does not matter.
                if round % 2 == 1 {
                    cache.fill(255);
                }
                let at_once = [usize::MAX / 2, 64, 7][round % 3];
                let found = run(isa, &made, &steps, &mut cache, ([1, 2, 7][round % 3], at_once));
                for (i, (found, want)) in found.iter().zip(&want).enumerate() {
                    assert!(found == want, "{precision:?} {isa:?} round {round} sequence {i}");
                }
            }
        }
    }
}

#[test]
fn sequences_that_share_blocks_go_their_own_ways_on_copies() {
    let shape = (4, 2, 32);
    let first = Made::new(1, 50, shape, 1.0);
    let mut second = Made::new(2, 50, shape, 1.0);
    // The first 40 tokens are the same; the second block is copied before it is written to.
    let share = |to: &mut Vec<f32>, from: &Vec<f32>, heads: usize| {
        to[..40 * heads * 32].copy_from_slice(&from[..40 * heads * 32]);
    };
    share(&mut second.keys, &first.keys, 2);
    share(&mut second.values, &first.values, 2);
    second.blocks = vec![0, 2];
    for isa in Isa::all() {
        let mut cache = first.cache(KvPrecision::U8, 3);
        let both = [first.clone(), second.clone()];
        run(isa, &both, &vec![vec![(0, 0..40)]], &mut cache, (1, 1000));
        cache.copy_block(1, 2);
        let found = run(isa, &both, &vec![vec![(1, 40..50), (0, 40..50)]], &mut cache, (2, 1000));
        for (i, made) in both.iter().enumerate() {
            let mut alone = made.clone();
            alone.blocks = vec![0, 1];
            let want = whole(isa, &alone, KvPrecision::U8);
            assert!(found[i][40 * 4 * 32..] == want[40 * 4 * 32..], "{isa:?} {i}");
        }
    }
}

#[test]
fn damage_shows_where_it_is_seen_and_nowhere_else() {
    let shape = (4, 2, 64);
    let (heads, width) = (4, 64);
    for precision in [KvPrecision::U8, KvPrecision::U4, KvPrecision::F16, KvPrecision::F32] {
        for isa in Isa::all() {
            let good = [Made::new(1, 70, shape, 1.0), Made::new(2, 45, shape, 1.0)];
            let mut made = good.clone();
            made[1].blocks = vec![3, 4];
            for (what, damage) in [(0, f32::NAN), (1, f32::INFINITY), (2, f32::NEG_INFINITY)] {
                let mut bad = made.clone();
                // Of token 30 the second head of keys or values, or what looks at it.
                let of = &mut bad[0];
                let (to, heads_of) = match what {
                    0 => (&mut of.queries, 4),
                    1 => (&mut of.keys, 2),
                    _ => (&mut of.values, 2),
                };
                to[(30 * heads_of + heads_of - 1) * width + 5] = damage;
                let steps = vec![
                    vec![(0, 0..29), (1, 0..45)],
                    vec![(0, 29..30)],
                    vec![(0, 30..31)],
                    vec![(0, 31..70)],
                ];
                let mut cache = made[0].cache(precision, 5);
                let found = run(isa, &bad, &steps, &mut cache, (2, 1000));
                let want: Vec<_> = good.iter().map(|made| whole(isa, made, precision)).collect();
                assert!(found[1] == want[1], "{isa:?} {precision:?} {what}");
                for (i, (found, want)) in found[0].chunks(width).zip(want[0].chunks(width)).enumerate() {
                    let (row, head) = (i / heads, i % heads);
                    let hit = match what {
                        0 => row == 30 && head == 3,
                        _ => row >= 30 && head >= 2,
                    };
                    let is = if hit { found.iter().any(|value| !value.is_finite()) } else { found == want };
                    assert!(is, "{isa:?} {precision:?} {what} row {row} head {head}");
                }
            }
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let made = Made::new(1, 40, (4, 2, 32), 1.0);
    let attend = |blocks: usize, heads: usize, n: usize, out: usize| {
        let mut cache = made.cache(KvPrecision::U8, blocks);
        let sequences = Sequences::new(&[0], &[0, 40], &[0, 1], &[0, 2]).unwrap();
        let mut out = vec![0.0; out * 4 * 32];
        let attention = PagedAttention {
            queries: &made.queries[..n * 4 * 32],
            keys: &made.keys[..n * 2 * 32],
            values: &made.values[..n * 2 * 32],
            first: 0,
            layer: 0,
            heads,
            scale: 1.0,
            out: &mut out,
        };
        let run =
            std::panic::AssertUnwindSafe(|| attend_paged(attention, &mut cache, &sequences, &Pool::new(1)));
        std::panic::catch_unwind(run).is_ok()
    };
    assert!(attend(2, 4, 40, 40) && attend(2, 4, 0, 0));
    assert!(!attend(1, 4, 40, 40) && !attend(2, 3, 40, 40) && !attend(2, 4, 40, 39) && !attend(2, 4, 39, 40));
    assert!(is_paged_head_supported(128) && is_paged_head_supported(32));
    assert!([0, 16, 80, 160, 256].iter().all(|width| !is_paged_head_supported(*width)));
}
