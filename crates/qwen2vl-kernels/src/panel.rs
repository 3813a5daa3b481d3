//! Panels: rows of weights that are computed together, and their scales, made ready for the kernels.

use crate::BLOCK;
use crate::activations::LANES;
use crate::avx512::{self, PER_BLOCK, PER_ROW};
use crate::weights::{Kind, Weights};

/// Rows of weights whose scales are made ready together; a multiple of every tile's.
pub(crate) const PANEL: usize = 16;

/// Streams of rows of weights that are read at once, and rows of a stream that belong to a panel.
pub(crate) const STREAMS: usize = 8;
pub(crate) const PER_STREAM: usize = PANEL / STREAMS;

/// The least bytes between scales that are used and those fetched meanwhile, which are of the next panel.
const SCALES_AHEAD: usize = 1024;

/// Rows of weights of a panel, counted from the first of a share: one after the other, or `apart`, some of each stream, so
/// that rows that are read at once lie in several pages.
#[derive(Clone, Copy)]
pub(crate) struct PanelRows {
    pub first: usize,
    pub n: usize,
    /// Rows from a stream to the next, or 0.
    pub apart: usize,
}

impl PanelRows {
    /// The `i`-th row, in the order of reading.
    #[inline]
    pub(crate) fn row(self, i: usize) -> usize {
        match self.apart {
            0 => self.first + i,
            apart => self.first + i % STREAMS * apart + i / STREAMS,
        }
    }

    /// Where its scales are kept: those of a stream lie together.
    #[inline]
    pub(crate) fn place(self, i: usize) -> usize {
        match self.apart {
            0 => i,
            _ => i % STREAMS * PER_STREAM + i / STREAMS,
        }
    }
}

/// Scales of a panel's rows, and those times zero points, as the tile wants them.
pub(crate) struct Scales {
    scales: Vec<f32>,
    zeros: Vec<f32>,
    /// Values of a row; behind the last one there is room for a vector, as what is not a whole one is read as if it was.
    width: usize,
}

impl Scales {
    pub(crate) fn new<const SCALES: u8>(weights: &Weights<'_>) -> Self {
        let blocks = weights.k / BLOCK;
        let width = match SCALES {
            PER_ROW => 1,
            PER_BLOCK => blocks,
            _ => blocks * LANES,
        };
        let room = || vec![0.0; PANEL * width + LANES];
        Self { scales: room(), zeros: room(), width }
    }

    #[inline]
    pub(crate) fn scales_of(&self, row: usize) -> *const f32 {
        self.scales[row * self.width..][..self.width].as_ptr()
    }

    #[inline]
    pub(crate) fn zeros_of(&self, row: usize) -> *const f32 {
        self.zeros[row * self.width..][..self.width].as_ptr()
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    pub(crate) fn fill<const SCALES: u8>(&mut self, weights: &Weights<'_>, first: usize, panel: PanelRows) {
        let blocks = weights.k / BLOCK;
        let lanes_of_group = weights.group / 8;
        let (scales, zeros) = (&mut self.scales[..], &mut self.zeros[..]);
        let fast = match SCALES {
            PER_ROW => weights.fast_rows(first + panel.first, panel.n, scales, zeros),
            PER_BLOCK if panel.apart == 0 => weights.fast_blocks(first + panel.first, panel.n, scales, zeros),
            PER_BLOCK => (0..STREAMS).all(|stream| {
                let at = stream * PER_STREAM * self.width;
                let row = first + panel.first + stream * panel.apart;
                weights.fast_blocks(row, PER_STREAM, &mut scales[at..], &mut zeros[at..])
            }),
            _ => false,
        };
        if fast {
            return;
        }
        for i in 0..panel.n {
            let (row, place) = (first + panel.row(i), panel.place(i));
            let scales = &mut scales[place * self.width..][..self.width];
            let zeros = &mut zeros[place * self.width..][..self.width];
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

    /// Scales and zero points of up to 16 rows of 4 bits whose groups are blocks, the first of which begins with a byte.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    fn fast_blocks(&self, first: usize, n: usize, scales: &mut [f32], zeros: &mut [f32]) -> bool {
        let groups = self.k / BLOCK;
        let (Kind::U4, BLOCK, true) = (self.kind, self.group, (first * groups).is_multiple_of(2)) else {
            return false;
        };
        let Some((of_scales, points)) = self.raw_groups(first * groups, n * groups) else { return false };
        assert!(scales.len() >= n * groups + LANES && zeros.len() >= n * groups + LANES);
        let ahead = (n * groups * 2).max(SCALES_AHEAD);
        for chunk in (0..n * groups).step_by(LANES) {
            let n = LANES.min(n * groups - chunk);
            // SAFETY: both outputs have room for a vector more, and there are `n` more groups.
            unsafe {
                avx512::scales_of_blocks(
                    of_scales.as_ptr().add(chunk * 2),
                    points.as_ptr().add(chunk / 2),
                    n,
                    ahead,
                    scales.as_mut_ptr().add(chunk),
                    zeros.as_mut_ptr().add(chunk),
                );
            }
        }
        true
    }
}
