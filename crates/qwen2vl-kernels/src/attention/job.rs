//! Attention as jobs: heads of some rows, shared out among threads.

use std::cell::RefCell;
use std::ops::Range;

use super::Attention;
use super::quantized::{Block, Quantized};
use super::queries::Queries;
use super::rows::Rows;
use crate::isa::Isa;
use crate::pool::Pool;
use crate::{Scratch, avx2, avx512};

/// Queries that meet a block of keys while it is in the first-level cache.
const SHARE: usize = 64;

/// Bytes of quantized keys and values that are made at a time, unless a single head has more.
const ROOM: usize = 16 << 20;

/// Results, `[n, heads, width]`.
#[derive(Clone, Copy)]
struct Out(*mut f32);

// SAFETY: no two threads write the same element.
unsafe impl Send for Out {}
// SAFETY: as above.
unsafe impl Sync for Out {}

thread_local! {
    /// As many as a share has.
    static QUERIES: RefCell<Vec<Queries>> = RefCell::default();
}

pub(crate) fn attend(isa: Isa, attention: Attention<'_>, scratch: &mut Scratch, pool: &Pool) {
    let Attention { qkv, heads, width, scale, rotation, out } = attention;
    let n = out.len() / (heads * width);
    let (rows, out) = (Rows { qkv, n, heads, width, rotation }, Out(out.as_mut_ptr()));
    let at_once = (ROOM / Quantized::bytes(n, width).max(1)).clamp(1, heads);
    let shares = n.div_ceil(SHARE);
    for first in (0..heads).step_by(at_once) {
        let some = first..(first + at_once).min(heads);
        scratch.attention.fill(&rows, some.clone(), pool);
        let quantized = &scratch.attention;
        pool.run(some.len() * shares, &|i| {
            let (head, share) = (i / shares, i % shares);
            let of = share * SHARE..((share + 1) * SHARE).min(n);
            // SAFETY: the processor is supported; nobody else has these rows of this head.
            QUERIES.with_borrow_mut(|queries| unsafe {
                meet(isa, (&rows, some.start + head, of), quantized.blocks(head), scale, queries, out);
            });
        });
    }
}

/// Computes a head of some rows.
///
/// # Safety
///
/// The processor has the instruction set; there are as many results, and nobody else writes this head of these rows.
unsafe fn meet<'a>(
    isa: Isa,
    (rows, head, of): (&Rows<'_>, usize, Range<usize>),
    blocks: impl Iterator<Item = Block<'a>>,
    scale: f32,
    queries: &mut Vec<Queries>,
    out: Out,
) {
    let lanes = isa.queries();
    queries.resize_with(SHARE / lanes, Queries::default);
    let groups = || of.clone().step_by(lanes).map(|first| first..(first + lanes).min(of.end));
    for (queries, of) in queries.iter_mut().zip(groups()) {
        queries.begin(lanes, rows, head, of, scale);
    }
    let mut damage = 0.0;
    for block in blocks {
        damage += block.damage;
        for (queries, _) in queries.iter_mut().zip(groups()) {
            // SAFETY: the caller vouches for the processor; queries and block have all their parts.
            unsafe {
                match isa {
                    Isa::Avx2 => avx2::attention::meet(&block, queries),
                    Isa::Avx512 => avx512::attention::meet(&block, queries),
                }
            }
        }
    }
    for (queries, of) in queries.iter_mut().zip(groups()) {
        for (lane, row) in of.enumerate() {
            let at = (row * rows.heads + head) * rows.width;
            // SAFETY: the caller vouches for it.
            let out = unsafe { std::slice::from_raw_parts_mut(out.0.add(at), rows.width) };
            queries.finish(lane, damage, out);
        }
    }
}
