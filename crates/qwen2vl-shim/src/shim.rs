//! The loaded shim: compiles models, finds tables.

use std::ffi::{CStr, c_char, c_void};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::ptr::{self, NonNull};
use std::sync::{Arc, Mutex};

use memmap2::Mmap;

use crate::callbacks::{RawKernels, RawWeights};
use crate::ffi::{Functions, MESSAGE, RawCompiled, RawOptions, RawProperty, c_string, message, openvino};
use crate::kept::Kept;
use crate::kernels::Context;
use crate::{Error, Kernels, Model, Table, build};

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
    /// `logits_indices` names. With kernels that can, it is theirs, and each run needs a [`KvCache`](crate::KvCache), see
    /// [`Request::infer_on`](crate::Request::infer_on); else caches are inputs.
    pub paged: bool,
    /// Whether the masks that attention is given will all be zeros, if it is not paged.
    pub unmasked: bool,
    /// What computes the products of compressed weights and attention without masks, as far as it can; OpenVINO does where this is
    /// `None`.
    pub kernels: Option<Arc<Kernels>>,
    /// Where compiled models are kept that are read back the next time, if there are kernels: these hold no weights.
    pub kept_in: Option<&'a Path>,
}

/// The loaded shim with an OpenVINO core of its own.
pub struct Shim {
    pub(crate) functions: Functions,
    pub(crate) core: NonNull<c_void>,
    library: PathBuf,
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
        let library = build::built(openvino_c, folder)?;
        let functions = Functions::load(&library)?;
        // SAFETY: buffer and length belong together.
        let core = message(|text, n| unsafe { (functions.core)(text, n) }, |core| core.is_null())
            .map_err(openvino("start"))?;
        let core = NonNull::new(core).ok_or_else(|| openvino("start")("no core".to_owned()))?;
        Ok(Arc::new(Self { functions, core, library }))
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
        let context = options.kernels.clone().map(|kernels| Box::new(Context::new(kernels)));
        let kernels = context.as_deref().map(RawKernels::new);
        let mapped = kernels.as_ref().map(|_| mapped(options.weights)).transpose()?;
        let kept = options.kernels.as_ref().and_then(|_| Kept::new(options, &self.library));
        let blob = kept.as_ref().and_then(Kept::read);
        let raw = RawOptions {
            xml: xml.as_ptr(),
            weights: weights.as_ptr(),
            device: device.as_ptr(),
            properties: properties.as_ptr(),
            n_properties: properties.len() as u64,
            paged: u32::from(options.paged),
            unmasked: u32::from(options.unmasked),
            kernels: kernels.as_ref().map_or(ptr::null(), ptr::from_ref),
            mapped: mapped.as_ref().map_or(ptr::null(), |mapped| mapped.as_ptr()),
            mapped_bytes: mapped.as_ref().map_or(0, |mapped| mapped.len() as u64),
            blob: blob.as_ref().map_or(ptr::null(), Vec::as_ptr),
            blob_bytes: blob.as_ref().map_or(0, |blob| blob.len() as u64),
        };
        let mut about = RawCompiled::default();
        let model = message(
            // SAFETY: all pointers of `raw` live until the call returns, and the core as long as `self`.
            |text, n| unsafe { (self.functions.compile)(self.core.as_ptr(), &raw, &mut about, text, n) },
            |model| model.is_null(),
        );
        let model = model.map_err(openvino(format!("compile {}", options.xml)))?;
        let model = NonNull::new(model).ok_or_else(|| openvino("compile")("no model".to_owned()))?;
        let model = Arc::new(Model {
            shim: Arc::clone(self),
            model,
            requesting: Mutex::new(()),
            replaced: about.products as usize,
            attentions: about.attentions as usize,
            flattened: about.flattened as usize,
            context,
            _blob: blob,
            mapped,
        });
        if let Some(kept) = kept.filter(|_| about.read_back == 0 && about.products > 0) {
            kept.write(&model);
        }
        Ok(model)
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

/// A file of weights; what it holds is not read yet.
fn mapped(path: &str) -> Result<Mmap, Error> {
    let failed = |e: std::io::Error| openvino(format!("read {path}"))(e.to_string());
    let file = File::open(path).map_err(failed)?;
    // SAFETY: model files are not written to while they are used, as OpenVINO assumes of those that it maps itself.
    unsafe { Mmap::map(&file) }.map_err(failed)
}

impl Drop for Shim {
    fn drop(&mut self) {
        // SAFETY: made by `q2v_core`; models hold an Arc of the shim, so none is left.
        unsafe { (self.functions.core_free)(self.core.as_ptr()) }
    }
}
