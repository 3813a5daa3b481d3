//! How queries meet a block of keys: the same for each instruction set, on its vectors.

/// Defines `meet` where `Floats`, `Integers` and what is done with them are those of an instruction set, `TILE` the keys or
/// columns of values that meet all vectors together, and `keep` keeps a sum in its register.
macro_rules! define_meet {
    ($features:literal) => {
        use $crate::attention::{Block, Queries, VECTORS, WEIGHT, powers};

        /// Lanes of all vectors.
        const ALL: usize = VECTORS * LANES;

        /// Lets queries meet a block of keys.
        ///
        /// # Safety
        ///
        /// The processor is supported; queries and block have all that they say.
        #[target_feature(enable = $features)]
        pub(crate) unsafe fn meet(block: &Block<'_>, queries: &mut Queries) {
            // SAFETY: the caller vouches for it.
            unsafe {
                for first in (0..block.n).step_by(TILE) {
                    score(block, first, queries);
                }
                let factors = weigh(block.n, queries);
                for first in (0..block.width).step_by(TILE) {
                    add_values(block, first, queries, factors);
                }
            }
        }

        /// Scores of some keys.
        ///
        /// # Safety
        ///
        /// As above.
        #[inline]
        #[target_feature(enable = $features)]
        unsafe fn score(block: &Block<'_>, first: usize, queries: &mut Queries) {
            let (pairs, scores) = (queries.pairs.as_mut_ptr::<i32>(), queries.scores.as_mut_ptr::<f32>());
            let keys = block.keys[first * block.width..].as_ptr();
            let mut dots = [[zero_integers(); VECTORS]; TILE];
            // SAFETY: a block has room for whole tiles; the caller vouches for the rest.
            unsafe {
                for i in 0..block.width / 2 {
                    let q = [0, LANES].map(|lane| load_integers(pairs.add(i * ALL + lane).cast()));
                    for (t, dots) in dots.iter_mut().enumerate() {
                        let key = keys.add(t * block.width + i * 2).cast::<i32>().read_unaligned();
                        for (dot, q) in dots.iter_mut().zip(q) {
                            *dot = add_dots(*dot, q, splat_integer(key));
                            keep(dot);
                        }
                    }
                }
                for (t, dots) in dots.into_iter().enumerate() {
                    let scale = splat(block.key_scales[first + t]);
                    for (v, dot) in dots.into_iter().enumerate() {
                        let score = mul(to_floats(dot), scale);
                        store(scores.add((first + t) * ALL + v * LANES), score);
                    }
                }
            }
        }

        /// Turns scores of `n` keys into weights; gives what sums so far are multiplied with, and what those of the block are.
        ///
        /// # Safety
        ///
        /// As above.
        #[inline]
        #[target_feature(enable = $features)]
        unsafe fn weigh(n: usize, queries: &mut Queries) -> [[Floats; 2]; VECTORS] {
            let (scores, weights) = (queries.scores.as_mut_ptr::<f32>(), queries.weights.as_mut_ptr::<i32>());
            let mut factors = [[zeros(); 2]; VECTORS];
            for (v, factors) in factors.iter_mut().enumerate() {
                // SAFETY: the caller vouches for it.
                unsafe {
                    let at = |key: usize| load(scores.add(key * ALL + v * LANES));
                    let each = |values: *const f32| load(values.add(v * LANES));
                    let largest = (1..n).fold(at(0), |largest, key| max(at(key), largest));
                    let unit = each(queries.units.0.as_ptr());
                    let weight = |key: usize| {
                        let power = power_of_two(mul(sub(at(key), largest), unit));
                        to_integers(mul(power, splat(WEIGHT)))
                    };
                    let mut total = zero_integers();
                    for key in (0..n).step_by(2) {
                        let first = weight(key);
                        let second = if key + 1 < n { weight(key + 1) } else { zero_integers() };
                        total = add_integers(total, add_integers(first, second));
                        let pair = or(first, shift_left::<16>(second));
                        store_integers(weights.add(key / 2 * ALL + v * LANES).cast(), pair);
                    }
                    let before = each(queries.largest.0.as_ptr());
                    let all = max(largest, before);
                    *factors = [before, largest].map(|of| power_of_two(mul(sub(of, all), unit)));
                    let totals = queries.totals.0.as_mut_ptr().add(v * LANES);
                    let total = mul(to_floats(total), factors[1]);
                    store(totals, fmadd(load(totals), factors[0], total));
                    store(queries.largest.0.as_mut_ptr().add(v * LANES), all);
                }
            }
            factors
        }

        /// Adds weighted values of some columns.
        ///
        /// # Safety
        ///
        /// As above.
        #[inline]
        #[target_feature(enable = $features)]
        unsafe fn add_values(
            block: &Block<'_>,
            first: usize,
            queries: &mut Queries,
            factors: [[Floats; 2]; VECTORS],
        ) {
            let (weights, sums) = (queries.weights.as_mut_ptr::<i32>(), queries.sums.as_mut_ptr::<f32>());
            let values = block.values[first..].as_ptr().cast::<i32>();
            let mut dots = [[zero_integers(); VECTORS]; TILE];
            // SAFETY: the caller vouches for it; widths are whole tiles.
            unsafe {
                for i in 0..block.n.div_ceil(2) {
                    let w = [0, LANES].map(|lane| load_integers(weights.add(i * ALL + lane).cast()));
                    for (t, dots) in dots.iter_mut().enumerate() {
                        let value = values.add(i * block.width + t).read_unaligned();
                        for (dot, w) in dots.iter_mut().zip(w) {
                            *dot = add_dots(*dot, w, splat_integer(value));
                            keep(dot);
                        }
                    }
                }
                for (t, dots) in dots.into_iter().enumerate() {
                    let scale = splat(block.value_scales[first + t]);
                    for (v, (dot, [before, of_block])) in dots.into_iter().zip(factors).enumerate() {
                        let to = sums.add((first + t) * ALL + v * LANES);
                        let more = mul(to_floats(dot), mul(scale, of_block));
                        store(to, fmadd(load(to), before, more));
                    }
                }
            }
        }

        /// Two to the power of each, at most 0.
        #[inline]
        #[target_feature(enable = $features)]
        pub(crate) fn power_of_two(x: Floats) -> Floats {
            let x = max(x, splat(powers::LEAST));
            let n = rounded(x);
            let rest = sub(x, n);
            let [p, others @ ..] = powers::POLYNOMIAL;
            let mut p = splat(p);
            for c in others {
                p = fmadd(p, rest, splat(c));
            }
            scaled(p, n)
        }
    };
}

pub(crate) use define_meet;
