//! A compiled model and its ports.

use std::collections::HashMap;
use std::ffi::{CStr, c_int, c_void};
use std::path::Path;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex};

use memmap2::{Mmap, UncheckedAdvice};

use crate::ffi::{MAX_RANK, RawPort, c_string, message, openvino};
use crate::kernels::Context;
use crate::{Element, Error, Port, Request, Shim};

/// A compiled model.
pub struct Model {
    pub(crate) shim: Arc<Shim>,
    pub(crate) model: NonNull<c_void>,
    pub(crate) requesting: Mutex<()>,
    pub(crate) replaced: usize,
    pub(crate) attentions: usize,
    pub(crate) flattened: usize,
    // Freed after the model, which is freed in `drop`.
    pub(crate) context: Option<Box<Context>>,
    // OpenVINO reads constants where they lie in it.
    pub(crate) _blob: Option<Vec<u8>>,
    // Weights that kernels read where they lie.
    pub(crate) mapped: Option<Mmap>,
}

// SAFETY: an `ov::CompiledModel` may be used by several threads; creating requests is behind a lock on top.
unsafe impl Send for Model {}
// SAFETY: as above.
unsafe impl Sync for Model {}

impl Model {
    /// Products that the caller's kernels compute.
    pub fn replaced(&self) -> usize {
        self.replaced
    }

    /// Convolutions of whole inputs that OpenVINO computes as products.
    pub fn flattened(&self) -> usize {
        self.flattened
    }

    /// Attentions that the caller's kernels compute.
    pub fn attentions(&self) -> usize {
        self.attentions
    }

    /// Writes what [`Shim::compile`] makes the same model of without its graph.
    pub(crate) fn export(&self, path: &Path) -> Result<(), Error> {
        let to = c_string(&path.to_string_lossy())?;
        message(
            // SAFETY: the path lives until the call returns.
            |text, n| unsafe { (self.shim.functions.export)(self.model.as_ptr(), to.as_ptr(), text, n) },
            |code| *code != 0,
        )
        .map_err(openvino("export a compiled model"))?;
        Ok(())
    }

    /// Gives back the memory that requests worked in, which OpenVINO otherwise keeps for the next one.
    ///
    /// # Errors
    ///
    /// [`Error::OpenVino`], as while a request runs.
    pub fn release_memory(&self) -> Result<(), Error> {
        message(
            // SAFETY: the model lives as long as `self`.
            |text, n| unsafe { (self.shim.functions.release_memory)(self.model.as_ptr(), text, n) },
            |code| *code != 0,
        )
        .map_err(openvino("release memory"))?;
        Ok(())
    }

    /// Takes the weights that kernels read out of this process's memory. They stay in the system's page cache as long as there
    /// is room, and are back when they are used.
    pub fn release_weights(&self) {
        #[cfg(unix)]
        if let Some(mapped) = &self.mapped {
            // SAFETY: nobody writes to the pages of a file mapped to be read, so that they come back as they were. Where it
            // fails nothing has changed.
            _ = unsafe { mapped.unchecked_advise(UncheckedAdvice::DontNeed) };
        }
    }

    /// Its inputs.
    ///
    /// # Errors
    ///
    /// [`Error::OpenVino`].
    pub fn inputs(&self) -> Result<Vec<Port>, Error> {
        self.ports(false)
    }

    /// Its outputs.
    ///
    /// # Errors
    ///
    /// [`Error::OpenVino`].
    pub fn outputs(&self) -> Result<Vec<Port>, Error> {
        self.ports(true)
    }

    fn ports(&self, outputs: bool) -> Result<Vec<Port>, Error> {
        let mut ports = Vec::new();
        loop {
            let mut raw = RawPort { name: [0; 64], element: 0, rank: 0, dims: [0; MAX_RANK] };
            let index = ports.len() as u64;
            let end = message(
                // SAFETY: `raw` is written within the call.
                |text, n| unsafe {
                    (self.shim.functions.port)(
                        self.model.as_ptr(),
                        c_int::from(outputs),
                        index,
                        &mut raw,
                        text,
                        n,
                    )
                },
                |code| *code > 1,
            );
            if end.map_err(openvino("describe an input or output"))? == 1 {
                return Ok(ports);
            }
            // SAFETY: the shim ends the name with a NUL within its 64 bytes.
            let name = unsafe { CStr::from_ptr(raw.name.as_ptr()) }.to_string_lossy().into_owned();
            let dims = raw.dims[..(raw.rank as usize).min(MAX_RANK)].iter();
            ports.push(Port {
                name,
                element: Element::of_code(raw.element),
                dims: dims.map(|d| usize::try_from(*d).ok()).collect(),
            });
        }
    }

    /// A new request without inputs.
    ///
    /// # Errors
    ///
    /// [`Error::OpenVino`].
    pub fn request(self: &Arc<Self>) -> Result<Request, Error> {
        let _one = self.requesting.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let raw = message(
            // SAFETY: the model lives as long as `self`.
            |text, n| unsafe { (self.shim.functions.request)(self.model.as_ptr(), text, n) },
            |request| request.is_null(),
        );
        let raw = raw.map_err(openvino("create a request"))?;
        let raw = NonNull::new(raw).ok_or_else(|| openvino("create a request")("none".to_owned()))?;
        Ok(Request { model: Arc::clone(self), raw, inputs: HashMap::new() })
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        // SAFETY: made by `q2v_compile`; requests hold an Arc of the model, so none is left.
        unsafe { (self.shim.functions.model_free)(self.model.as_ptr()) }
    }
}
