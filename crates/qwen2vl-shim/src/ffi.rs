//! The C functions of shim.cpp, as they are, and what calls of them have in common.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::Path;
use std::ptr;

use libloading::Library;

use crate::Error;
use crate::callbacks::{RawKernels, RawWeights};

/// What shim.cpp says of itself; raised with every change of a signature.
pub(crate) const ABI: u32 = 8;

/// Longest message taken over from OpenVINO, bytes.
pub(crate) const MESSAGE: usize = 4096;

pub(crate) const MAX_RANK: usize = 8;

#[repr(C)]
pub(crate) struct RawProperty {
    pub key: *const c_char,
    pub value: *const c_char,
}

#[repr(C)]
pub(crate) struct RawOptions {
    pub xml: *const c_char,
    pub weights: *const c_char,
    pub device: *const c_char,
    pub properties: *const RawProperty,
    pub n_properties: u64,
    pub paged: u32,
    pub unmasked: u32,
    pub kernels: *const RawKernels,
    pub mapped: *const u8,
    pub mapped_bytes: u64,
    pub blob: *const u8,
    pub blob_bytes: u64,
}

#[repr(C)]
#[derive(Default)]
pub(crate) struct RawCompiled {
    pub products: u64,
    pub attentions: u64,
    pub flattened: u64,
    pub read_back: u32,
}

#[repr(C)]
pub(crate) struct RawPort {
    pub name: [c_char; 64],
    pub element: u32,
    pub rank: u32,
    pub dims: [i64; MAX_RANK],
}

type Core = unsafe extern "C" fn(*mut c_char, u64) -> *mut c_void;
type Free = unsafe extern "C" fn(*mut c_void);
type Compile =
    unsafe extern "C" fn(*mut c_void, *const RawOptions, *mut RawCompiled, *mut c_char, u64) -> *mut c_void;
type Export = unsafe extern "C" fn(*mut c_void, *const c_char, *mut c_char, u64) -> c_int;
type ReleaseMemory = unsafe extern "C" fn(*mut c_void, *mut c_char, u64) -> c_int;
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

pub(crate) struct Functions {
    pub core: Core,
    pub table: NewTable,
    pub table_free: Free,
    pub core_free: Free,
    pub compile: Compile,
    pub export: Export,
    pub release_memory: ReleaseMemory,
    pub model_free: Free,
    pub port: DescribePort,
    pub request: NewRequest,
    pub request_free: Free,
    pub bind: Bind,
    pub infer: Infer,
    pub output: Output,
    // What the functions are in; never unloaded before them.
    _library: Library,
}

impl Functions {
    pub(crate) fn load(path: &Path) -> Result<Self, Error> {
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
            export: function!(b"q2v_export\0"),
            release_memory: function!(b"q2v_release_memory\0"),
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
pub(crate) fn message<R>(
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

pub(crate) fn openvino(action: impl Into<String>) -> impl FnOnce(String) -> Error {
    let action = action.into();
    move |message| Error::OpenVino { action, message }
}

pub(crate) fn c_string(text: &str) -> Result<CString, Error> {
    CString::new(text).map_err(|_| Error::Nul { text: text.to_owned() })
}

pub(crate) fn name_or_null(name: &CStr) -> *const c_char {
    if name.is_empty() { ptr::null() } else { name.as_ptr() }
}
