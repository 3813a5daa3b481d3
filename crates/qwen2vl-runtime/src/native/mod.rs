//! The only place that talks to OpenVINO: compiling, requests, tensors.
//!
//! Wraps the `openvino` crate because its tensors can be aliased and viewed as any type. Here an input is written
//! through a closure that sees exactly one checked slice, an output is read through one that cannot outlive the next
//! inference, and nothing of the crate appears outside this module.

mod request;
mod signature;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use openvino::{Core, DeviceType, RwPropertyKey};
use qwen2vl_shim::{CompileOptions, Kernels, Shim, Table};

pub(crate) use request::Request;
pub(crate) use signature::{Element, Port, Signature};

use crate::{EngineKind, EngineOptions, Error, Precision, library};

/// A started OpenVINO with the properties of one engine.
pub(crate) struct Native {
    core: Core,
    device: String,
    caches: bool,
    library: PathBuf,
    options: EngineOptions,
    shim: Option<Arc<Shim>>,
    kernels: Option<Arc<Kernels>>,
}

impl Native {
    /// Loads the library and starts it.
    pub(crate) fn start(options: &EngineOptions) -> Result<Self, Error> {
        let location = library::locate(options.openvino.as_deref())?;
        library::load(&location)?;
        warn_if_untested(&location);
        let core = Core::new()
            .map_err(|e| Error::OpenVino { action: "start".to_owned(), message: e.to_string() })?;
        let mut native = Self {
            core,
            device: options.device.clone(),
            caches: false,
            library: location.path,
            options: options.clone(),
            shim: None,
            kernels: None,
        };
        native.check_device()?;
        native.configure(options)?;
        Ok(native)
    }

    fn check_device(&self) -> Result<(), Error> {
        // A compound name, as AUTO:GPU,CPU, is checked by OpenVINO itself when it compiles.
        let devices = self.core.available_devices().map_err(|e| failed("list its devices", &e))?;
        let base = self.device.split([':', '.']).next().unwrap_or_default();
        let known = devices.iter().any(|d| d.as_ref().split('.').next() == Some(base));
        if known || matches!(base, "AUTO" | "HETERO" | "MULTI" | "BATCH") {
            return Ok(());
        }
        let names: Vec<&str> = devices.iter().map(AsRef::as_ref).collect();
        Err(Error::OpenVino {
            action: format!("use device {:?}", self.device),
            message: format!("it is not on this machine, which has {}", names.join(", ")),
        })
    }

    fn configure(&mut self, options: &EngineOptions) -> Result<(), Error> {
        if let Some(threads) = inference_threads(options) {
            self.set(&RwPropertyKey::InferenceNumThreads, &threads.to_string())?;
        }
        if options.precision == Precision::F32 {
            self.set(&RwPropertyKey::HintInferencePrecision, "f32")?;
            self.set(&RwPropertyKey::Other("KV_CACHE_PRECISION".into()), "f32")?;
            self.set(&RwPropertyKey::Other("DYNAMIC_QUANTIZATION_GROUP_SIZE".into()), "0")?;
        }
        if let Some(dir) = &options.cache_dir {
            match (std::fs::create_dir_all(dir), dir.to_str()) {
                (Ok(()), Some(text)) => {
                    self.set(&RwPropertyKey::CacheDir, text)?;
                    // Weights stay in the model's file, memory-mapped: a 2B then starts with 1.5 GB less than from
                    // compiled models that carry them.
                    if let Err(error) = self.set(&RwPropertyKey::Other("CACHE_MODE".into()), "OPTIMIZE_SIZE")
                    {
                        tracing::debug!("compiled models carry their weights: {error}");
                    }
                    self.caches = true;
                }
                (Err(error), _) => {
                    tracing::warn!("compiled models are not kept: {}: {error}", dir.display());
                }
                (_, None) => tracing::warn!("compiled models are not kept: {} is not UTF-8", dir.display()),
            }
        }
        Ok(())
    }

    fn set(&mut self, key: &RwPropertyKey, value: &str) -> Result<(), Error> {
        let device = DeviceType::from(self.device.as_str());
        let action = format!("set {}={value} for {}", key.as_ref(), self.device);
        self.core.set_property(&device, key, value).map_err(|e| failed(&action, &e))
    }

    /// What the C API has no call for; built at the first use.
    pub(crate) fn shim(&mut self) -> Result<Arc<Shim>, Error> {
        if let Some(shim) = &self.shim {
            return Ok(Arc::clone(shim));
        }
        // Without a cache folder it is built again by every process.
        let folder = self.options.cache_dir.clone().unwrap_or_else(|| std::env::temp_dir().join("qwen2vl"));
        let shim = Shim::start(&self.library, &folder)?;
        Ok(Arc::clone(self.shim.insert(shim)))
    }

    /// Our own products of compressed weights; `None` where OpenVINO's are used: in f32, on other devices than the CPU, on
    /// processors that they are not made for.
    pub(crate) fn kernels(&mut self) -> Option<Arc<Kernels>> {
        let wanted = self.options.precision == Precision::Fast && self.device == "CPU";
        if self.kernels.is_none() && wanted {
            let threads = self.options.threads.unwrap_or_else(available_threads);
            self.kernels = Kernels::new(threads).map(Arc::new);
        }
        self.kernels.clone()
    }

    /// The table of a model that looks rows up, see [`Shim::table`]; only for the CPU.
    pub(crate) fn table(&mut self, xml: &Path) -> Result<Option<Table>, Error> {
        if self.device != "CPU" {
            return Ok(None);
        }
        let weights = xml.with_extension("bin");
        Ok(self.shim()?.table(text(xml)?, text(&weights)?)?)
    }

    /// Compiles an IR whose attention has masks of zeros alone: with our own products and attention where they can be had, and
    /// convolutions of whole inputs as products, else as [`Native::compile`] does.
    pub(crate) fn compile_with_kernels(
        &mut self,
        name: &'static str,
        xml: &Path,
        check: impl Fn(&Signature) -> Result<(), String>,
    ) -> Result<Compiled, Error> {
        let weights = xml.with_extension("bin");
        if self.options.engine != EngineKind::Stateful
            && let Some(kernels) = self.kernels()
            && let Ok(shim) = self.shim()
        {
            let model = shim.compile(&CompileOptions {
                xml: text(xml)?,
                weights: text(&weights)?,
                device: &self.device,
                properties: &shim_properties(&self.options),
                paged: false,
                unmasked: true,
                kernels: Some(kernels),
                kept_in: self.options.cache_dir.as_deref(),
            })?;
            check(&Signature::of_shim(&model)?)
                .map_err(|detail| Error::ModelMismatch { model: name, detail })?;
            if model.replaced() > 0 || model.flattened() > 0 {
                return Ok(Compiled { name, model: Model::Shim(model) });
            }
        }
        self.compile(name, xml, &weights, check)
    }

    /// Reads an IR and compiles it.
    ///
    /// `weights` is named apart from `xml` because an adapted graph may lie elsewhere than its weights.
    pub(crate) fn compile(
        &mut self,
        name: &'static str,
        xml: &Path,
        weights: &Path,
        check: impl FnOnce(&Signature) -> Result<(), String>,
    ) -> Result<Compiled, Error> {
        for path in [xml, weights] {
            let metadata = std::fs::metadata(path)
                .map_err(|e| Error::ModelFile { path: path.to_owned(), reason: e.to_string() })?;
            if metadata.len() == 0 {
                return Err(Error::ModelFile {
                    path: path.to_owned(),
                    reason: "the file is empty".to_owned(),
                });
            }
        }
        let model = self
            .core
            .read_model_from_file(text(xml)?, text(weights)?)
            .map_err(|e| Error::ModelFile { path: xml.to_owned(), reason: e.to_string() })?;
        check(&Signature::of(&model).map_err(|e| failed(&format!("inspect {name}"), &e))?)
            .map_err(|detail| Error::ModelMismatch { model: name, detail })?;
        let device = || DeviceType::from(self.device.as_str()).to_owned();
        let action = format!("compile {name}");
        let compiled = match self.core.compile_model(&model, device()) {
            // A full or damaged cache must not stop the work.
            Err(error) if self.caches => {
                tracing::warn!("compiling {name} again without the cache of compiled models: {error}");
                self.set(&RwPropertyKey::CacheDir, "")?;
                self.caches = false;
                let device = DeviceType::from(self.device.as_str()).to_owned();
                self.core.compile_model(&model, device).map_err(|e| failed(&action, &e))?
            }
            result => result.map_err(|e| failed(&action, &e))?,
        };
        Ok(Compiled { name, model: Model::Stock(Mutex::new(compiled)) })
    }
}

fn warn_if_untested(location: &library::LibraryLocation) {
    let info = library::LibraryInfo { version: openvino::version().build_number, devices: Vec::new() };
    if !info.is_tested() {
        tracing::warn!(
            "OpenVINO {} at {} differs from the tested {}",
            info.version,
            location.path.display(),
            library::TESTED_VERSION
        );
    }
}

fn text(path: &Path) -> Result<&str, Error> {
    // OpenVINO's C API takes paths as text, and a NUL would end it early.
    path.to_str().filter(|s| !s.contains('\0')).ok_or_else(|| Error::ModelFile {
        path: path.to_owned(),
        reason: "the path is not valid UTF-8, which OpenVINO needs".to_owned(),
    })
}

pub(crate) fn failed(action: &str, error: &openvino::InferenceError) -> Error {
    Error::OpenVino { action: action.to_owned(), message: error.to_string() }
}

/// Cores that this process may use.
fn available_threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// What OpenVINO is told about threads: what was asked for, or what a container's limit leaves of the machine's cores,
/// which OpenVINO does not look at. Otherwise the choice is its own.
fn inference_threads(options: &EngineOptions) -> Option<usize> {
    if options.threads.is_some() || options.device != "CPU" {
        return options.threads;
    }
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    below_all(available_threads(), &cpuinfo)
}

/// The threads that may be used, if the machine has more.
fn below_all(available: usize, cpuinfo: &str) -> Option<usize> {
    let all = cpuinfo.lines().filter(|line| line.starts_with("processor")).count();
    (available < all).then_some(available)
}

/// OpenVINO's properties for all models that the shim compiles.
pub(crate) fn shim_properties(options: &EngineOptions) -> Vec<(&'static str, String)> {
    let mut properties = Vec::new();
    if let Some(threads) = inference_threads(options) {
        properties.push(("INFERENCE_NUM_THREADS", threads.to_string()));
    }
    if options.precision == Precision::F32 {
        properties.push(("INFERENCE_PRECISION_HINT", "f32".to_owned()));
        properties.push(("DYNAMIC_QUANTIZATION_GROUP_SIZE", "0".to_owned()));
    }
    properties
}

/// A compiled model.
pub(crate) struct Compiled {
    name: &'static str,
    model: Model,
}

enum Model {
    /// OpenVINO allows creating requests from several threads only one at a time, hence the lock.
    Stock(Mutex<openvino::CompiledModel>),
    Shim(Arc<qwen2vl_shim::Model>),
}

impl Compiled {
    /// Whether products of weights are our own.
    pub(crate) fn has_kernels(&self) -> bool {
        matches!(self.model, Model::Shim(_))
    }

    /// Whether attention is our own.
    pub(crate) fn has_attention(&self) -> bool {
        matches!(&self.model, Model::Shim(model) if model.attentions() > 0)
    }

    /// Gives back the memory that requests worked in, where OpenVINO can be asked to; none may be running.
    pub(crate) fn release_memory(&self) {
        // The C API has no call for it.
        if let Model::Shim(model) = &self.model
            && let Err(error) = model.release_memory()
        {
            tracing::debug!("{} keeps its memory: {error}", self.name);
        }
    }

    /// Takes weights out of memory that come back by themselves when they are used.
    pub(crate) fn release_weights(&self) {
        if let Model::Shim(model) = &self.model {
            model.release_weights();
        }
    }

    /// A new request, with empty state.
    pub(crate) fn request(&self) -> Result<Request, Error> {
        let model = match &self.model {
            Model::Stock(model) => model,
            Model::Shim(model) => return Ok(Request::of_shim(self.name, model.request()?)),
        };
        let request = model
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .create_infer_request()
            .map_err(|e| failed(&format!("create a request of {}", self.name), &e))?;
        Ok(Request::new(self.name, request))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openvino_is_told_of_a_limit_and_of_nothing_else() {
        let cpuinfo = "processor\t: 0\nmodel name\t: x\nprocessor\t: 1\n";
        assert_eq!([1, 2, 3].map(|n| below_all(n, cpuinfo)), [Some(1), None, None]);
        assert_eq!(below_all(4, ""), None);
        let asked = EngineOptions { threads: Some(3), ..EngineOptions::default() };
        assert_eq!(inference_threads(&asked), Some(3));
    }
}
