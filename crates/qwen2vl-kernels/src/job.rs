//! Products as jobs: panels of weights, shared out among threads, and which kernel computes them.

use std::cell::RefCell;
use std::ops::Range;

use crate::activations::{Activations, Layout};
use crate::finish::Finish;
use crate::isa::{Isa, TILE, WIDE};
use crate::panel::{CHUNK, LINE, Line, PANEL, Packed, PanelRows, RowsOf, Scales, span_of};
use crate::pool::Pool;
use crate::product::{Product, Rows};
use crate::quantize::quantize;
use crate::weights::{Kind, Weights};
use crate::{BLOCK, GROUP, avx2, avx512};

/// Bytes of quantized activations that stay in a core's second-level cache while panels pass by.
const TOKEN_BYTES: usize = 256 << 10;

/// Rows of activations for which unpacking a panel anew costs little.
const LEAST_TOKENS: usize = 64;

/// Rows of activations for which weights are read in several runs.
const IN_RUNS: usize = 16;

/// Bytes between what few rows of activations use of a run and what is fetched meanwhile.
const AHEAD: usize = 512;

/// Bytes of a page of memory, within which the processor fetches ahead by itself.
const PAGE: usize = 4096;

/// Panels that are computed together: each quantized value is then read once for both.
const PAIR: usize = 2;

/// Bytes of weights of a share of the work: less is not worth waking another thread.
const SHARE_BYTES: usize = 48 << 10;

/// What a thread needs.
#[derive(Default)]
struct Buffers {
    /// For panels that are computed together.
    panels: [OfPanel; PAIR],
    /// Results of all panels of a share.
    share: Vec<[f32; PANEL]>,
}

/// What a panel needs.
#[derive(Default)]
struct OfPanel {
    unpacked: Vec<Line>,
    scales: Scales,
    /// Results, `[tokens, 16]`.
    acc: Vec<[f32; PANEL]>,
}

thread_local! {
    static BUFFERS: RefCell<Buffers> = RefCell::default();
}

/// Results, which threads share out among themselves.
#[derive(Clone, Copy)]
pub(crate) struct Out(pub *mut f32);

// SAFETY: no two threads write the same element.
unsafe impl Send for Out {}
// SAFETY: as above.
unsafe impl Sync for Out {}

impl Out {
    pub(crate) fn at(self, i: usize) -> *mut f32 {
        self.0.wrapping_add(i)
    }
}

/// One of the products, shared by the threads.
struct Job<'a> {
    isa: Isa,
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

pub(crate) fn multiply(
    isa: Isa,
    rows: Rows<'_>,
    products: &mut [Product<'_>],
    m: usize,
    activations: &mut Activations,
    pool: &Pool,
) {
    let weights = products[0].weights;
    activations.resize(m, isa.layout(weights, m));
    quantize(isa, rows, activations, pool);
    let activations = &*activations;
    let factors = |p: &Product<'_>| 1 + usize::from(p.times.is_some());
    let panels: usize = products.iter().map(|p| p.weights.n.div_ceil(PANEL) * factors(p)).sum();
    let jobs: Vec<Job<'_>> = products
        .iter_mut()
        .map(|product| {
            let factors = factors(product);
            let Product { weights, bias, beta, times, plus, ref mut out, .. } = *product;
            // Enough shares that a slow core does not keep the others waiting, none too small.
            let row_bytes = weights.kind.bytes(weights.k);
            let least = SHARE_BYTES.div_ceil(row_bytes * PANEL * m.min(8));
            let share = (panels / (pool.threads() * 8)).max(least).div_ceil(factors).max(1);
            let shares = weights.n.div_ceil(PANEL).div_ceil(share);
            let out = Out(out.as_mut_ptr());
            Job { isa, weights, times, bias, beta, plus, activations, m, out, share, shares }
        })
        .collect();
    pool.run(jobs.iter().map(|job| job.shares).sum(), &|mut i| {
        for job in &jobs {
            if i < job.shares {
                let panels = i * job.share..((i + 1) * job.share).min(job.weights.n.div_ceil(PANEL));
                // SAFETY: `multiply` has asked whether the processor is supported.
                return BUFFERS.with_borrow_mut(|buffers| unsafe { job.run(panels, buffers) });
            }
            i -= job.shares;
        }
    });
    for product in products {
        if let Some(rotation) = product.rotation {
            rotation.rotate(product.out, product.weights.n, pool);
        }
    }
}

impl Job<'_> {
    /// Computes some panels' columns of the result.
    #[target_feature(enable = "avx2,fma,f16c")]
    fn run(&self, panels: Range<usize>, buffers: &mut Buffers) {
        const U4: u8 = Kind::U4 as u8;
        const U8: u8 = Kind::U8 as u8;
        const I8: u8 = Kind::I8 as u8;
        // A second factor is of the same kind and groups.
        match (self.weights.kind, span_of(self.weights)) {
            (Kind::U4, BLOCK) => self.run_as::<U4, BLOCK>(panels, buffers),
            (Kind::U4, _) => self.run_as::<U4, GROUP>(panels, buffers),
            (Kind::U8, _) => self.run_as::<U8, BLOCK>(panels, buffers),
            (Kind::I8, _) => self.run_as::<I8, BLOCK>(panels, buffers),
        }
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    fn run_as<const KIND: u8, const SPAN: usize>(&self, panels: Range<usize>, buffers: &mut Buffers) {
        let Buffers { panels: both, share } = buffers;
        let Layout { k, form, .. } = self.activations.layout;
        let all = 0..self.m;
        if self.m <= IN_RUNS {
            let [of, other] = both;
            // Memory is read best from one place after the other: from both factors in turns it takes a quarter longer.
            share.clear();
            for panel in panels.clone() {
                let rows = self.rows(panel, &panels);
                self.factor::<1, KIND, SPAN>([(self.weights, rows)], &all, std::slice::from_mut(of));
                match self.times {
                    None => self.finish(rows, &all, &of.acc, None),
                    Some(_) => share.extend_from_slice(&of.acc[..self.m]),
                }
            }
            let Some(times) = self.times else { return };
            for (panel, acc) in panels.clone().zip(share.chunks_exact(self.m)) {
                let rows = self.rows(panel, &panels);
                self.factor::<1, KIND, SPAN>([(times, rows)], &all, std::slice::from_mut(other));
                self.finish(rows, &all, acc, Some(&other.acc));
            }
            return;
        }
        let tokens = (TOKEN_BYTES / (k * form.bytes())).max(LEAST_TOKENS) / TILE * TILE;
        for first in (0..self.m).step_by(tokens) {
            let tokens = first..(first + tokens).min(self.m);
            let mut panel = panels.start;
            while panel < panels.end {
                let rows = self.rows(panel, &panels);
                match self.times {
                    Some(times) => {
                        self.factor::<2, KIND, SPAN>([(self.weights, rows), (times, rows)], &tokens, both);
                        let [of, other] = both;
                        self.finish(rows, &tokens, &of.acc, Some(&other.acc));
                    }
                    None if panel + 1 < panels.end => {
                        panel += 1;
                        let next = self.rows(panel, &panels);
                        self.factor::<2, KIND, SPAN>(
                            [(self.weights, rows), (self.weights, next)],
                            &tokens,
                            both,
                        );
                        for (of, rows) in both.iter_mut().zip([rows, next]) {
                            self.finish(rows, &tokens, &of.acc, None);
                        }
                    }
                    None => {
                        let of = &mut both[..1];
                        self.factor::<1, KIND, SPAN>([(self.weights, rows)], &tokens, of);
                        self.finish(rows, &tokens, &of[0].acc, None);
                    }
                }
                panel += 1;
            }
        }
    }

    /// The rows of one of a share's panels. Few rows of activations are bound by memory, which is read best in several
    /// pages at once: the share's rows are 16 runs, of which each panel has the next rows.
    fn rows(&self, panel: usize, panels: &Range<usize>) -> PanelRows {
        if self.m <= IN_RUNS && panels.end * PANEL <= self.weights.n {
            let first = panels.start * PANEL + panel - panels.start;
            return PanelRows { first, step: panels.len(), n: PANEL };
        }
        PanelRows { first: panel * PANEL, step: 1, n: PANEL.min(self.weights.n - panel * PANEL) }
    }

    /// Computes the product with `P` panels, for some rows of activations.
    #[target_feature(enable = "avx2,fma,f16c")]
    fn factor<const P: usize, const KIND: u8, const SPAN: usize>(
        &self,
        panels: [(&Weights<'_>, PanelRows); P],
        tokens: &Range<usize>,
        of: &mut [OfPanel],
    ) {
        let Layout { k, form, abreast } = self.activations.layout;
        for ((w, rows), of) in panels.iter().zip(of.iter_mut()) {
            of.scales.read(w, *rows);
            // Room for what is missing beside the last rows.
            of.acc.clear();
            of.acc.resize(tokens.len().next_multiple_of(abreast), [0.0; PANEL]);
        }
        // The next panel: of short rows it lies behind this one.
        let next = |w: &Weights<'_>, rows: PanelRows| {
            let row_bytes = w.kind.bytes(k);
            (rows.step == 1 && row_bytes < PAGE).then_some(row_bytes * PANEL * P)
        };
        if self.m <= self.isa.few() {
            for ((w, rows), of) in panels.iter().zip(of) {
                let ahead = next(w, *rows).unwrap_or(AHEAD);
                let panel =
                    Packed { rows: RowsOf::new(w, *rows, 0), scales: &of.scales, blocks: k / BLOCK, ahead };
                // SAFETY: the processor is supported; weights, scales and activations have all blocks, and results room.
                unsafe { self.few::<KIND, SPAN>(&panel, of.acc.as_mut_ptr().cast()) };
            }
            return;
        }
        for of in &mut of[..P] {
            of.unpacked.resize(CHUNK * PANEL * form.bytes() / LINE, Line::ZEROS);
        }
        for at in (0..k).step_by(CHUNK) {
            let values = CHUNK.min(k - at);
            for ((w, rows), of) in panels.iter().zip(of.iter_mut()) {
                let (packed, unpacked) = (RowsOf::new(w, *rows, at), of.unpacked.as_mut_ptr().cast::<u8>());
                // SAFETY: the processor is supported; the rows have so many values more, and a chunk has room.
                unsafe {
                    match self.isa {
                        Isa::Avx2 => avx2::unpack::<KIND>(&packed, values / BLOCK, unpacked),
                        Isa::Avx512 => avx512::unpack::<KIND>(&packed, values / BLOCK, unpacked),
                    }
                }
                if tokens.start == 0 {
                    let bytes = w.kind.bytes(values);
                    packed.fetch(0..PANEL, next(w, *rows).unwrap_or(bytes), bytes);
                }
            }
            let mut token = tokens.start;
            while token < tokens.end {
                // SAFETY: activations, weights and scales have all values; there is room for results of whole tiles.
                token += unsafe {
                    match (tokens.end - token, self.isa) {
                        (1, _) => self.tile::<1, P, KIND, SPAN>(of, at..at + values, token, tokens.start),
                        (2, _) => self.tile::<2, P, KIND, SPAN>(of, at..at + values, token, tokens.start),
                        (5.., Isa::Avx512) if P == 1 => {
                            self.tile::<TILE, P, KIND, SPAN>(of, at..at + values, token, tokens.start)
                        }
                        _ => self.tile::<4, P, KIND, SPAN>(of, at..at + values, token, tokens.start),
                    }
                };
            }
        }
    }

    /// All of a panel's results, for few rows of activations.
    ///
    /// # Safety
    ///
    /// The panel is whole, and there is room for as many results as rows lie side by side, `[abreast, 16]`.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn few<const KIND: u8, const SPAN: usize>(&self, panel: &Packed<'_>, results: *mut f32) {
        let of = self.activations;
        // SAFETY: the processor is supported; the caller vouches for the rest.
        unsafe {
            match (self.isa, of.layout.abreast, self.m) {
                (Isa::Avx2, _, 1) => avx2::few::<1, KIND, SPAN>(of, panel, results),
                (Isa::Avx2, ..) => avx2::few::<2, KIND, SPAN>(of, panel, results),
                (Isa::Avx512, 1, _) => avx512::few::<1, KIND, SPAN>(of, panel, results),
                (Isa::Avx512, 2, _) => avx512::few::<2, KIND, SPAN>(of, panel, results),
                (Isa::Avx512, 3, _) => avx512::few::<3, KIND, SPAN>(of, panel, results),
                (Isa::Avx512, 4, _) => avx512::few::<4, KIND, SPAN>(of, panel, results),
                (Isa::Avx512, 8, _) => avx512::few::<8, KIND, SPAN>(of, panel, results),
                (Isa::Avx512, ..) => avx512::few::<WIDE, KIND, SPAN>(of, panel, results),
            }
        }
    }

    /// Adds what some values of unpacked panels give to the results of `T` rows of activations, of which there are those from
    /// `first` on; says how many rows these were.
    ///
    /// # Safety
    ///
    /// Panels have these values and scales, and room for as many results.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn tile<const T: usize, const P: usize, const KIND: u8, const SPAN: usize>(
        &self,
        of: &mut [OfPanel],
        values: Range<usize>,
        token: usize,
        first: usize,
    ) -> usize {
        let spans = values.start / SPAN..values.end / SPAN;
        let rows = self.activations.at(token, values.start, SPAN);
        let result = |of: &mut OfPanel| of.acc[token - first..].as_mut_ptr().cast::<f32>();
        // SAFETY: the caller vouches for it.
        unsafe {
            match self.isa {
                Isa::Avx2 => {
                    for of in &mut of[..P] {
                        let results = result(of);
                        avx2::tile::<T, KIND, SPAN>(
                            rows,
                            of.unpacked.as_ptr().cast(),
                            &of.scales,
                            spans.clone(),
                            results,
                        );
                    }
                }
                Isa::Avx512 => {
                    let results: [_; P] = std::array::from_fn(|p| result(&mut of[p]));
                    let panels = std::array::from_fn(|p| (of[p].unpacked.as_ptr().cast(), &of[p].scales));
                    avx512::tile::<T, P, SPAN>(rows, panels, spans, results);
                }
            }
        }
        T
    }

    /// Does to a panel's results what comes behind the product, and writes them.
    #[target_feature(enable = "avx2,fma,f16c")]
    fn finish(
        &self,
        rows: PanelRows,
        tokens: &Range<usize>,
        acc: &[[f32; PANEL]],
        factors: Option<&[[f32; PANEL]]>,
    ) {
        let n = self.weights.n;
        let gathered = |values: &[f32]| std::array::from_fn(|i| values[rows.row(i)]);
        let bias = self.bias.map(gathered);
        let (bias, acc, beta) = (bias.as_ref(), &acc[..tokens.len()], self.beta);
        if rows.step == 1 && rows.n == PANEL {
            let at = tokens.start * n + rows.first;
            let (plus, out) = (self.plus.map(|plus| plus[at..].as_ptr()), self.out.at(at));
            // SAFETY: results and what is added to them are `[m, n]`; the panel's columns are within.
            return unsafe { self.apply(&Finish { acc, bias, beta, factors, plus, out, n }) };
        }
        for (i, token) in tokens.clone().enumerate() {
            let (acc, factors) = (&acc[i..=i], factors.map(|factors| &factors[i..=i]));
            let (plus, mut y) = (self.plus.map(|plus| gathered(&plus[token * n..][..n])), [0.0; PANEL]);
            let (plus, out) = (plus.as_ref().map(|plus| plus.as_ptr()), y.as_mut_ptr());
            // SAFETY: all are one row.
            unsafe { self.apply(&Finish { acc, bias, beta, factors, plus, out, n: PANEL }) };
            for (i, y) in y[..rows.n].iter().enumerate() {
                // SAFETY: within the rows and columns of this call.
                unsafe { *self.out.at(token * n + rows.row(i)) = *y };
            }
        }
    }

    /// Writes rows of results.
    ///
    /// # Safety
    ///
    /// There are as many rows of what is added, and to write to.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn apply(&self, of: &Finish<'_>) {
        // SAFETY: the processor is supported; the caller vouches for the rest.
        unsafe {
            match self.isa {
                Isa::Avx2 => avx2::finish(of),
                Isa::Avx512 => avx512::finish(of),
            }
        }
    }
}
