//! The product: activations quantized once, rows of weights shared out among threads.

use crate::activations::Activations;
use crate::pool::Pool;
use crate::product::{Product, Rows};

/// Memory that calls use one after the other.
#[derive(Debug, Default)]
pub struct Scratch {
    activations: Activations,
}

/// Whether [`multiply`] can be used on this processor.
pub fn is_supported() -> bool {
    #[cfg(target_arch = "x86_64")]
    return crate::avx512::is_supported();
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Computes products of the same rows, which are quantized once for all of them.
///
/// # Panics
///
/// If the lengths do not fit the weights, weights of 4 bits and of 8 are mixed, or the processor is not supported.
pub fn multiply(rows: Rows<'_>, products: &mut [Product<'_>], scratch: &mut Scratch, pool: &Pool) {
    let Some(first) = products.first().map(|p| p.weights) else { return };
    let m = rows.x.len() / first.k;
    let weight = rows.norm.and_then(|norm| norm.weight).is_none_or(|weight| weight.len() == first.k);
    let fits = rows.x.len() == m * first.k && weight && products.iter().all(|p| p.fits(m, first));
    assert!(fits, "lengths do not fit the weights");
    assert!(is_supported(), "this processor has no AVX-512 VNNI");
    if m == 0 {
        return;
    }
    #[cfg(target_arch = "x86_64")]
    x86::multiply(rows, products, m, &mut scratch.activations, pool);
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::ptr;
    use std::sync::Mutex;

    use super::{Activations, Pool, Product, Rows};
    use crate::BLOCK;
    use crate::activations::{LANES, RowMut, padded};
    use crate::avx512::{self, PER_BLOCK, PER_ROW, Panel, Row, WITHIN_BLOCK};
    use crate::panel::{PANEL, PER_STREAM, PanelRows, STREAMS, Scales};
    use crate::weights::{Kind, Weights};

    /// Bytes of quantized activations that stay in a core's second-level cache while weights pass by.
    const TOKEN_BYTES: usize = 256 << 10;

    /// Bytes between what is computed of a row and what is fetched meanwhile; where rows that follow each other are read
    /// together, it is as many rows.
    const AHEAD: usize = 2048;

    /// Bytes of a page of memory, within which the processor fetches ahead by itself.
    const PAGE: usize = 4096;

    /// Bytes of weights of a share of the work: less is not worth waking another thread.
    const SHARE_BYTES: usize = 48 << 10;

    /// Rows of weights of a gated product whose two factors are computed one after the other, in prompts: what they give
    /// stays in the second-level cache.
    const GATED_ROWS: usize = 4 * PANEL;

    /// Rows of activations of a step: weights are read once, in long runs.
    const STEP_ROWS: usize = 32;

    /// Results of some columns.
    #[derive(Clone, Copy)]
    struct Out {
        /// The first column of the first row.
        data: *mut f32,
        /// Columns from one row to the next.
        stride: usize,
    }

    /// A panel of the rows from `first` on, for some rows of activations.
    struct Part<'a> {
        first: usize,
        panel: PanelRows,
        tokens: std::ops::Range<usize>,
        out: Out,
        scales: &'a Scales,
    }

    /// One of the products, shared by the threads.
    struct Job<'a> {
        weights: &'a Weights<'a>,
        times: Option<&'a Weights<'a>>,
        bias: Option<&'a [f32]>,
        beta: Option<f32>,
        plus: Option<&'a [f32]>,
        activations: &'a Activations,
        m: usize,
        out: Out,
        /// Panels of a share, and shares.
        share: usize,
        shares: usize,
    }

    // SAFETY: no two threads write the same element.
    unsafe impl Sync for Job<'_> {}

    pub fn multiply(
        rows: Rows<'_>,
        products: &mut [Product<'_>],
        m: usize,
        activations: &mut Activations,
        pool: &Pool,
    ) {
        let weights = products[0].weights;
        activations.resize(m, weights.k);
        quantize(rows, weights, activations, pool);
        let factors = |p: &Product<'_>| 1 + usize::from(p.times.is_some());
        let panels: usize = products.iter().map(|p| p.weights.n.div_ceil(PANEL) * factors(p)).sum();
        let jobs: Vec<Job<'_>> = products
            .iter_mut()
            .map(|product| {
                let factors = factors(product);
                let Product { weights, bias, beta, times, plus, ref mut out } = *product;
                // Enough shares that a slow core does not keep the others waiting, none too small.
                let row_bytes = weights.kind.bytes(weights.k);
                let least = SHARE_BYTES.div_ceil(row_bytes * PANEL * m.min(8));
                let share = (panels / (pool.threads() * 8)).max(least).div_ceil(factors).max(1);
                let shares = weights.n.div_ceil(PANEL).div_ceil(share);
                let out = Out { data: out.as_mut_ptr(), stride: weights.n };
                Job { weights, times, bias, beta, plus, activations, m, out, share, shares }
            })
            .collect();
        pool.run(jobs.iter().map(|job| job.shares).sum(), &|mut i| {
            for job in &jobs {
                if i < job.shares {
                    let rows = i * job.share * PANEL..((i + 1) * job.share * PANEL).min(job.weights.n);
                    // SAFETY: `multiply` has asked whether the processor is supported.
                    return unsafe { job.run(rows) };
                }
                i -= job.shares;
            }
        });
    }

    fn quantize(of: Rows<'_>, weights: &Weights<'_>, activations: &mut Activations, pool: &Pool) {
        let kind = weights.kind;
        let each = |normalized: &mut Vec<f32>, (x, mut row): (&[f32], RowMut<'_>)| {
            // SAFETY: `multiply` has asked whether the processor is supported.
            unsafe {
                match of.norm {
                    None => avx512::quantize(kind, x, &mut row),
                    Some(norm) => {
                        normalized.resize(x.len(), 0.0);
                        avx512::normalize(x, norm.epsilon, norm.weight, normalized);
                        avx512::quantize(kind, normalized, &mut row);
                    }
                }
            }
        };
        let rows = of.x.chunks_exact(weights.k).zip(activations.rows_mut());
        if of.x.len() < 1 << 16 {
            let mut normalized = Vec::new();
            return rows.for_each(|row| each(&mut normalized, row));
        }
        let rows: Vec<_> = rows.map(|row| Mutex::new(Some(row))).collect();
        let share = rows.len().div_ceil(pool.threads() * 4);
        pool.run(rows.len().div_ceil(share), &|i| {
            let mut normalized = Vec::new();
            for row in &rows[i * share..((i + 1) * share).min(rows.len())] {
                let row = row.lock().ok().and_then(|mut row| row.take());
                row.into_iter().for_each(|row| each(&mut normalized, row));
            }
        });
    }

    impl Job<'_> {
        /// Computes some columns of the result.
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
        fn run(&self, rows: std::ops::Range<usize>) {
            match (self.weights.kind, self.layout()) {
                (Kind::U4, PER_ROW) => self.run_as::<{ Kind::U4 as u8 }, PER_ROW>(rows),
                (Kind::U4, PER_BLOCK) => self.run_as::<{ Kind::U4 as u8 }, PER_BLOCK>(rows),
                (Kind::U4, _) => self.run_as::<{ Kind::U4 as u8 }, WITHIN_BLOCK>(rows),
                (Kind::U8, PER_ROW) => self.run_as::<{ Kind::U8 as u8 }, PER_ROW>(rows),
                (Kind::U8, PER_BLOCK) => self.run_as::<{ Kind::U8 as u8 }, PER_BLOCK>(rows),
                (Kind::U8, _) => self.run_as::<{ Kind::U8 as u8 }, WITHIN_BLOCK>(rows),
                (Kind::I8, PER_ROW) => self.run_as::<{ Kind::I8 as u8 }, PER_ROW>(rows),
                (Kind::I8, PER_BLOCK) => self.run_as::<{ Kind::I8 as u8 }, PER_BLOCK>(rows),
                (Kind::I8, _) => self.run_as::<{ Kind::I8 as u8 }, WITHIN_BLOCK>(rows),
            }
        }

        fn layout(&self) -> u8 {
            match self.weights.group {
                group if group == self.weights.k => PER_ROW,
                group if group.is_multiple_of(BLOCK) => PER_BLOCK,
                _ => WITHIN_BLOCK,
            }
        }

        #[inline]
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
        fn run_as<const KIND: u8, const SCALES: u8>(&self, rows: std::ops::Range<usize>) {
            let mut scales = Scales::new::<SCALES>(self.weights);
            let at_once = if self.times.is_none() || self.m <= STEP_ROWS { rows.len() } else { GATED_ROWS };
            let tokens = (TOKEN_BYTES / self.weights.k).max(16) / 4 * 4;
            let mut factors = vec![0.0; if self.times.is_some() { tokens.min(self.m) * at_once } else { 0 }];
            for first in (0..self.m).step_by(tokens) {
                let tokens = first..(first + tokens).min(self.m);
                for first in rows.clone().step_by(at_once) {
                    let rows = first..(first + at_once).min(rows.end);
                    // SAFETY: the columns of these rows are this call's.
                    let data = unsafe { self.out.data.add(tokens.start * self.out.stride + rows.start) };
                    let out = Out { data, ..self.out };
                    self.factor::<KIND, SCALES>(self.weights, rows.clone(), tokens.clone(), out, &mut scales);
                    if let Some(times) = self.times {
                        let out = Out { data: factors.as_mut_ptr(), stride: at_once };
                        self.factor::<KIND, SCALES>(times, rows.clone(), tokens.clone(), out, &mut scales);
                    }
                    let factors = self.times.map(|_| (&factors[..], at_once));
                    self.finish(rows, tokens.clone(), factors);
                }
            }
        }

        /// Computes the product with some rows of weights, for some rows of activations.
        #[inline]
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
        fn factor<const KIND: u8, const SCALES: u8>(
            &self,
            w: &Weights<'_>,
            rows: std::ops::Range<usize>,
            tokens: std::ops::Range<usize>,
            out: Out,
            scales: &mut Scales,
        ) {
            // Few rows of activations are bound by memory, which is read best in its order, or in several pages at once. For
            // more, what is read of them is used for all rows of weights.
            let long = w.kind.bytes(w.k) >= PAGE;
            let apart = SCALES == PER_BLOCK && tokens.len() <= 4 && !long && rows.len().is_multiple_of(PANEL);
            let panels = rows.len().div_ceil(PANEL);
            for i in 0..panels {
                let panel = match apart {
                    true => PanelRows { first: i * PER_STREAM, n: PANEL, apart: panels * PER_STREAM },
                    false => PanelRows { first: i * PANEL, n: PANEL.min(rows.len() - i * PANEL), apart: 0 },
                };
                scales.fill::<SCALES>(w, rows.start, panel);
                let part = Part { first: rows.start, panel, tokens: tokens.clone(), out, scales };
                match (tokens.len(), long || apart) {
                    (1, false) => self.tiles::<16, 1, KIND, SCALES, 1>(w, part),
                    (1, true) => self.tiles::<16, 1, KIND, SCALES, STREAMS>(w, part),
                    (2, false) => self.tiles::<8, 2, KIND, SCALES, 1>(w, part),
                    (2, true) => self.tiles::<8, 2, KIND, SCALES, STREAMS>(w, part),
                    _ => self.tiles::<4, 4, KIND, SCALES, 4>(w, part),
                }
            }
        }

        /// Does to results what comes behind the product.
        #[inline]
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
        fn finish(
            &self,
            rows: std::ops::Range<usize>,
            tokens: std::ops::Range<usize>,
            factors: Option<(&[f32], usize)>,
        ) {
            if self.bias.is_none() && self.beta.is_none() && factors.is_none() && self.plus.is_none() {
                return;
            }
            for (i, token) in tokens.enumerate() {
                // SAFETY: the columns of these rows are this call's.
                let out = unsafe {
                    let first = self.out.data.add(token * self.out.stride + rows.start);
                    std::slice::from_raw_parts_mut(first, rows.len())
                };
                let bias = self.bias.map(|bias| &bias[rows.clone()]);
                let factors = factors.map(|(factors, stride)| &factors[i * stride..][..rows.len()]);
                let plus = self.plus.map(|plus| &plus[token * self.out.stride..][rows.clone()]);
                avx512::finish(out, bias, self.beta, factors, plus);
            }
        }

        /// Computes a panel.
        #[inline]
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
        fn tiles<const R: usize, const T: usize, const KIND: u8, const SCALES: u8, const AT_ONCE: usize>(
            &self,
            weights: &Weights<'_>,
            part: Part<'_>,
        ) {
            let Part { first, panel: of, tokens, out, scales } = part;
            let blocks = weights.k / BLOCK;
            let row_bytes = weights.kind.bytes(weights.k);
            // Rows past the end are computed as the last one, and not written.
            let panel_at = |r: usize| {
                let mut panel =
                    Panel::<R> { rows: [ptr::null(); R], scales: [ptr::null(); R], zeros: [ptr::null(); R] };
                for i in 0..R {
                    let i_of = (r + i).min(of.n - 1);
                    panel.rows[i] = weights.row(first + of.row(i_of)).as_ptr();
                    panel.scales[i] = scales.scales_of(of.place(i_of));
                    panel.zeros[i] = scales.zeros_of(of.place(i_of));
                }
                panel
            };
            // Activations stay in the first-level cache while the panel's rows pass by.
            for t in tokens.clone().step_by(T) {
                let mut rows = [self.row(t); T];
                for (i, row) in rows.iter_mut().enumerate().skip(1) {
                    *row = self.row((t + i).min(tokens.end - 1));
                }
                // The first of them meet weights that are still in memory.
                let ahead = match t == tokens.start {
                    true if AT_ONCE == 1 || of.apart > 0 => AHEAD,
                    true => row_bytes * R,
                    false => 0,
                };
                for r in (0..of.n).step_by(R) {
                    let panel = panel_at(r);
                    // SAFETY: rows, scales and activations have all their blocks.
                    let sums =
                        unsafe { avx512::tile::<R, T, KIND, SCALES, AT_ONCE>(&panel, &rows, blocks, ahead) };
                    for (i, sum) in sums.iter().enumerate() {
                        let (row, token) = (r + i / T, t + i % T);
                        if row < of.n && token < tokens.end {
                            let at = (token - tokens.start) * out.stride + of.row(row);
                            // SAFETY: within the caller's rows and columns.
                            unsafe { *out.data.add(at) = *sum };
                        }
                    }
                }
            }
        }

        #[inline]
        fn row(&self, token: usize) -> Row {
            let (k, blocks) = (self.activations.k, self.activations.k / BLOCK);
            let of = &self.activations;
            Row {
                values: of.values[token * k..][..k].as_ptr(),
                scales: of.scales[token * blocks * LANES..][..blocks * LANES].as_ptr(),
                lane_sums: of.lane_sums[token * blocks * LANES..][..blocks * LANES].as_ptr(),
                block_sums: of.block_sums[token * padded(blocks)..][..padded(blocks)].as_ptr(),
            }
        }
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
#[path = "multiply_tests.rs"]
mod tests;
