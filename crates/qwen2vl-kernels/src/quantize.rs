//! Rows, normalized and quantized on all threads.

use std::sync::Mutex;

use crate::activations::{Activations, Layout, RowMut};
use crate::isa::Isa;
use crate::pool::Pool;
use crate::product::Rows;
use crate::{avx2, avx512};

/// Values below which no other thread is woken.
const LEAST_VALUES: usize = 1 << 16;

/// Fills activations, which have room for the rows.
pub(crate) fn quantize(isa: Isa, of: Rows<'_>, activations: &mut Activations, pool: &Pool) {
    let Layout { k, form, abreast } = activations.layout;
    let each = |normalized: &mut Vec<f32>, x: &[f32], mut row: RowMut<'_, '_>| {
        // SAFETY: `multiply` has asked whether the processor is supported.
        unsafe {
            let mut x = x;
            if let Some(norm) = of.norm {
                normalized.resize(x.len(), 0.0);
                avx2::normalize(x, norm, normalized);
                x = normalized;
            }
            match isa {
                Isa::Avx2 => avx2::quantize(form, x, &mut row),
                Isa::Avx512 => avx512::quantize(form, x, &mut row),
            }
        }
    };
    let tiles: Vec<_> = of.x.chunks(k * abreast).zip(activations.abreast_mut()).map(Mutex::new).collect();
    let share =
        if of.x.len() < LEAST_VALUES { tiles.len() } else { tiles.len().div_ceil(pool.threads() * 4) };
    pool.run(tiles.len().div_ceil(share), &|i| {
        let mut normalized = Vec::new();
        for tile in &tiles[i * share..((i + 1) * share).min(tiles.len())] {
            let Ok(mut tile) = tile.lock() else { return };
            let (x, to) = &mut *tile;
            x.chunks_exact(k).enumerate().for_each(|(i, x)| each(&mut normalized, x, to.row(i)));
        }
    });
}
