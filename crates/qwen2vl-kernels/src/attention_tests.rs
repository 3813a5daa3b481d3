//! Attention against that of plain numbers, and against itself.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::isa::Isa;

/// Rows at random, and tables of a rotation.
struct Made {
    n: usize,
    heads: usize,
    width: usize,
    qkv: Vec<f32>,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl Made {
    /// Scores are about as large as `size²`.
    fn new(seed: u64, (n, heads, width): (usize, usize, usize), size: f32) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let qkv = (0..n * 3 * heads * width).map(|_| rng.random_range(-size..=size)).collect();
        let angles: Vec<f32> = (0..n * width).map(|_| rng.random_range(-3.0..3.0)).collect();
        let (cos, sin) = angles.iter().map(|angle| (angle.cos(), angle.sin())).unzip();
        Self { n, heads, width, qkv, cos, sin }
    }

    fn rotation(&self) -> Rotation<'_> {
        Rotation { width: self.width, cos: &self.cos, sin: &self.sin }
    }

    fn scale(&self) -> f32 {
        1.0 / (self.width as f32).sqrt()
    }

    fn attend(&self, isa: Isa, rotated: bool, threads: usize) -> Vec<f32> {
        let mut out = vec![7.0; self.qkv.len() / 3];
        let &Self { heads, width, .. } = self;
        let rotation = rotated.then(|| self.rotation());
        let attention =
            Attention { qkv: &self.qkv, heads, width, scale: self.scale(), rotation, out: &mut out };
        job::attend(isa, attention, &mut Scratch::default(), &Pool::new(threads));
        out
    }

    /// The same in double precision, and of each result the values' weighted mean of sizes.
    fn plain(&self, rotated: bool) -> (Vec<f64>, Vec<f64>) {
        let &Self { n, heads, width, .. } = self;
        let part = |row: usize, part: usize, head: usize| {
            let mut values = self.qkv[((row * 3 + part) * heads + head) * width..][..width].to_vec();
            if rotated && part < 2 {
                self.rotation().rotate_head(row, &mut values);
            }
            values.into_iter().map(f64::from).collect::<Vec<_>>()
        };
        let (mut out, mut sizes) = (vec![0.0; n * heads * width], vec![0.0; n * heads * width]);
        for head in 0..heads {
            let keys: Vec<_> = (0..n).map(|row| part(row, 1, head)).collect();
            let values: Vec<_> = (0..n).map(|row| part(row, 2, head)).collect();
            for row in 0..n {
                let query = part(row, 0, head);
                let dot = |key: &Vec<f64>| key.iter().zip(&query).map(|(k, q)| k * q).sum::<f64>();
                let scores: Vec<_> = keys.iter().map(|key| dot(key) * f64::from(self.scale())).collect();
                let largest = scores.iter().copied().fold(f64::MIN, f64::max);
                let weights: Vec<_> = scores.iter().map(|score| (score - largest).exp()).collect();
                let total: f64 = weights.iter().sum();
                let at = (row * heads + head) * width;
                for (weight, value) in weights.iter().zip(&values) {
                    for i in 0..width {
                        out[at + i] += weight / total * value[i];
                        sizes[at + i] += weight / total * value[i].abs();
                    }
                }
            }
        }
        (out, sizes)
    }
}

#[test]
fn it_is_that_of_plain_numbers() {
    let cases = [
        ((1, 1, 16), 1.0),
        ((2, 3, 32), 4.0),
        ((63, 1, 48), 2.0),
        ((64, 2, 80), 0.1),
        ((65, 2, 80), 3.0),
        ((200, 3, 80), 6.0),
        ((333, 1, 128), 1.0),
        ((130, 2, 64), 0.0),
    ];
    for (i, (shape, size)) in cases.into_iter().enumerate() {
        let made = Made::new(i as u64, shape, size);
        for rotated in [false, true] {
            let (want, sizes) = made.plain(rotated);
            for isa in Isa::all() {
                let got = made.attend(isa, rotated, 2);
                for (i, got) in got.iter().enumerate() {
                    let off = (f64::from(*got) - want[i]).abs();
                    // A step of values; those of scores, in five deviations; those of weights.
                    let step = f64::from(size) / f64::from(LARGEST);
                    assert!(
                        off <= step + sizes[i] * (2.0 * step * f64::from(size) + 0.001),
                        "{isa:?} {shape:?} {size} {i}: {got} for {}",
                        want[i]
                    );
                }
            }
        }
    }
}

#[test]
fn it_depends_neither_on_threads_nor_on_the_instruction_set() {
    // More than is quantized at a time, in the last case.
    for (shape, size) in [((70, 2, 80), 2.0), ((131, 3, 32), 5.0), ((1100, 40, 112), 1.0)] {
        let made = Made::new(7, shape, size);
        let want = made.attend(Isa::Avx2, true, 1);
        for isa in Isa::all() {
            assert!(made.attend(isa, true, 3) == want, "{isa:?} {shape:?}");
        }
    }
}

#[test]
fn damage_stays_in_its_head() {
    for part in 0..3 {
        let mut made = Made::new(3, (70, 2, 16), 1.0);
        made.qkv[(66 * 3 + part) * 32 + 16 + 5] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY][part];
        for isa in Isa::all() {
            let got = made.attend(isa, part > 0, 2);
            for (i, got) in got.iter().enumerate() {
                // A query's is its own; a key's or value's is that of all rows.
                let damaged = i % 32 >= 16 && (part > 0 || i / 32 == 66);
                assert_eq!(got.is_nan(), damaged, "{isa:?} {part} {i}: {got}");
            }
        }
    }
}

#[test]
fn nothing_gives_nothing_and_large_values_stay_finite() {
    let none = Made::new(1, (0, 2, 16), 1.0);
    let large = Made::new(2, (90, 1, 32), 1e8);
    for isa in Isa::all() {
        assert!(none.attend(isa, true, 2).is_empty());
        assert!(large.attend(isa, false, 2).iter().all(|value| value.abs() <= 1.001e8));
    }
}

#[test]
#[should_panic(expected = "lengths do not fit")]
fn lengths_that_do_not_fit_are_refused() {
    let (qkv, mut out) = (vec![0.0; 95], vec![0.0; 32]);
    let attention = Attention { qkv: &qkv, heads: 2, width: 16, scale: 1.0, rotation: None, out: &mut out };
    attend(attention, &mut Scratch::default(), &Pool::new(1));
}
