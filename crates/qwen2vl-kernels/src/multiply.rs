//! The product: activations quantized once, rows of weights shared out among threads.

use crate::activations::Activations;
use crate::pool::Pool;
use crate::weights::Weights;

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

/// `out [m, n] = x [m, k] * weightsᵀ`.
///
/// # Panics
///
/// If the lengths do not fit the weights, or the processor is not supported.
pub fn multiply(x: &[f32], weights: &Weights<'_>, out: &mut [f32], scratch: &mut Scratch, pool: &Pool) {
    let m = x.len() / weights.k;
    assert!(x.len() == m * weights.k && out.len() == m * weights.n, "lengths do not fit the weights");
    assert!(is_supported(), "this processor has no AVX-512 VNNI");
    if m == 0 {
        return;
    }
    #[cfg(target_arch = "x86_64")]
    x86::multiply(x, weights, out, m, &mut scratch.activations, pool);
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::ptr;
    use std::sync::Mutex;

    use super::{Activations, Pool, Weights};
    use crate::BLOCK;
    use crate::activations::{LANES, RowMut, padded};
    use crate::avx512::{self, PER_BLOCK, PER_ROW, Panel, Row, WITHIN_BLOCK};
    use crate::weights::Kind;

    /// Rows of weights whose scales are made ready together; a multiple of every tile's.
    const PANEL: usize = 16;

    /// Bytes of quantized activations that stay in a core's second-level cache while weights pass by.
    const TOKEN_BYTES: usize = 256 << 10;

    /// Bytes between what is computed of a row and what is fetched meanwhile; where several rows of weights are used
    /// together, it is the next panel that is fetched.
    const AHEAD: usize = 4096;

    /// Bytes of weights of a share of the work: less is not worth waking another thread.
    const SHARE_BYTES: usize = 48 << 10;

    /// Where threads write their results, each its own columns.
    struct Out(*mut f32);

    // SAFETY: no two threads write the same element.
    unsafe impl Sync for Out {}

    pub fn multiply(
        x: &[f32],
        weights: &Weights<'_>,
        out: &mut [f32],
        m: usize,
        activations: &mut Activations,
        pool: &Pool,
    ) {
        activations.resize(m, weights.k);
        quantize(x, weights, activations, pool);
        let out = Out(out.as_mut_ptr());
        let row_bytes = weights.kind.bytes(weights.k);
        let panels = weights.n.div_ceil(PANEL);
        // Enough shares that a slow core does not keep the others waiting, none too small.
        let least = SHARE_BYTES.div_ceil(row_bytes * PANEL * m.min(8));
        let share = (panels / (pool.threads() * 8)).max(least).max(1);
        let job = Job { weights, activations, m, out: &out };
        pool.run(panels.div_ceil(share), &|i| {
            let rows = i * share * PANEL..((i + 1) * share * PANEL).min(weights.n);
            // SAFETY: `multiply` has asked whether the processor is supported.
            unsafe { job.run(rows) };
        });
    }

    fn quantize(x: &[f32], weights: &Weights<'_>, activations: &mut Activations, pool: &Pool) {
        let kind = weights.kind;
        let each = |(x, mut row): (&[f32], RowMut<'_>)| {
            // SAFETY: `multiply` has asked whether the processor is supported.
            unsafe { avx512::quantize(kind, x, &mut row) }
        };
        let rows = x.chunks_exact(weights.k).zip(activations.rows_mut());
        if x.len() < 1 << 16 {
            return rows.for_each(each);
        }
        let rows: Vec<_> = rows.map(|row| Mutex::new(Some(row))).collect();
        let share = rows.len().div_ceil(pool.threads() * 4);
        pool.run(rows.len().div_ceil(share), &|i| {
            for row in &rows[i * share..((i + 1) * share).min(rows.len())] {
                row.lock().ok().and_then(|mut row| row.take()).into_iter().for_each(each);
            }
        });
    }

    struct Job<'a> {
        weights: &'a Weights<'a>,
        activations: &'a Activations,
        m: usize,
        out: &'a Out,
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
            let tokens = (TOKEN_BYTES / self.weights.k).max(16) / 4 * 4;
            for first in (0..self.m).step_by(tokens) {
                let tokens = first..(first + tokens).min(self.m);
                for panel in rows.clone().step_by(PANEL) {
                    let n = PANEL.min(rows.end - panel);
                    scales.fill::<SCALES>(self.weights, panel, n);
                    match tokens.len() {
                        1 => self.tiles::<16, 1, KIND, SCALES>(panel, n, tokens.clone(), &scales),
                        2 => self.tiles::<8, 2, KIND, SCALES>(panel, n, tokens.clone(), &scales),
                        _ => self.tiles::<4, 4, KIND, SCALES>(panel, n, tokens.clone(), &scales),
                    }
                }
            }
        }

        /// Computes `n` columns from `first` on for some rows of activations.
        #[inline]
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
        fn tiles<const R: usize, const T: usize, const KIND: u8, const SCALES: u8>(
            &self,
            first: usize,
            n: usize,
            tokens: std::ops::Range<usize>,
            scales: &Scales,
        ) {
            let weights = self.weights;
            let blocks = weights.k / BLOCK;
            let row_bytes = weights.kind.bytes(weights.k);
            // Rows past the end are computed as the last one, and not written.
            let panel_at = |r: usize| {
                let mut panel =
                    Panel::<R> { rows: [ptr::null(); R], scales: [ptr::null(); R], zeros: [ptr::null(); R] };
                for i in 0..R {
                    let row = (r + i).min(n - 1);
                    panel.rows[i] = weights.row(first + row).as_ptr();
                    panel.scales[i] = scales.scales_of(row);
                    panel.zeros[i] = scales.zeros_of(row);
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
                    true if T == 1 => AHEAD,
                    true => row_bytes * PANEL,
                    false => 0,
                };
                for r in (0..n).step_by(R) {
                    let panel = panel_at(r);
                    // SAFETY: rows, scales and activations have all their blocks.
                    let sums = unsafe { avx512::tile::<R, T, KIND, SCALES>(&panel, &rows, blocks, ahead) };
                    for (i, sum) in sums.iter().enumerate() {
                        let (row, token) = (r + i / T, t + i % T);
                        if row < n && token < tokens.end {
                            // SAFETY: within `[m, n]`; the column is this call's.
                            unsafe { *self.out.0.add(token * weights.n + first + row) = *sum };
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

    /// Scales of a panel's rows, and those times zero points, as the tile wants them.
    struct Scales {
        scales: Vec<f32>,
        zeros: Vec<f32>,
        /// Values of a row.
        width: usize,
    }

    impl Scales {
        fn new<const SCALES: u8>(weights: &Weights<'_>) -> Self {
            let blocks = weights.k / BLOCK;
            let width = match SCALES {
                PER_ROW => 1,
                PER_BLOCK => padded(blocks),
                _ => blocks * LANES,
            };
            Self { scales: vec![0.0; PANEL * width], zeros: vec![0.0; PANEL * width], width }
        }

        #[inline]
        fn scales_of(&self, row: usize) -> *const f32 {
            self.scales[row * self.width..][..self.width].as_ptr()
        }

        #[inline]
        fn zeros_of(&self, row: usize) -> *const f32 {
            self.zeros[row * self.width..][..self.width].as_ptr()
        }

        #[inline]
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
        fn fill<const SCALES: u8>(&mut self, weights: &Weights<'_>, first: usize, n: usize) {
            let blocks = weights.k / BLOCK;
            let lanes_of_group = weights.group / 8;
            if SCALES == PER_ROW && weights.fast_rows(first, n, &mut self.scales, &mut self.zeros) {
                return;
            }
            for row in 0..n {
                let scales = &mut self.scales[row * self.width..][..self.width];
                let zeros = &mut self.zeros[row * self.width..][..self.width];
                let row = first + row;
                if SCALES == PER_BLOCK && weights.fast_scales(row, scales, zeros) {
                    continue;
                }
                match SCALES {
                    PER_ROW => (scales[0], zeros[0]) = (weights.scale(row, 0), weights.zero_point(row, 0)),
                    PER_BLOCK => {
                        for block in 0..blocks {
                            let group = block * BLOCK / weights.group;
                            scales[block] = weights.scale(row, group);
                            zeros[block] = scales[block] * weights.zero_point(row, group);
                        }
                    }
                    _ => {
                        // Groups of 32 values have four lanes with weights of 4 bits. With 8 bits a lane meets values of
                        // two groups, and the shape is refused.
                        for (i, (scale, zero)) in scales.iter_mut().zip(zeros).enumerate() {
                            let group = i / LANES * (BLOCK / weights.group) + i % LANES / lanes_of_group;
                            *scale = weights.scale(row, group);
                            *zero = *scale * weights.zero_point(row, group);
                        }
                    }
                }
            }
        }
    }

    impl Weights<'_> {
        /// Scales and zero points of up to 16 rows of 8 bits.
        #[inline]
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
        fn fast_rows(&self, first: usize, n: usize, scales: &mut [f32], zeros: &mut [f32]) -> bool {
            let Some((of_scales, points)) = self.raw_rows(first, n) else { return false };
            assert!(n <= LANES && scales.len() >= LANES && zeros.len() >= LANES);
            // SAFETY: both outputs have 16 values, both inputs `n`.
            unsafe {
                avx512::scales_of_rows(
                    of_scales.as_ptr(),
                    points.as_ptr(),
                    n,
                    scales.as_mut_ptr(),
                    zeros.as_mut_ptr(),
                );
            }
            true
        }

        /// Scales of a row whose groups are blocks, of 4 bits, with zero points that begin with a byte.
        #[inline]
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
        fn fast_scales(&self, row: usize, scales: &mut [f32], zeros: &mut [f32]) -> bool {
            let groups = self.k / BLOCK;
            let (Kind::U4, BLOCK, true) = (self.kind, self.group, (row * groups).is_multiple_of(2)) else {
                return false;
            };
            let Some((of_scales, points)) = self.raw_groups(row * groups, groups) else { return false };
            for chunk in (0..groups).step_by(LANES) {
                let n = LANES.min(groups - chunk);
                // SAFETY: both outputs are padded to whole vectors, and there are `n` more groups.
                unsafe {
                    avx512::scales_of_blocks(
                        of_scales[chunk * 2..].as_ptr(),
                        points[chunk / 2..].as_ptr(),
                        n,
                        scales[chunk..].as_mut_ptr(),
                        zeros[chunk..].as_mut_ptr(),
                    );
                }
            }
            true
        }
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
#[path = "multiply_tests.rs"]
mod tests;
