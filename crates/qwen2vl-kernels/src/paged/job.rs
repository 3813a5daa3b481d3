//! Paged attention as jobs: a head of keys and some rows of a sequence, shared out among threads.

use std::cell::RefCell;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use super::cache::{BLOCK_TOKENS, KvCache, Start};
use super::sequences::{Sequence, Sequences};
use super::tile::{Met, QUERIES, SPAN, SPAN_BLOCKS, Scores, Tile};
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
    static ROOM: RefCell<Room> = RefCell::default();
}

/// What a thread needs.
struct Room {
    /// Of some rows and a head.
    tiles: Vec<Tile>,
    /// What each of them has met.
    met: Vec<Met>,
    /// Of a tile and a span.
    of_span: Box<(Scores, Met)>,
}

impl Default for Room {
    fn default() -> Self {
        Self { tiles: Vec::new(), met: Vec::new(), of_span: Box::new((Scores::EMPTY, Met::NOTHING)) }
    }
}

/// Some rows of a sequence, counted among the tokens of all.
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
    let last_first = |i: usize| (&all[all.len() - 1 - i / shape.heads], i % shape.heads);
    let jobs = all.len() * shape.heads;
    let spans = all.iter().map(Rows::spans).max().unwrap_or(0);
    if spans <= 1 || jobs >= pool.threads() {
        return pool.run(jobs, &|i| {
            let (rows, head) = last_first(i);
            ROOM.with_borrow_mut(|room| {
                job.take_queries(rows, head, room);
                for span in 0..rows.spans() {
                    // SAFETY: the processor is supported, and all is written.
                    unsafe {
                        job.meet(rows, head, span, room, |all, of_span, n| job.put_together(all, of_span, n));
                    };
                }
                // SAFETY: nobody else has these rows of this head.
                unsafe { job.finish(rows, head, room) };
            });
        });
    }
    // Too few for all threads: spans are met apart.
    let parts: Vec<_> = (0..jobs * spans).map(|_| Mutex::new(Vec::new())).collect();
    let of = |i: usize| parts[i].lock().unwrap_or_else(PoisonError::into_inner);
    pool.run(jobs * spans, &|i| {
        let (rows, head) = last_first(i / spans);
        if i % spans < rows.spans() {
            ROOM.with_borrow_mut(|room| {
                job.take_queries(rows, head, room);
                // SAFETY: as above.
                unsafe { job.meet(rows, head, i % spans, room, |_, of_span, _| of(i).push(of_span.clone())) };
            });
        }
    });
    pool.run(jobs, &|i| {
        let (rows, head) = last_first(i);
        ROOM.with_borrow_mut(|room| {
            job.take_queries(rows, head, room);
            for span in 0..rows.spans() {
                let tiles = room.tiles.iter().zip(&mut room.met).filter(|(tile, _)| sees(tile, span));
                for ((tile, met), of_span) in tiles.zip(&*of(i * spans + span)) {
                    job.put_together(met, of_span, tile.n);
                }
            }
            // SAFETY: as above.
            unsafe { job.finish(rows, head, room) };
        });
    });
}

/// Whether one of a tile's queries sees a token of a span.
fn sees(tile: &Tile, span: usize) -> bool {
    tile.most_seen() > span * SPAN
}

impl Rows<'_> {
    /// Spans of which they see tokens.
    fn spans(&self) -> usize {
        self.sequence.seen_by(self.rows.end - 1).div_ceil(SPAN)
    }
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

    /// Some rows' queries of a head of keys, one after the other: rows, and heads of queries.
    fn queries(&self, rows: &Rows<'_>, head: usize) -> impl Iterator<Item = (usize, usize)> + use<> {
        let of_head = self.heads / self.shape.heads;
        rows.rows.clone().flat_map(move |row| (0..of_head).map(move |i| (row, head * of_head + i)))
    }

    /// Queries of a tile: as many in each.
    fn at_once(&self, rows: &Rows<'_>) -> usize {
        let queries = rows.rows.len() * (self.heads / self.shape.heads);
        queries.div_ceil(queries.div_ceil(QUERIES))
    }

    /// Where a query's values begin, and its results.
    fn at(&self, row: usize, head: usize) -> usize {
        ((row - self.first) * self.heads + head) * self.shape.width
    }

    /// Makes tiles of queries that have met nothing yet.
    fn take_queries(&self, rows: &Rows<'_>, head: usize, room: &mut Room) {
        let at_once = self.at_once(rows);
        let tiles = self.queries(rows, head).count().div_ceil(at_once);
        room.tiles.resize(tiles, Tile::EMPTY);
        room.tiles.iter_mut().for_each(Tile::clear);
        room.met.clear();
        room.met.resize(tiles, Met::NOTHING);
        let by = self.scale * std::f32::consts::LOG2_E;
        for (i, (row, head)) in self.queries(rows, head).enumerate() {
            let query = &self.queries[self.at(row, head)..][..self.shape.width];
            room.tiles[i / at_once].push(query, by, rows.sequence.seen_by(row));
        }
    }

    /// Lets tiles meet the tokens of a span that they see; `take` is given what each has met before and meets there, and how many
    /// queries it has.
    ///
    /// # Safety
    ///
    /// The processor is supported, and nobody writes to the cache.
    unsafe fn meet(
        &self,
        rows: &Rows<'_>,
        head: usize,
        span: usize,
        room: &mut Room,
        mut take: impl FnMut(&mut Met, &Met, usize),
    ) {
        let first = span * SPAN;
        let end = rows.sequence.seen_by(rows.rows.end - 1).min(first + SPAN);
        let blocks = first / BLOCK_TOKENS..end.div_ceil(BLOCK_TOKENS);
        let mut starts = [std::ptr::null_mut(); SPAN_BLOCKS];
        for (start, block) in starts.iter_mut().zip(&rows.blocks[blocks.clone()]) {
            *start = self.start.head(*block as usize, self.layer, head);
        }
        let (parts, width, starts) = (self.shape.parts(), self.shape.width, &starts[..blocks.len()]);
        let (scores, of_span) = &mut *room.of_span;
        let tiles = room.tiles.iter().zip(&mut room.met).filter(|(tile, _)| sees(tile, span));
        for (tile, met) in tiles {
            // SAFETY: the cache has the blocks, which hold all that is seen; the caller vouches for the rest.
            unsafe {
                match self.isa {
                    Isa::Avx2 => avx2::paged::meet(parts, width, starts, first, tile, scores, of_span),
                    Isa::Avx512 => avx512::paged::meet(parts, width, starts, first, tile, scores, of_span),
                }
            }
            take(met, of_span, tile.n);
        }
    }

    /// Puts what a tile's queries have met in a span to what they have met before it.
    fn put_together(&self, all: &mut Met, of_span: &Met, n: usize) {
        // SAFETY: `attend_paged` has asked whether the processor is supported, and how wide heads are.
        unsafe {
            match self.isa {
                Isa::Avx2 => avx2::paged::put_together(all, of_span, n, self.shape.width),
                Isa::Avx512 => avx512::paged::put_together(all, of_span, n, self.shape.width),
            }
        }
    }

    /// Writes results of tiles that have met all.
    ///
    /// # Safety
    ///
    /// Nobody else has these rows of the head.
    unsafe fn finish(&self, rows: &Rows<'_>, head: usize, room: &Room) {
        let at_once = self.at_once(rows);
        for (i, (row, head)) in self.queries(rows, head).enumerate() {
            let to = self.out.at(self.at(row, head));
            // SAFETY: the caller vouches for it.
            let out = unsafe { std::slice::from_raw_parts_mut(to, self.shape.width) };
            room.met[i / at_once].finish(i % at_once, out);
        }
    }
}
