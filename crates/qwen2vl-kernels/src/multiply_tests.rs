//! Products against those of plain numbers, and against themselves.

use half::f16;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::activations::{Form, Layout};
use crate::isa::Isa;
use crate::panel::{PanelRows, RowsOf};
use crate::{BLOCK, GROUP, Kind, Norm, Weights, avx2, avx512};

/// Weights at random.
struct Made {
    kind: Kind,
    shape: (usize, usize, usize),
    data: Vec<u8>,
    scales: Vec<u8>,
    points: Option<Vec<u8>>,
}

impl Made {
    fn new(
        rng: &mut ChaCha8Rng,
        kind: Kind,
        (n, k, group): (usize, usize, usize),
        with_points: bool,
    ) -> Self {
        let mut bytes = |n: usize| (0..n).map(|_| rng.random::<u8>()).collect::<Vec<u8>>();
        let groups = n * k / group;
        let data = bytes(kind.bytes(n * k));
        let points = with_points.then(|| bytes(kind.bytes(groups)));
        let scales = (0..groups)
            .flat_map(|_| f16::from_f32(rng.random_range(0.5..1.5) / 128.0).to_le_bytes())
            .collect();
        Self { kind, shape: (n, k, group), data, scales, points }
    }

    fn weights(&self) -> Weights<'_> {
        Weights::new(self.kind, self.shape, &self.data, &self.scales, self.points.as_deref())
            .expect("the shapes fit")
    }

    /// The weights as numbers.
    fn dense(&self) -> Vec<f64> {
        let (_, k, group) = self.shape;
        let w = self.weights();
        let value = |i: usize| match self.kind {
            Kind::U4 => f64::from(self.data[i / 2] >> (i % 2 * 4) & 15),
            Kind::U8 => f64::from(self.data[i]),
            Kind::I8 => f64::from(self.data[i].cast_signed()) + 128.0,
        };
        (0..self.shape.0 * k)
            .map(|i| {
                let (row, group) = (i / k, i % k / group);
                (value(i) - f64::from(w.zero_point(row, group))) * f64::from(w.scale(row, group))
            })
            .collect()
    }
}

fn activations(rng: &mut ChaCha8Rng, n: usize) -> Vec<f32> {
    // Values of very different sizes, as they are in a model.
    (0..n).map(|i| rng.random_range(-1.0..1.0f32) * if i % 97 == 0 { 30.0 } else { 1.0 }).collect()
}

fn plain(x: &[f32]) -> Rows<'_> {
    Rows { x, norm: None }
}

fn product(x: &[f32], weights: &Weights<'_>, out: &mut [f32], scratch: &mut Scratch, pool: &Pool) {
    multiply(plain(x), &mut [Product::new(weights, out)], scratch, pool);
}

const SHAPES: [(Kind, (usize, usize, usize), bool); 12] = [
    (Kind::U4, (48, 1536, 128), true),
    (Kind::U4, (37, 384, 128), true),
    (Kind::U4, (20, 128, 32), true),
    (Kind::U4, (33, 512, 64), true),
    (Kind::U4, (17, 512, 256), false),
    (Kind::U4, (5, 8960, 128), true),
    (Kind::U4, (40, 1152, 128), true),
    (Kind::U4, (31, 768, 768), true),
    (Kind::U8, (50, 1536, 1536), true),
    (Kind::U8, (19, 256, 128), true),
    (Kind::I8, (35, 1280, 1280), false),
    (Kind::I8, (16, 512, 128), true),
];

#[test]
fn products_are_as_good_as_8_bits_allow() {
    if !is_supported() {
        return;
    }
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let (pool, mut scratch) = (Pool::new(3), Scratch::default());
    for (kind, shape, with_points) in SHAPES {
        let made = Made::new(&mut rng, kind, shape, with_points);
        let (n, k, _) = shape;
        let dense = made.dense();
        for m in [1, 2, 3, 5, 17] {
            let x = activations(&mut rng, m * k);
            let mut out = vec![f32::NAN; m * n];
            product(&x, &made.weights(), &mut out, &mut scratch, &pool);
            let (mut error, mut size) = (0.0, 0.0);
            for (i, got) in out.iter().enumerate() {
                let (x, w) = (&x[i / n * k..][..k], &dense[i % n * k..][..k]);
                let want: f64 = x.iter().zip(w).map(|(x, w)| f64::from(*x) * w).sum();
                error += (f64::from(*got) - want).powi(2);
                size += x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>()
                    * w.iter().map(|w| w.powi(2)).sum::<f64>()
                    / k as f64;
            }
            let relative = (error / size).sqrt();
            // One value in 97 is thirty times as large as the others, and makes steps of an eighth for its group.
            assert!(relative < 0.03, "{kind:?} {shape:?}, {m} rows: {relative}");
        }
    }
}

/// What the kernels compute, written down: integers in each group, then single precision in the order of groups and of spans
/// that share a scale.
fn defined(x: &[f32], w: &Weights<'_>) -> Vec<f32> {
    let mut rows = Activations::default();
    rows.resize(1, Layout { k: w.k, form: Form::Bytes, abreast: 1 });
    crate::activations::quantize(
        Form::Bytes,
        x,
        &mut rows.abreast_mut().next().expect("there is a row").row(0),
    );
    let span = if w.group.is_multiple_of(BLOCK) { BLOCK } else { GROUP };
    let of_row = |row: usize| {
        (0..w.k / span).fold(0.0f32, |acc, at| {
            let groups = at * span / GROUP..(at + 1) * span / GROUP;
            let part = groups.clone().fold(0.0f32, |part, group| {
                let of = group * GROUP..(group + 1) * GROUP;
                let sum: i32 =
                    of.map(|i| i32::from(w.value(row, i)) * i32::from(rows.values[i].cast_signed())).sum();
                (sum as f32).mul_add(rows.scales[group], part)
            });
            let group = at * span / w.group;
            let (scale, zero) = (w.scale(row, group), f32::from(w.zero_point(row, group)));
            let sum = groups.fold(0.0, |sum, group| sum + rows.sums[group]);
            (-zero).mul_add(sum, part).mul_add(scale, acc)
        })
    };
    (0..w.n).map(of_row).collect()
}

#[test]
fn every_instruction_set_gives_what_is_defined_to_the_bit() {
    let mut rng = ChaCha8Rng::seed_from_u64(9);
    let (pool, mut scratch) = (Pool::new(2), Scratch::default());
    for (kind, shape, with_points) in SHAPES {
        let mut made = Made::new(&mut rng, kind, shape, with_points);
        let (n, k, _) = shape;
        let mut x = activations(&mut rng, 21 * k);
        // The largest sums there can be.
        made.data[..kind.bytes(k)].fill(if kind == Kind::I8 { 127 } else { 255 });
        x[..k].fill(1.0);
        x[k..2 * k].fill(-1.0);
        let want: Vec<f32> = x.chunks_exact(k).flat_map(|x| defined(x, &made.weights())).collect();
        for isa in Isa::all() {
            for m in [1, 2, 3, 4, 8, 9, 21] {
                let mut out = vec![f32::NAN; m * n];
                let weights = made.weights();
                let mut products = [Product::new(&weights, &mut out)];
                crate::job::multiply(
                    isa,
                    plain(&x[..m * k]),
                    &mut products,
                    m,
                    &mut scratch.activations,
                    &pool,
                );
                assert!(out == want[..m * n], "{isa:?} {kind:?} {shape:?}, {m} rows");
            }
        }
    }
}

#[test]
fn unpacked_weights_lie_as_activations_do_in_every_form() {
    #[repr(align(64))]
    struct Room([u8; 2 * 16 * 256]);
    const U4: u8 = Kind::U4 as u8;
    const U8: u8 = Kind::U8 as u8;
    const I8: u8 = Kind::I8 as u8;
    let mut rng = ChaCha8Rng::seed_from_u64(10);
    let k = 256;
    for (isa, kind) in
        Isa::all().into_iter().flat_map(|isa| [Kind::U4, Kind::U8, Kind::I8].map(|kind| (isa, kind)))
    {
        let made = Made::new(&mut rng, kind, (16, k, 128), true);
        let (weights, x) = (made.weights(), activations(&mut rng, k));
        let form = isa.layout(&weights, 1).form;
        let quantized = |form| {
            let mut rows = Activations::default();
            rows.resize(1, Layout { k, form, abreast: 1 });
            crate::activations::quantize(form, &x, &mut rows.abreast_mut().next().unwrap().row(0));
            rows.values
        };
        let mut room = Room([0; _]);
        let rows = RowsOf::new(&weights, PanelRows { first: 0, step: 1, n: 16 }, 0);
        // SAFETY: the rows have two blocks, and there is room for them.
        unsafe {
            let out = room.0.as_mut_ptr();
            match (isa, kind) {
                (Isa::Avx2, Kind::U4) => avx2::unpack::<U4>(&rows, 2, out),
                (Isa::Avx2, Kind::U8) => avx2::unpack::<U8>(&rows, 2, out),
                (Isa::Avx2, Kind::I8) => avx2::unpack::<I8>(&rows, 2, out),
                (Isa::Avx512, Kind::U4) => avx512::unpack::<U4>(&rows, 2, out),
                (Isa::Avx512, Kind::U8) => avx512::unpack::<U8>(&rows, 2, out),
                (Isa::Avx512, Kind::I8) => avx512::unpack::<I8>(&rows, 2, out),
            }
        }
        let (plain, values, bytes) = (quantized(Form::Bytes), quantized(form), form.bytes());
        // The upper byte of a word of weights is zero, that of one of activations its sign.
        let at = |values: &[u8], i: usize| values[i * bytes];
        for output in 0..16 {
            let in_a_lane = 4 / bytes;
            let place = |i: usize| (i / in_a_lane * 16 + output) * in_a_lane + i % in_a_lane;
            let got: i32 = (0..k)
                .map(|i| i32::from(at(&room.0, place(i))) * i32::from(at(&values, i).cast_signed()))
                .sum();
            let want: i32 =
                (0..k).map(|i| i32::from(weights.value(output, i)) * i32::from(plain[i].cast_signed())).sum();
            assert_eq!(got, want, "{isa:?} {kind:?} {form:?}, output {output}");
        }
    }
}

#[test]
fn rows_are_written_as_numbers() {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    for (kind, shape, with_points) in SHAPES {
        let made = Made::new(&mut rng, kind, shape, with_points);
        let (dense, mut row) = (made.dense(), vec![0.0; shape.1]);
        for n in 0..shape.0 {
            made.weights().dequantize(n, &mut row);
            let want = &dense[n * shape.1..][..shape.1];
            assert!(
                row.iter().zip(want).all(|(a, b)| (f64::from(*a) - b).abs() < 1e-5),
                "{kind:?} {shape:?}"
            );
        }
    }
}

#[test]
fn a_row_is_the_same_alone_on_any_number_of_threads() {
    if !is_supported() {
        return;
    }
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let pools = [Pool::new(1), Pool::new(2), Pool::new(5)];
    let mut scratch = Scratch::default();
    for (kind, shape, with_points) in SHAPES {
        let made = Made::new(&mut rng, kind, shape, with_points);
        let (n, k, _) = shape;
        let x = activations(&mut rng, 70 * k);
        let mut all = vec![0.0; 70 * n];
        product(&x, &made.weights(), &mut all, &mut scratch, &pools[1]);
        for (m, pool) in [(1, 0), (2, 1), (3, 2), (7, 0), (70, 2)].map(|(m, pool)| (m, &pools[pool])) {
            let first = 70 - m;
            let mut out = vec![0.0; m * n];
            product(&x[first * k..], &made.weights(), &mut out, &mut scratch, pool);
            assert!(out == all[first * n..], "{kind:?} {shape:?}, {m} rows");
        }
    }
}

#[test]
fn fast_quantization_is_the_plain_one_to_the_bit() {
    if !is_supported() {
        return;
    }
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    for form in [Form::Halves, Form::Bytes, Form::Words] {
        for k in [128, 1536] {
            let mut x = activations(&mut rng, k);
            x[5] = 0.0;
            x[64..96].fill(0.0);
            let mut plain = Activations::default();
            plain.resize(1, Layout { k, form, abreast: 1 });
            crate::activations::quantize(form, &x, &mut plain.abreast_mut().next().unwrap().row(0));
            for isa in Isa::all() {
                let mut fast = Activations::default();
                fast.resize(1, Layout { k, form, abreast: 1 });
                let mut rows = fast.abreast_mut().next().unwrap();
                // SAFETY: the processor is supported.
                unsafe {
                    match isa {
                        Isa::Avx2 => avx2::quantize(form, &x, &mut rows.row(0)),
                        Isa::Avx512 if form == Form::Words => continue,
                        Isa::Avx512 => avx512::quantize(form, &x, &mut rows.row(0)),
                    }
                }
                assert_eq!(plain.values, fast.values);
                assert_eq!(plain.scales, fast.scales);
                assert_eq!(plain.sums, fast.sums);
                assert_eq!(plain.block_sums, fast.block_sums);
            }
        }
    }
}

#[test]
fn what_is_done_around_products_does_not_depend_on_the_instruction_set() {
    if !is_supported() {
        return;
    }
    let mut rng = ChaCha8Rng::seed_from_u64(12);
    // Whole panels and one that is not.
    for (n, m) in [(64, 40), (37, 40), (64, 3), (37, 1)] {
        let k = 256;
        let made = [(); 2].map(|()| Made::new(&mut rng, Kind::U4, (n, k, 128), true));
        let [of, times] = made.each_ref().map(Made::weights);
        // Some so large that the activation ends at its bounds.
        let x: Vec<f32> = activations(&mut rng, m * k).iter().map(|x| x * 30.0).collect();
        let (bias, plus) = (activations(&mut rng, n), activations(&mut rng, m * n));
        let norm = Norm { centered: true, epsilon: 1e-6, weight: None, bias: None };
        for (beta, norm) in [(None, None), (Some(1.0), None), (Some(1.702), Some(norm))] {
            let all = Isa::all().into_iter().map(|isa| {
                let mut out = vec![f32::NAN; m * n];
                let (bias, plus, times) = (Some(&bias[..]), Some(&plus[..]), beta.map(|_| &times));
                let mut products = [Product { bias, beta, times, plus, ..Product::new(&of, &mut out) }];
                let (mut activations, pool) = (Activations::default(), Pool::new(2));
                crate::job::multiply(isa, Rows { x: &x, norm }, &mut products, m, &mut activations, &pool);
                out
            });
            let all: Vec<_> = all.collect();
            assert!(all.iter().all(|out| *out == all[0]), "{m} rows, {n} columns, {beta:?}");
            assert!(all[0].iter().all(|value| value.is_finite()));
        }
    }
}

#[test]
fn what_is_not_finite_shows_in_its_row_alone() {
    if !is_supported() {
        return;
    }
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    let made = Made::new(&mut rng, Kind::U4, (32, 256, 128), true);
    let mut x = activations(&mut rng, 3 * 256);
    x[256 + 200] = f32::INFINITY;
    let mut out = vec![0.0; 96];
    product(&x, &made.weights(), &mut out, &mut Scratch::default(), &Pool::new(2));
    assert!(out[32..64].iter().all(|v| v.is_nan()));
    assert!(out[..32].iter().chain(&out[64..]).all(|v| v.is_finite()));
    product(&[], &made.weights(), &mut [], &mut Scratch::default(), &Pool::new(1));
}

#[test]
fn products_of_the_same_rows_are_those_of_each_and_what_comes_behind_is_done() {
    if !is_supported() {
        return;
    }
    let mut rng = ChaCha8Rng::seed_from_u64(6);
    let mut scratch = Scratch::default();
    for (kind, k, group) in
        [(Kind::U4, 1536, 128), (Kind::U4, 128, 32), (Kind::U8, 256, 256), (Kind::I8, 1280, 1280)]
    {
        let made = [40, 23, 200, 200].map(|n| Made::new(&mut rng, kind, (n, k, group), true));
        let bias: Vec<f32> = (0..23).map(|_| rng.random_range(-2.0..2.0)).collect();
        for (m, threads) in [(1, 1), (1, 3), (2, 2), (5, 2), (33, 3), (400, 2)] {
            let pool = Pool::new(threads);
            let x = activations(&mut rng, m * k);
            let alone = [0, 1, 2, 3].map(|i: usize| {
                let mut out = vec![f32::NAN; m * made[i].shape.0];
                product(&x, &made[i].weights(), &mut out, &mut scratch, &pool);
                out
            });
            let mut outs = [0, 1, 2].map(|i: usize| vec![f32::NAN; m * made[i].shape.0]);
            let weights = made.each_ref().map(Made::weights);
            let [a, b, c] = outs.each_mut();
            let mut products = [
                Product::new(&weights[0], a),
                Product { bias: Some(&bias), beta: Some(1.702), ..Product::new(&weights[1], b) },
                Product { beta: Some(1.0), times: Some(&weights[3]), ..Product::new(&weights[2], c) },
            ];
            multiply(plain(&x), &mut products, &mut scratch, &pool);
            assert!(outs[0] == alone[0], "{kind:?}, {m} rows");
            let silu = |y: f32, beta: f64| {
                let y = f64::from(y);
                y / (1.0 + (-beta * y).exp())
            };
            // The exponent is rounded to single precision as well.
            let near = |got: f32, want: f64| (f64::from(got) - want).abs() <= 1e-5 * want.abs() + 1e-30;
            for (i, got) in outs[1].iter().enumerate() {
                let want = silu(alone[1][i] + bias[i % 23], 1.702);
                assert!(near(*got, want), "{kind:?}, {m} rows, {i}: {got} for {want}");
            }
            for (i, got) in outs[2].iter().enumerate() {
                let want = silu(alone[2][i], 1.0) * f64::from(alone[3][i]);
                assert!(near(*got, want), "{kind:?}, {m} rows, {i}: {got} for {want}");
            }
        }
    }
}

#[test]
fn rows_are_normalized_before_and_added_to_behind() {
    if !is_supported() {
        return;
    }
    let mut rng = ChaCha8Rng::seed_from_u64(8);
    let mut scratch = Scratch::default();
    for (k, weighted, centered) in
        [(1536, true, false), (128, false, false), (8960, true, true), (1280, false, true)]
    {
        let made = Made::new(&mut rng, Kind::U4, (37, k, 128), true);
        let weight: Vec<f32> = (0..k).map(|_| rng.random_range(0.1..2.0)).collect();
        let bias: Vec<f32> = (0..k).map(|_| rng.random_range(-1.0..1.0)).collect();
        let of = |values| weighted.then_some(values);
        let norm = Norm {
            centered,
            epsilon: 1e-6,
            weight: of(&weight[..]),
            bias: of(&bias[..]).filter(|_| centered),
        };
        for (m, threads) in [(1, 2), (3, 1), (700, 2)] {
            let pool = Pool::new(threads);
            let x = activations(&mut rng, m * k);
            let mut normalized = vec![0.0; m * k];
            for (x, out) in x.chunks_exact(k).zip(normalized.chunks_exact_mut(k)) {
                // SAFETY: the processor is supported.
                unsafe { avx2::normalize(x, norm, out) };
                let mean = |of: &mut dyn Iterator<Item = f64>| of.sum::<f64>() / k as f64;
                let middle = if centered { mean(&mut x.iter().map(|x| f64::from(*x))) } else { 0.0 };
                let square = mean(&mut x.iter().map(|x| (f64::from(*x) - middle).powi(2)));
                for (i, got) in out.iter().enumerate() {
                    let weight = norm.weight.map_or(1.0, |weight| f64::from(weight[i]));
                    let bias = norm.bias.map_or(0.0, |bias| f64::from(bias[i]));
                    let want = (f64::from(x[i]) - middle) / (square + 1e-6).sqrt() * weight + bias;
                    assert!(
                        (f64::from(*got) - want).abs()
                            <= 1e-6 * want.abs() + if centered { 1e-6 } else { 0.0 },
                        "{k}, {i}: {got} for {want}"
                    );
                }
            }
            let plus = activations(&mut rng, m * 37);
            let (mut want, mut got) = (vec![0.0; m * 37], vec![0.0; m * 37]);
            product(&normalized, &made.weights(), &mut want, &mut scratch, &pool);
            want.iter_mut().zip(&plus).for_each(|(want, plus)| *want += plus);
            let weights = made.weights();
            let mut products = [Product { plus: Some(&plus), ..Product::new(&weights, &mut got) }];
            multiply(Rows { x: &x, norm: Some(norm) }, &mut products, &mut scratch, &pool);
            assert!(got == want, "{m} rows of {k}");
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    if !is_supported() {
        return;
    }
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let made = [(Kind::U4, 32), (Kind::U8, 32), (Kind::U4, 48)]
        .map(|(kind, n)| Made::new(&mut rng, kind, (n, 256, 128), true));
    let [four, eight, more] = made.each_ref().map(Made::weights);
    let refused = |mut products: Vec<Product<'_>>| {
        let run = std::panic::AssertUnwindSafe(|| {
            multiply(plain(&[0.0; 512]), &mut products, &mut Scratch::default(), &Pool::new(1));
        });
        std::panic::catch_unwind(run).is_err()
    };
    let (mut a, mut b, mut c) = ([0.0; 64], [0.0; 64], [0.0; 63]);
    assert!(!refused(vec![Product::new(&four, &mut a)]));
    assert!(refused(vec![Product::new(&four, &mut c)]));
    assert!(refused(vec![Product::new(&four, &mut a), Product::new(&eight, &mut b)]));
    assert!(refused(vec![Product { times: Some(&more), ..Product::new(&four, &mut a) }]));
    assert!(refused(vec![Product { times: Some(&eight), ..Product::new(&four, &mut a) }]));
    assert!(refused(vec![Product { plus: Some(&[0.0; 63]), ..Product::new(&four, &mut a) }]));
    assert!(refused(vec![Product { bias: Some(&[0.0; 31]), ..Product::new(&four, &mut a) }]));
}
