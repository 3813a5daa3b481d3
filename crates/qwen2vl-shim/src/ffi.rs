//! The C functions of shim.cpp and safe types around them.

use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::Path;
use std::ptr::{self, NonNull};
use std::sync::{Arc, Mutex};

use libloading::Library;
use memmap2::MmapMut;
use qwen2vl_kernels::Weights;

use crate::products::{RawKernels, RawWeights};
use crate::{Element, Error, Kernels, Port, build};

/// What shim.cpp says of itself; raised with every change of a signature.
const ABI: u32 = 2;

/// Longest message taken over from OpenVINO, bytes.
const MESSAGE: usize = 4096;

const MAX_RANK: usize = 8;

#[repr(C)]
struct RawProperty {
    key: *const c_char,
    value: *const c_char,
}

#[repr(C)]
struct RawOptions {
    xml: *const c_char,
    weights: *const c_char,
    device: *const c_char,
    properties: *const RawProperty,
    n_properties: u64,
    paged: u32,
    kernels: *const RawKernels,
}

#[repr(C)]
struct RawPort {
    name: [c_char; 64],
    element: u32,
    rank: u32,
    dims: [i64; MAX_RANK],
}

type Core = unsafe extern "C" fn(*mut c_char, u64) -> *mut c_void;
type Free = unsafe extern "C" fn(*mut c_void);
type Compile =
    unsafe extern "C" fn(*mut c_void, *const RawOptions, *mut u64, *mut c_char, u64) -> *mut c_void;
type DescribePort = unsafe extern "C" fn(*mut c_void, c_int, u64, *mut RawPort, *mut c_char, u64) -> c_int;
type NewRequest = unsafe extern "C" fn(*mut c_void, *mut c_char, u64) -> *mut c_void;
type Bind = unsafe extern "C" fn(
    *mut c_void,
    *const c_char,
    u32,
    *const u64,
    u64,
    *mut c_void,
    *mut c_char,
    u64,
) -> c_int;
type Infer = unsafe extern "C" fn(*mut c_void, *mut c_char, u64) -> c_int;
type Output = unsafe extern "C" fn(
    *mut c_void,
    *const c_char,
    *mut *const f32,
    *mut u64,
    *mut u64,
    *mut c_char,
    u64,
) -> c_int;

type NewTable = unsafe extern "C" fn(
    *mut c_void,
    *const c_char,
    *const c_char,
    *mut RawWeights,
    *mut c_char,
    u64,
) -> *mut c_void;

struct Functions {
    core: Core,
    table: NewTable,
    table_free: Free,
    core_free: Free,
    compile: Compile,
    model_free: Free,
    port: DescribePort,
    request: NewRequest,
    request_free: Free,
    bind: Bind,
    infer: Infer,
    output: Output,
    // What the functions are in; never unloaded before them.
    _library: Library,
}

impl Functions {
    fn load(path: &Path) -> Result<Self, Error> {
        let fail = |reason: String| Error::Load { path: path.to_owned(), reason };
        // SAFETY: the library was built from shim.cpp, whose initializers do nothing but register types.
        let library = unsafe { Library::new(path) }.map_err(|e| fail(e.to_string()))?;
        macro_rules! function {
            ($name:literal) => {
                // SAFETY: the signature is that of shim.cpp of this ABI.
                *unsafe { library.get($name) }.map_err(|e| fail(e.to_string()))?
            };
        }
        let abi: unsafe extern "C" fn() -> u32 = function!(b"q2v_abi\0");
        // SAFETY: it takes nothing and returns a number.
        let abi = unsafe { abi() };
        if abi != ABI {
            return Err(fail(format!("it speaks version {abi} of the interface, expected {ABI}")));
        }
        Ok(Self {
            core: function!(b"q2v_core\0"),
            table: function!(b"q2v_table\0"),
            table_free: function!(b"q2v_table_free\0"),
            core_free: function!(b"q2v_core_free\0"),
            compile: function!(b"q2v_compile\0"),
            model_free: function!(b"q2v_model_free\0"),
            port: function!(b"q2v_port\0"),
            request: function!(b"q2v_request\0"),
            request_free: function!(b"q2v_request_free\0"),
            bind: function!(b"q2v_bind\0"),
            infer: function!(b"q2v_infer\0"),
            output: function!(b"q2v_output\0"),
            _library: library,
        })
    }
}

/// Calls a function that writes what failed into a buffer; `Err` with the text where `call` says so.
fn message<R>(
    call: impl FnOnce(*mut c_char, u64) -> R,
    failed: impl FnOnce(&R) -> bool,
) -> Result<R, String> {
    let mut buffer = vec![0 as c_char; MESSAGE];
    let result = call(buffer.as_mut_ptr(), MESSAGE as u64);
    if !failed(&result) {
        return Ok(result);
    }
    // SAFETY: the shim ends what it writes with a NUL within the buffer, which began as zeros.
    Err(unsafe { CStr::from_ptr(buffer.as_ptr()) }.to_string_lossy().into_owned())
}

fn openvino(action: impl Into<String>) -> impl FnOnce(String) -> Error {
    let action = action.into();
    move |message| Error::OpenVino { action, message }
}

fn c_string(text: &str) -> Result<CString, Error> {
    CString::new(text).map_err(|_| Error::Nul { text: text.to_owned() })
}

fn name_or_null(name: &CStr) -> *const c_char {
    if name.is_empty() { ptr::null() } else { name.as_ptr() }
}

/// How a model is compiled.
#[derive(Clone)]
pub struct CompileOptions<'a> {
    /// The graph of the IR.
    pub xml: &'a str,
    /// Its weights.
    pub weights: &'a str,
    /// OpenVINO's device name.
    pub device: &'a str,
    /// OpenVINO's properties by their keys.
    pub properties: &'a [(&'a str, String)],
    /// Whether stateful attention becomes paged, and logits are computed only of rows that the new input
    /// `logits_indices` names.
    pub paged: bool,
    /// What computes the products of compressed weights, as far as it can; OpenVINO does where this is `None`.
    pub kernels: Option<Arc<Kernels>>,
}

/// The loaded shim with an OpenVINO core of its own.
pub struct Shim {
    functions: Functions,
    core: NonNull<c_void>,
}

// SAFETY: `ov::Core` may be used by several threads, for compiling as well.
unsafe impl Send for Shim {}
// SAFETY: as above.
unsafe impl Sync for Shim {}

impl Shim {
    /// Builds the shim for the OpenVINO whose C library is at `openvino_c`, which must be loaded already, unless `folder`
    /// has it, and loads it.
    ///
    /// # Errors
    ///
    /// [`Error::Build`] without headers or a C++ compiler, [`Error::Load`], [`Error::OpenVino`].
    pub fn start(openvino_c: &Path, folder: &Path) -> Result<Arc<Self>, Error> {
        let functions = Functions::load(&build::built(openvino_c, folder)?)?;
        // SAFETY: buffer and length belong together.
        let core = message(|text, n| unsafe { (functions.core)(text, n) }, |core| core.is_null())
            .map_err(openvino("start"))?;
        let core = NonNull::new(core).ok_or_else(|| openvino("start")("no core".to_owned()))?;
        Ok(Arc::new(Self { functions, core }))
    }

    /// Reads an IR, transforms and compiles it.
    ///
    /// # Errors
    ///
    /// [`Error::OpenVino`].
    pub fn compile(self: &Arc<Self>, options: &CompileOptions<'_>) -> Result<Arc<Model>, Error> {
        let (xml, weights, device) =
            (c_string(options.xml)?, c_string(options.weights)?, c_string(options.device)?);
        let texts = options.properties.iter().map(|(key, value)| Ok((c_string(key)?, c_string(value)?)));
        let texts = texts.collect::<Result<Vec<_>, Error>>()?;
        let properties: Vec<RawProperty> = texts
            .iter()
            .map(|(key, value)| RawProperty { key: key.as_ptr(), value: value.as_ptr() })
            .collect();
        let kernels = options.kernels.as_deref().map(RawKernels::new);
        let raw = RawOptions {
            xml: xml.as_ptr(),
            weights: weights.as_ptr(),
            device: device.as_ptr(),
            properties: properties.as_ptr(),
            n_properties: properties.len() as u64,
            paged: u32::from(options.paged),
            kernels: kernels.as_ref().map_or(ptr::null(), ptr::from_ref),
        };
        let mut replaced = 0;
        let model = message(
            // SAFETY: all pointers of `raw` live until the call returns, and the core as long as `self`.
            |text, n| unsafe { (self.functions.compile)(self.core.as_ptr(), &raw, &mut replaced, text, n) },
            |model| model.is_null(),
        );
        let model = model.map_err(openvino(format!("compile {}", options.xml)))?;
        let model = NonNull::new(model).ok_or_else(|| openvino("compile")("no model".to_owned()))?;
        Ok(Arc::new(Model {
            shim: Arc::clone(self),
            model,
            requesting: Mutex::new(()),
            replaced: replaced as usize,
            _kernels: options.kernels.clone(),
        }))
    }
}

impl Shim {
    /// The table of a model that looks rows up by number, where its weights are compressed in a form that is known; it is
    /// read where its file is mapped.
    ///
    /// # Errors
    ///
    /// [`Error::OpenVino`] if the model cannot be read.
    pub fn table(self: &Arc<Self>, xml: &str, weights: &str) -> Result<Option<Table>, Error> {
        let (xml_path, weights_path) = (c_string(xml)?, c_string(weights)?);
        let mut raw = RawWeights::EMPTY;
        let mut text = vec![0 as c_char; MESSAGE];
        // SAFETY: all pointers live until the call returns.
        let table = unsafe {
            (self.functions.table)(
                self.core.as_ptr(),
                xml_path.as_ptr(),
                weights_path.as_ptr(),
                &mut raw,
                text.as_mut_ptr(),
                MESSAGE as u64,
            )
        };
        let Some(raw_table) = NonNull::new(table) else {
            // SAFETY: the shim ends what it writes with a NUL within the buffer, which began as zeros.
            let text = unsafe { CStr::from_ptr(text.as_ptr()) }.to_string_lossy().into_owned();
            return if text.is_empty() { Ok(None) } else { Err(openvino(format!("read {xml}"))(text)) };
        };
        // SAFETY: the shim has filled it; the memory stays as long as the table, which frees it last.
        let weights = unsafe { raw.checked() };
        let table = Table { shim: Arc::clone(self), raw: raw_table, weights };
        Ok(table.weights.is_some().then_some(table))
    }
}

/// Rows of numbers, looked up.
pub struct Table {
    shim: Arc<Shim>,
    raw: NonNull<c_void>,
    /// Valid as long as `raw`; `None` only before the table is handed out.
    weights: Option<Weights<'static>>,
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

impl Drop for Shim {
    fn drop(&mut self) {
        // SAFETY: made by `q2v_core`; models hold an Arc of the shim, so none is left.
        unsafe { (self.functions.core_free)(self.core.as_ptr()) }
    }
}

/// A compiled model.
pub struct Model {
    shim: Arc<Shim>,
    model: NonNull<c_void>,
    requesting: Mutex<()>,
    replaced: usize,
    // Freed after the model, which is freed in `drop`.
    _kernels: Option<Arc<Kernels>>,
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
    model: Arc<Model>,
    raw: NonNull<c_void>,
    // Freed after the request, which is freed in `drop`.
    inputs: HashMap<CString, Buffer>,
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
        let n = dims.iter().try_fold(element.bytes(), |n, d| n.checked_mul(*d)).unwrap_or(usize::MAX);
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
