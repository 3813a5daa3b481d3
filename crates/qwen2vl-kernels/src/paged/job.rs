//! Paged attention as jobs: a head of keys and some rows of a sequence, shared out among threads.

use std::cell::RefCell;
use std::ops::Range;

use super::cache::{BLOCK_TOKENS, KvCache, Start};
use super::sequences::{Sequence, Sequences};
use super::tile::{QUERIES, SPAN, SPAN_BLOCKS, Scores, Tile};
use super::write::{write_key, write_value};
use super::{CacheShape, PagedAttention};
use crate::isa::Isa;
use crate::job::Out;
use crate::pool::Pool;
use crate::{avx2, avx512};

/// Rows whose queries meet a span of tokens while it is in the second-level cache.
const ROWS: usize = 16;

/// Rows below which no other thread is woken to write their keys and values.
const FEW: usize = 32;

thread_local! {
    /// Tiles of a job, and room for one's scores.
    static TILES: RefCell<(Vec<Tile>, Box<Scores>)> = RefCell::new((Vec::new(), Box::new(Scores::EMPTY)));
}

/// Some rows of a sequence, counted from the call's first.
struct Rows<'a> {
    sequence: &'a Sequence,
    blocks: &'a [u32],
    rows: Range<usize>,
}

/// What all jobs know.
struct Job<'a> {
    isa: Isa,
    shape: CacheShape,
    start: Start,
    queries: &'a [f32],
    keys: &'a [f32],
    values: &'a [f32],
    first: usize,
    layer: usize,
    heads: usize,
    scale: f32,
    out: Out,
}

pub(crate) fn attend(
    isa: Isa,
    attention: PagedAttention<'_>,
    cache: &mut KvCache,
    sequences: &Sequences,
    pool: &Pool,
) {
    let PagedAttention { queries, keys, values, first, layer, heads, scale, out } = attention;
    let (shape, start) = (*cache.shape(), cache.start());
    let n = out.len() / (heads * shape.width);
    let out = Out(out.as_mut_ptr());
    let job = Job { isa, shape, start, queries, keys, values, first, layer, heads, scale, out };
    let mut all = Vec::new();
    for sequence in sequences.iter() {
        let rows = sequence.rows.start.max(first)..sequence.rows.end.min(first + n);
        let blocks = sequences.blocks_of(sequence);
        for row in rows.clone().step_by(ROWS) {
            all.push(Rows { sequence, blocks, rows: row..(row + ROWS).min(rows.end) });
        }
    }
    let write = |i: usize| {
        // SAFETY: the processor is supported; no rows are twice among all, and nobody reads yet.
        unsafe { job.write(&all[i]) }
    };
    if n < FEW {
        (0..all.len()).for_each(write);
    } else {
        pool.run(all.len(), &write);
    }
    // Those that see most first, so that no thread is left alone with one.
    pool.run(all.len() * shape.heads, &|i| {
        let rows = &all[all.len() - 1 - i / shape.heads];
        TILES.with_borrow_mut(|(tiles, scores)| {
            // SAFETY: the processor is supported; all is written, and nobody else has these rows of this head.
            unsafe { job.meet(rows, i % shape.heads, tiles, scores) }
        });
    });
}

impl Job<'_> {
    /// Writes keys and values.
    ///
    /// # Safety
    ///
    /// The processor is supported, and nobody else writes these tokens or reads them.
    unsafe fn write(&self, rows: &Rows<'_>) {
        let CacheShape { heads, width, .. } = self.shape;
        let (keys, values) = self.shape.parts();
        for row in rows.rows.clone() {
            let token = rows.sequence.seen_by(row) - 1;
            let (block, slot) = (rows.blocks[token / BLOCK_TOKENS] as usize, token % BLOCK_TOKENS);
            for head in 0..heads {
                let to = self.start.head(block, self.layer, head);
                let from = ((row - self.first) * heads + head) * width;
                let from = from..from + width;
                // SAFETY: the cache has the block; the caller vouches for the rest.
                unsafe {
                    write_key(&keys, keys.numbers(to), slot, &self.keys[from.clone()]);
                    write_value(&values, values.numbers(to), slot, &self.values[from]);
                }
            }
        }
    }

    /// Lets the queries of a head of keys meet the tokens that they see.
    ///
    /// # Safety
    ///
    /// The processor is supported; nobody writes to the cache, or to these rows of the head.
    unsafe fn meet(&self, rows: &Rows<'_>, head: usize, tiles: &mut Vec<Tile>, scores: &mut Scores) {
        let CacheShape { width, heads: kv_heads, .. } = self.shape;
        let of_head = self.heads / kv_heads;
        let queries = rows.rows.len() * of_head;
        // As many in each.
        let at_once = queries.div_ceil(queries.div_ceil(QUERIES));
        tiles.resize(queries.div_ceil(at_once), Tile::EMPTY);
        let all = || rows.rows.clone().flat_map(|row| (0..of_head).map(move |i| (row, head * of_head + i)));
        let at = |row: usize, head: usize| ((row - self.first) * self.heads + head) * width;
        for tile in tiles.iter_mut() {
            tile.clear();
        }
        for (i, (row, head)) in all().enumerate() {
            let query = &self.queries[at(row, head)..][..width];
            let by = self.scale * std::f32::consts::LOG2_E;
            tiles[i / at_once].push(query, by, rows.sequence.seen_by(row));
        }
        let most = tiles.iter().map(Tile::most_seen).max().unwrap_or(0);
        for first in (0..most).step_by(SPAN) {
            let blocks = first / BLOCK_TOKENS..most.min(first + SPAN).div_ceil(BLOCK_TOKENS);
            let mut starts = [std::ptr::null_mut(); SPAN_BLOCKS];
            for (start, block) in starts.iter_mut().zip(&rows.blocks[blocks.clone()]) {
                *start = self.start.head(*block as usize, self.layer, head);
            }
            let (parts, starts) = (self.shape.parts(), &starts[..blocks.len()]);
            for tile in tiles.iter_mut().filter(|tile| tile.most_seen() > first) {
                // SAFETY: the cache has the blocks, which hold all that is seen; the caller vouches for the rest.
                unsafe {
                    match self.isa {
                        Isa::Avx2 => avx2::paged::meet(parts, width, starts, first, tile, scores),
                        Isa::Avx512 => avx512::paged::meet(parts, width, starts, first, tile, scores),
                    }
                }
            }
        }
        for (i, (row, head)) in all().enumerate() {
            // SAFETY: the caller vouches for it.
            let out = unsafe { std::slice::from_raw_parts_mut(self.out.at(at(row, head)), width) };
            tiles[i / at_once].finish(i % at_once, out);
        }
    }
}
