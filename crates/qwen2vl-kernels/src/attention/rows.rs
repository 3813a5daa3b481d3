//! Rows as they are given, and their parts.

use super::{WIDEST, WIDTHS};
use crate::rotation::Rotation;

/// Rows, and what is read of them.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    /// `[n, 3, heads, width]`.
    pub qkv: &'a [f32],
    pub n: usize,
    pub heads: usize,
    pub width: usize,
    pub rotation: Option<Rotation<'a>>,
}

/// A part of a row.
#[derive(Clone, Copy)]
pub(super) enum Part {
    Query,
    Key,
    Value,
}

impl Rows<'_> {
    /// A head of a row's part, rotated unless it is a value.
    #[inline(always)]
    pub(super) fn head(&self, row: usize, part: Part, head: usize) -> [f32; WIDEST] {
        let &Self { qkv, heads, width, rotation, .. } = self;
        let from = ((row * 3 + part as usize) * heads + head) * width;
        let mut values = [0.0; WIDEST];
        let (to, from) =
            (values.as_chunks_mut::<WIDTHS>().0, qkv[from..from + width].as_chunks::<WIDTHS>().0);
        to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
        if let (Some(rotation), Part::Query | Part::Key) = (rotation, part) {
            rotation.rotate_head(row, &mut values[..width]);
        }
        values
    }
}
