//! Panels: 16 rows of weights that are computed together, unpacked chunk by chunk, and their scales.

use std::ops::Range;

use crate::avx2;
use crate::weights::{Kind, Weights};
use crate::{BLOCK, GROUP};

/// Rows of weights that are computed together.
pub(crate) const PANEL: usize = 16;

/// Values of each row that are unpacked at once: what they become stays in the first-level cache.
pub(crate) const CHUNK: usize = 512;

/// Bytes of a line of the cache.
pub(crate) const LINE: usize = 64;

/// A line of the cache.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Line(pub [u32; LINE / 4]);

impl Line {
    pub(crate) const ZEROS: Self = Self([0; _]);
}

/// Bytes between scales that are read and those fetched meanwhile.
const SCALES_AHEAD: usize = 128;

/// Groups whose scales are read at once, and groups whose zero points are.
const HALVES: usize = 8;
const NIBBLES: usize = 16;

/// Rows of weights of a panel: `first`, and every `step`th row behind it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PanelRows {
    pub first: usize,
    pub step: usize,
    /// 16 or fewer.
    pub n: usize,
}

impl PanelRows {
    /// The `i`-th row; past the end it is the last one again.
    #[inline(always)]
    pub(crate) fn row(&self, i: usize) -> usize {
        self.first + i.min(self.n - 1) * self.step
    }
}

/// Where packed weights of a panel's rows lie.
pub(crate) struct RowsOf([*const u8; PANEL]);

impl RowsOf {
    /// From value `first` of the rows on, which has a byte of its own.
    #[inline(always)]
    pub(crate) fn new(weights: &Weights<'_>, rows: PanelRows, first: usize) -> Self {
        let at = weights.kind.bytes(first);
        Self(std::array::from_fn(|i| weights.row(rows.row(i))[at..].as_ptr()))
    }

    #[inline(always)]
    pub(crate) fn at(&self, row: usize) -> *const u8 {
        self.0[row]
    }

    /// Fetches so many bytes of each row into the caches, from byte `at` on.
    #[inline(always)]
    pub(crate) fn fetch(&self, rows: Range<usize>, at: usize, bytes: usize) {
        for row in rows {
            for line in (0..bytes).step_by(LINE) {
                avx2::fetch_line(self.0[row].wrapping_add(at + line));
            }
        }
    }
}

/// A panel whose weights are multiplied as they are packed.
pub(crate) struct Packed<'a> {
    pub rows: RowsOf,
    pub scales: &'a Scales,
    /// Of each row.
    pub blocks: usize,
    /// Bytes between what is used of a row and what is fetched meanwhile.
    pub ahead: usize,
}

/// Scales (f16) and zero points of a panel, of each span or one of each row.
#[derive(Default)]
pub(crate) struct Scales {
    scales: Vec<[u16; PANEL]>,
    zeros: Vec<[u8; PANEL]>,
}

/// Values that share a scale and a correction: 32 where groups of weights are smaller than a block.
pub(crate) fn span_of(weights: &Weights<'_>) -> usize {
    if weights.group.is_multiple_of(BLOCK) { BLOCK } else { GROUP }
}

impl Scales {
    /// Of a span.
    #[inline(always)]
    pub(crate) fn at(&self, span: usize) -> (&[u16; PANEL], &[u8; PANEL]) {
        let span = if self.scales.len() == 1 { 0 } else { span };
        (&self.scales[span], &self.zeros[span])
    }

    /// Reads those of some rows.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(crate) fn read(&mut self, weights: &Weights<'_>, rows: PanelRows) {
        let groups = weights.k / weights.group;
        // So many spans have one scale.
        let spans = if groups == 1 { 1 } else { weights.group / span_of(weights) };
        self.scales.resize(groups * spans, [0; PANEL]);
        // With room for what is read at a time.
        self.zeros.resize((groups * spans).next_multiple_of(NIBBLES), [0; PANEL]);
        if spans == 1 && self.read_fast(weights, rows, groups) {
            return;
        }
        for (at, (scales, zeros)) in self.scales.iter_mut().zip(&mut self.zeros).enumerate() {
            for i in 0..PANEL {
                let row = rows.row(i);
                scales[i] = weights.scale_bits(row, at / spans);
                zeros[i] = weights.zero_point(row, at / spans);
            }
        }
    }

    /// Those of whole panels of 4 bits, unless they are the last ones; all groups count, and rows begin with a byte of their own.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn read_fast(&mut self, weights: &Weights<'_>, rows: PanelRows, groups: usize) -> bool {
        // So many are read at a time, at the last row as well.
        let end = rows.row(PANEL) * groups + groups.next_multiple_of(NIBBLES);
        let (Kind::U4, Some(points), PANEL) = (weights.kind, weights.zero_points, rows.n) else {
            return false;
        };
        if groups < HALVES || !groups.is_multiple_of(2) || end * 2 > weights.scales.len() {
            return false;
        }
        let (first, stride) = (rows.first * groups, rows.step * groups);
        let (scales, points) = (weights.scales[first * 2..].as_ptr(), points[first / 2..].as_ptr());
        for row in 0..PANEL {
            avx2::fetch_line(scales.wrapping_add(row * stride * 2 + SCALES_AHEAD));
            avx2::fetch_line(points.wrapping_add(row * stride / 2 + SCALES_AHEAD));
        }
        let (to_scales, to_zeros) = (self.scales.as_mut_ptr(), self.zeros.as_mut_ptr());
        // SAFETY: all rows have so many groups, the last one those behind it as well, and there is room for them.
        unsafe {
            for column in (0..groups).step_by(HALVES) {
                match groups - column {
                    1..=4 => {
                        let column = groups - 4;
                        avx2::columns_of_4_halves(scales.add(column * 2), stride * 2, to_scales.add(column));
                    }
                    left => {
                        // Where less is left, some are read again.
                        let column = if left < HALVES { groups - HALVES } else { column };
                        avx2::columns_of_8_halves(scales.add(column * 2), stride * 2, to_scales.add(column));
                    }
                }
            }
            for column in (0..groups).step_by(NIBBLES) {
                avx2::columns_of_16_nibbles(points.add(column / 2), stride / 2, to_zeros.add(column));
            }
        }
        true
    }
}
