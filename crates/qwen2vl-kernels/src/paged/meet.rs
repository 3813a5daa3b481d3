//! How queries meet a span of tokens: the same for each instruction set, on its vectors.

/// Defines `meet` where `Floats` and what is done with them are those of an instruction set.
macro_rules! define_paged_meet {
    ($features:literal) => {
        use $crate::GROUP;
        use $crate::paged::{BLOCK_TOKENS, Element, Met, Numbers, Part, SPAN, Scores, Tile};

        /// Vectors of tokens that meet queries together, and of values.
        const VECTORS: usize = 2;

        /// Lanes of them.
        const ALL: usize = VECTORS * LANES;

        /// Tokens whose weights are added up in the same order whatever the length of vectors.
        const IN_ORDER: usize = 16;

        /// Lets the queries of a tile meet a span of tokens from the sequence's token `first` on, which blocks hold: heads that
        /// begin there.
        ///
        /// # Safety
        ///
        /// The processor is supported; blocks have the parts, of heads of this width, and hold all tokens that queries see,
        /// up to a span's.
        #[target_feature(enable = $features)]
        pub(crate) unsafe fn meet(
            (keys, values): (Part, Part),
            width: usize,
            blocks: &[*mut u8],
            first: usize,
            tile: &Tile,
            scores: &mut Scores,
            to: &mut Met,
        ) {
            const I8: u8 = Element::I8 as u8;
            const U4: u8 = Element::U4 as u8;
            const F16: u8 = Element::F16 as u8;
            const F32: u8 = Element::F32 as u8;
            let span = Span { keys, values, width, blocks, first };
            macro_rules! of {
                ($n:literal) => {
                    match (keys.element, values.element) {
                        (_, Element::I8) => span.meet::<$n, I8, I8>(tile, scores, to),
                        (_, Element::U4) => span.meet::<$n, I8, U4>(tile, scores, to),
                        (_, Element::F16) => span.meet::<$n, F16, F16>(tile, scores, to),
                        (_, Element::F32) => span.meet::<$n, F32, F32>(tile, scores, to),
                    }
                };
            }
            // SAFETY: the caller vouches for it.
            unsafe {
                match tile.n {
                    0 => {}
                    1 => of!(1),
                    2 => of!(2),
                    3 => of!(3),
                    4 => of!(4),
                    5 => of!(5),
                    _ => of!(6),
                }
            }
        }

        /// Tokens that are met.
        struct Span<'a> {
            keys: Part,
            values: Part,
            width: usize,
            blocks: &'a [*mut u8],
            first: usize,
        }

        impl Span<'_> {
            /// By `Q` queries.
            ///
            /// # Safety
            ///
            /// As above.
            #[target_feature(enable = $features)]
            unsafe fn meet<const Q: usize, const KEYS: u8, const VALUES: u8>(
                &self,
                tile: &Tile,
                scores: &mut Scores,
                to: &mut Met,
            ) {
                let n = tile.most_seen().saturating_sub(self.first).min(SPAN);
                let blocks = &self.blocks[..n.div_ceil(BLOCK_TOKENS)];
                // SAFETY: the caller vouches for it.
                unsafe {
                    for (i, block) in blocks.iter().enumerate() {
                        let keys = self.keys.numbers(*block);
                        score::<Q, KEYS>(keys, self.width, i * BLOCK_TOKENS, tile, scores);
                    }
                    for query in 0..Q {
                        let seen = tile.seen[query].saturating_sub(self.first).min(n);
                        (to.largest[query], to.totals[query]) = weigh(seen, n, &mut scores.0[query]);
                    }
                    for lane in (0..self.width).step_by(ALL) {
                        add_values::<Q, VALUES>(self, blocks, n, lane, scores, to);
                    }
                }
            }
        }

        /// Scores of a block's tokens, the span's from `at` on.
        ///
        /// # Safety
        ///
        /// As above.
        #[inline]
        #[target_feature(enable = $features)]
        unsafe fn score<const Q: usize, const E: u8>(
            keys: Numbers,
            width: usize,
            at: usize,
            tile: &Tile,
            scores: &mut Scores,
        ) {
            let quantized = E == Element::I8 as u8;
            let lanes: [usize; VECTORS] = std::array::from_fn(|v| v * LANES);
            for first in (0..BLOCK_TOKENS).step_by(ALL) {
                let mut all = [[zeros(); VECTORS]; Q];
                for group in 0..width / GROUP {
                    let mut dots = if quantized { [[zeros(); VECTORS]; Q] } else { all };
                    for i in group * GROUP..(group + 1) * GROUP {
                        let number = |lane| {
                            // SAFETY: the caller vouches for it.
                            unsafe { number::<E>(keys.data, i * BLOCK_TOKENS + first + lane) }
                        };
                        let keys = lanes.map(number);
                        for (dots, query) in dots.iter_mut().zip(&tile.queries) {
                            let query = splat(query[i]);
                            for (dot, key) in dots.iter_mut().zip(keys) {
                                *dot = fmadd(query, key, *dot);
                                keep(dot);
                            }
                        }
                    }
                    if !quantized {
                        all = dots;
                        continue;
                    }
                    let of = |numbers: *mut f32| {
                        let at = numbers.wrapping_add(group * BLOCK_TOKENS + first);
                        // SAFETY: as above.
                        lanes.map(|lane| unsafe { load(at.add(lane)) })
                    };
                    let (scales, offsets) = (of(keys.scales), of(keys.offsets));
                    for ((all, dots), sums) in all.iter_mut().zip(dots).zip(&tile.sums) {
                        let sum = splat(sums[group]);
                        for v in 0..VECTORS {
                            all[v] = fmadd(dots[v], scales[v], fmadd(offsets[v], sum, all[v]));
                        }
                    }
                }
                for (all, scores) in all.into_iter().zip(&mut scores.0) {
                    let to = scores[at + first..at + first + ALL].as_mut_ptr();
                    for (v, all) in all.into_iter().enumerate() {
                        // SAFETY: as above.
                        unsafe { store(to.add(v * LANES), all) };
                    }
                }
            }
        }

        /// Turns a query's scores of the tokens that it sees into weights, those of the others up to `n` into zeros; gives the largest
        /// score and the sum of weights.
        ///
        /// # Safety
        ///
        /// As above.
        #[inline]
        #[target_feature(enable = $features)]
        unsafe fn weigh(seen: usize, n: usize, scores: &mut [f32; SPAN]) -> (f32, f32) {
            let end = seen.next_multiple_of(IN_ORDER);
            // Too small to count.
            scores[seen..end].fill(Met::LEAST);
            // SAFETY: there are as many.
            let at = |i: usize| unsafe { load(scores.as_ptr().add(i)) };
            let (mut largest, mut damage) = (splat(Met::LEAST), zeros());
            for i in (0..end).step_by(LANES) {
                largest = max(at(i), largest);
                damage = fmadd(at(i), zeros(), damage);
            }
            let (largest, damage) = (largest_lane(largest), sum_of_eights(add_eights(no_sums(), damage)));
            let mut total = no_sums();
            for i in (0..end).step_by(LANES) {
                // SAFETY: as above.
                unsafe {
                    let weight = power_of_two(sub(load(scores.as_ptr().add(i)), splat(largest)));
                    total = add_eights(total, weight);
                    store(scores.as_mut_ptr().add(i), weight);
                }
            }
            scores[seen..n.max(seen)].fill(0.0);
            (largest, sum_of_eights(total) + damage)
        }

        /// Puts what queries have met in a span to what they have met before.
        ///
        /// # Safety
        ///
        /// The processor is supported; heads are so wide.
        #[target_feature(enable = $features)]
        pub(crate) unsafe fn put_together(all: &mut Met, span: &Met, n: usize, width: usize) {
            for query in 0..n {
                let largest = all.largest[query].max(span.largest[query]);
                let factor = |of: &Met| power_of_two(splat(of.largest[query] - largest));
                let (before, new) = (factor(all), factor(span));
                let total = span.totals[query] * first_lane(new);
                all.totals[query] = all.totals[query] * first_lane(before) + total;
                all.largest[query] = largest;
                let (out, more) = (all.out[query].as_mut_ptr(), span.out[query].as_ptr());
                for i in (0..width).step_by(LANES) {
                    // SAFETY: the caller vouches for it.
                    unsafe {
                        let more = mul(load(more.add(i)), new);
                        store(out.add(i), fmadd(load(out.add(i)), before, more));
                    }
                }
            }
        }

        /// Adds up weighted values of a span's tokens, those of some lanes.
        ///
        /// # Safety
        ///
        /// As above.
        #[inline]
        #[target_feature(enable = $features)]
        unsafe fn add_values<const Q: usize, const E: u8>(
            span: &Span<'_>,
            blocks: &[*mut u8],
            n: usize,
            first: usize,
            scores: &Scores,
            to: &mut Met,
        ) {
            let quantized = E == Element::I8 as u8 || E == Element::U4 as u8;
            let lanes: [usize; VECTORS] = std::array::from_fn(|v| first + v * LANES);
            let (width, groups) = (span.width, span.width / GROUP);
            let mut sums = [[zeros(); VECTORS]; Q];
            for (i, block) in blocks.iter().enumerate() {
                let values = span.values.numbers(*block);
                for token in 0..BLOCK_TOKENS.min(n - i * BLOCK_TOKENS) {
                    // SAFETY: as above.
                    let mut of = lanes.map(|lane| unsafe { number::<E>(values.data, token * width + lane) });
                    if quantized {
                        let group = token * groups + first / GROUP;
                        let at = |numbers: *mut f32| {
                            // SAFETY: as above.
                            splat(unsafe { *numbers.add(group) })
                        };
                        let (scale, offset) = (at(values.scales), at(values.offsets));
                        of = of.map(|value| fmadd(value, scale, offset));
                    }
                    for (sums, weights) in sums.iter_mut().zip(&scores.0) {
                        // SAFETY: a span has as many tokens.
                        let weight = splat(unsafe { *weights.get_unchecked(i * BLOCK_TOKENS + token) });
                        for (sum, value) in sums.iter_mut().zip(of) {
                            *sum = fmadd(weight, value, *sum);
                            keep(sum);
                        }
                    }
                }
            }
            for (sums, out) in sums.into_iter().zip(&mut to.out) {
                for (sum, lane) in sums.into_iter().zip(lanes) {
                    // SAFETY: as above.
                    unsafe { store(out.as_mut_ptr().add(lane), sum) };
                }
            }
        }

        /// A vector of numbers as they are kept, from number `i` on.
        ///
        /// # Safety
        ///
        /// There are as many.
        #[inline]
        #[target_feature(enable = $features)]
        unsafe fn number<const E: u8>(data: *const u8, i: usize) -> Floats {
            // SAFETY: the caller vouches for it.
            unsafe {
                if E == Element::I8 as u8 {
                    from_signed_bytes(data.add(i))
                } else if E == Element::U4 as u8 {
                    from_nibbles(data, i)
                } else if E == Element::F16 as u8 {
                    from_halves(data.cast::<u16>().add(i))
                } else {
                    load(data.cast::<f32>().add(i))
                }
            }
        }
    };
}

pub(crate) use define_paged_meet;
