//! Attention as jobs: heads of some rows, shared out among threads.

use std::cell::RefCell;
use std::ops::Range;

use super::Attention;
use super::quantized::Quantized;
use super::queries::Queries;
use super::rows::Rows;
use crate::isa::Isa;
use crate::job::Out;
use crate::pool::Pool;
use crate::{Scratch, avx2, avx512};

/// Queries that meet a block of keys while it is in the first-level cache.
const SHARE: usize = 64;

/// Bytes of quantized keys and values that are made at a time, unless a single head has more.
const ROOM: usize = 16 << 20;

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
            QUERIES
                .with_borrow_mut(|queries| unsafe { meet(isa, quantized, head, of.clone(), scale, queries) });
            let to = |row: usize| (row * heads + some.start + head) * width;
            QUERIES.with_borrow(|queries| {
                for (i, row) in of.enumerate() {
                    // SAFETY: as above.
                    let out = unsafe { std::slice::from_raw_parts_mut(out.at(to(row)), width) };
                    queries[i / isa.queries()].finish(i % isa.queries(), out);
                }
            });
        });
    }
}

/// Lets rows of one of the heads meet all keys.
///
/// # Safety
///
/// The processor has the instruction set.
unsafe fn meet(
    isa: Isa,
    quantized: &Quantized,
    head: usize,
    rows: Range<usize>,
    scale: f32,
    queries: &mut Vec<Queries>,
) {
    let lanes = isa.queries();
    queries.resize_with(rows.len().div_ceil(lanes), Queries::default);
    for (i, queries) in queries.iter_mut().enumerate() {
        let first = rows.start + i * lanes;
        queries.begin(lanes, quantized, head, first..(first + lanes).min(rows.end), scale);
    }
    for block in quantized.blocks(head) {
        for queries in queries.iter_mut() {
            queries.damage += block.damage;
            // SAFETY: the caller vouches for the processor; queries and block have all their parts.
            unsafe {
                match isa {
                    Isa::Avx2 => avx2::attention::meet(&block, queries),
                    Isa::Avx512 => avx512::attention::meet(&block, queries),
                }
            }
        }
    }
}
