//! Rows of a compressed table, read where its file is mapped.

use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::Arc;

use qwen2vl_kernels::Weights;

use crate::Shim;

/// Rows of numbers, looked up.
pub struct Table {
    pub(crate) shim: Arc<Shim>,
    pub(crate) raw: NonNull<c_void>,
    /// Valid as long as `raw`; `None` only before the table is handed out.
    pub(crate) weights: Option<Weights<'static>>,
}

// SAFETY: it is only read.
unsafe impl Send for Table {}
// SAFETY: as above.
unsafe impl Sync for Table {}

impl Table {
    /// Rows and values of a row.
    pub fn shape(&self) -> (usize, usize) {
        self.weights.as_ref().map_or((0, 0), |weights| (weights.n(), weights.k()))
    }

    /// Writes a row.
    ///
    /// # Panics
    ///
    /// If there is no such row, or `out` has another length than rows have.
    pub fn row(&self, row: usize, out: &mut [f32]) {
        if let Some(weights) = &self.weights {
            weights.dequantize(row, out);
        }
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        self.weights = None;
        // SAFETY: made by `q2v_table`, freed once; nothing refers to it any more.
        unsafe { (self.shim.functions.table_free)(self.raw.as_ptr()) }
    }
}
