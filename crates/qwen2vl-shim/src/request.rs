//! An inference request whose inputs lie in memory of its own.

use std::collections::HashMap;
use std::ffi::{CStr, CString, c_void};
use std::ptr::{self, NonNull};
use std::sync::Arc;

use memmap2::MmapMut;

use crate::ffi::{MAX_RANK, c_string, message, name_or_null, openvino};
use crate::kernels::Running;
use crate::{Element, Error, KvCache, Model, Sequences};

/// Memory that an input is bound to; public in name only, for the sealed trait.
#[doc(hidden)]
pub enum Buffer {
    F32(Vec<f32>),
    I64(Vec<i64>),
    I32(Vec<i32>),
    Mapped(MmapMut),
}

/// A type of values that inputs have.
pub trait Value: Copy + Default + sealed::Sealed {}

mod sealed {
    use super::{Buffer, Element};

    pub trait Sealed: Sized {
        const ELEMENT: Element;
        fn take(buffer: Option<Buffer>) -> Vec<Self>;
        fn wrap(values: Vec<Self>) -> Buffer;
    }
}

macro_rules! value {
    ($type:ty, $variant:ident) => {
        impl Value for $type {}
        impl sealed::Sealed for $type {
            const ELEMENT: Element = Element::$variant;
            fn take(buffer: Option<Buffer>) -> Vec<Self> {
                match buffer {
                    Some(Buffer::$variant(values)) => values,
                    _ => Vec::new(),
                }
            }
            fn wrap(values: Vec<Self>) -> Buffer {
                Buffer::$variant(values)
            }
        }
    };
}
value!(f32, F32);
value!(i64, I64);
value!(i32, I32);

/// An inference request and the memory of its inputs.
pub struct Request {
    pub(crate) model: Arc<Model>,
    pub(crate) raw: NonNull<c_void>,
    // Freed after the request, which is freed in `drop`.
    pub(crate) inputs: HashMap<CString, Buffer>,
}

// SAFETY: a request may be used by any one thread at a time, which `&mut` ensures.
unsafe impl Send for Request {}

impl Request {
    /// Sets an input, the only one where `name` is empty, that `fill` writes in full; what it held before is left there, as far as it fits, and zeros after it.
    ///
    /// # Errors
    ///
    /// [`Error::OpenVino`], [`Error::Nul`].
    pub fn set<T: Value, R>(
        &mut self,
        name: &str,
        dims: &[usize],
        fill: impl FnOnce(&mut [T]) -> R,
    ) -> Result<R, Error> {
        let key = c_string(name)?;
        let mut values = T::take(self.inputs.remove(&key));
        values.resize(dims.iter().product(), T::default());
        let result = fill(&mut values);
        // A `Vec` keeps its memory when it is moved.
        let pointer = values.as_mut_ptr().cast::<c_void>();
        self.inputs.insert(key.clone(), T::wrap(values));
        self.bind(&key, T::ELEMENT, dims, pointer)?;
        Ok(result)
    }

    /// Binds an input to zeros that take no memory until they are written; for KV caches.
    ///
    /// # Errors
    ///
    /// [`Error::OpenVino`], also where the system has not so much address space.
    pub fn set_zeros(&mut self, name: &str, element: Element, dims: &[usize]) -> Result<(), Error> {
        let key = c_string(name)?;
        let values = dims.iter().try_fold(1usize, |n, d| n.checked_mul(*d)).unwrap_or(usize::MAX);
        let n = element.bytes(values);
        let action = || format!("reserve {n} bytes for {name}");
        let mut map = MmapMut::map_anon(n.max(1)).map_err(|e| openvino(action())(e.to_string()))?;
        let pointer = map.as_mut_ptr().cast::<c_void>();
        self.inputs.insert(key.clone(), Buffer::Mapped(map));
        self.bind(&key, element, dims, pointer)
    }

    /// Binds an input; an empty name is the only one's.
    fn bind(
        &mut self,
        name: &CStr,
        element: Element,
        dims: &[usize],
        data: *mut c_void,
    ) -> Result<(), Error> {
        let dims: Vec<u64> = dims.iter().map(|d| *d as u64).collect();
        let rank = dims.len() as u64;
        let bound = message(
            // SAFETY: `data` points to as many values of the type as `dims` say, in a buffer that `inputs` keeps until
            // another is bound to the name or the request is freed.
            |text, n| unsafe {
                (self.model.shim.functions.bind)(
                    self.raw.as_ptr(),
                    name_or_null(name),
                    element.code(),
                    dims.as_ptr(),
                    rank,
                    data,
                    text,
                    n,
                )
            },
            |code| *code != 0,
        );
        bound.map(|_| ()).map_err(openvino(format!("set input {}", name.to_string_lossy())))
    }

    /// Copies parts of all inputs bound by [`Request::set_zeros`], each of which consists of `n` parts of equal length:
    /// of every pair the first to the second.
    pub fn copy_parts(&mut self, n: usize, pairs: &[(u32, u32)]) {
        for buffer in self.inputs.values_mut() {
            let Buffer::Mapped(map) = buffer else { continue };
            let part = map.len() / n.max(1);
            for &(from, to) in pairs {
                let (from, to) = (from as usize * part, to as usize * part);
                map.copy_within(from..from + part, to);
            }
        }
    }

    /// Runs the model.
    ///
    /// # Errors
    ///
    /// [`Error::OpenVino`].
    pub fn infer(&mut self) -> Result<(), Error> {
        let done = message(
            // SAFETY: the request lives; its inputs' memory is kept in `inputs`.
            |text, n| unsafe { (self.model.shim.functions.infer)(self.raw.as_ptr(), text, n) },
            |code| *code != 0,
        );
        done.map(|_| ()).map_err(openvino("run the model"))
    }

    /// Runs a model whose attentions are paged and the kernels', on a cache that has room for the sequences.
    ///
    /// # Errors
    ///
    /// [`Error::OpenVino`].
    pub fn infer_on(&mut self, cache: &mut KvCache, sequences: &Sequences) -> Result<(), Error> {
        let running = Running::on(cache, sequences);
        // SAFETY: cache and sequences are borrowed until it returns.
        unsafe { self.infer_in(running) }
    }

    /// Runs the model, but for what kernels have not begun when `stopped` says so; whether it came to its end. Outputs are not to be
    /// looked at where it did not.
    ///
    /// # Errors
    ///
    /// [`Error::OpenVino`].
    pub fn infer_until(&mut self, stopped: &(dyn Fn() -> bool + Sync)) -> Result<bool, Error> {
        // SAFETY: `stopped` is borrowed until it returns.
        unsafe { self.infer_in(Running::until(stopped)) }?;
        Ok(!stopped())
    }

    /// # Safety
    ///
    /// As that of [`Context::during`](crate::kernels::Context::during).
    unsafe fn infer_in(&mut self, running: Running) -> Result<(), Error> {
        let model = Arc::clone(&self.model);
        match &model.context {
            // SAFETY: the caller vouches for it.
            Some(context) => unsafe { context.during(running, || self.infer()) },
            None => self.infer(),
        }
    }

    /// An f32 output of the last run, the only one where `name` is empty, and its shape.
    ///
    /// # Errors
    ///
    /// [`Error::OpenVino`], also for an output of another type.
    pub fn output(&mut self, name: &str) -> Result<(Vec<usize>, &[f32]), Error> {
        let key = c_string(name)?;
        let (mut data, mut dims, mut rank) = (ptr::null(), [0u64; MAX_RANK], 0u64);
        let read = message(
            // SAFETY: the out pointers are valid and `dims` has room for the eight dimensions that the shim allows.
            |text, n| unsafe {
                (self.model.shim.functions.output)(
                    self.raw.as_ptr(),
                    name_or_null(&key),
                    &mut data,
                    dims.as_mut_ptr(),
                    &mut rank,
                    text,
                    n,
                )
            },
            |code| *code != 0,
        );
        read.map_err(openvino(format!("read output {name}")))?;
        let dims: Vec<usize> = dims[..(rank as usize).min(MAX_RANK)].iter().map(|d| *d as usize).collect();
        let n: usize = dims.iter().product();
        if n == 0 || data.is_null() {
            return Ok((dims, &[]));
        }
        // SAFETY: the tensor has that many f32 values, and stays until the request runs again, for which `&mut` is
        // needed.
        Ok((dims, unsafe { std::slice::from_raw_parts(data, n) }))
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        // SAFETY: made by `q2v_request`, freed once.
        unsafe { (self.model.shim.functions.request_free)(self.raw.as_ptr()) }
    }
}
