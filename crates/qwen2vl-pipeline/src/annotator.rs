//! The public door: a model loaded once, asked many times.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use qwen2vl_package::ModelPackage;
use qwen2vl_preprocess::{AlphaMode, DecodeLimits, DecodeOptions};
use qwen2vl_runtime::{
    CancelToken, Engine, EngineKind, EngineOptions, EngineStats, KvCachePrecision, MemoryPlan, Precision,
    available_memory_bytes,
};
use qwen2vl_tokenizer::Message;

use crate::answer::Asked;
use crate::options::one_answer;
use crate::processor::fits_into;
use crate::structured::Formats;
use crate::vision_cache::{ModelIdentity, VisionCache};
use crate::{
    Annotation, Conversation, Error, ImageInput, OnExceed, Prepared, Processor, Request, RequestOptions,
    VisionCacheOptions,
};

/// Sets up an [`Annotator`].
#[derive(Debug, Clone, Default)]
pub struct AnnotatorBuilder {
    model: Option<PathBuf>,
    package: Option<ModelPackage>,
    engine: EngineOptions,
    cache_root: Option<PathBuf>,
    decode: DecodeOptions,
    defaults: RequestOptions,
    concurrency: Option<usize>,
    vision_cache: VisionCacheOptions,
    memory_limit: Option<(u64, OnExceed)>,
}

/// Requests of [`Annotator::run_all`] that are answered at once.
const DEFAULT_CONCURRENCY: usize = 16;

impl AnnotatorBuilder {
    /// The model: an OpenVINO export folder, or a zip of one.
    #[must_use]
    pub fn model(mut self, path: impl Into<PathBuf>) -> Self {
        self.model = Some(path.into());
        self
    }

    /// The model, opened already.
    #[must_use]
    pub fn package(mut self, package: ModelPackage) -> Self {
        self.package = Some(package);
        self
    }

    /// OpenVINO's device name, `CPU` if not set.
    #[must_use]
    pub fn device(mut self, device: impl Into<String>) -> Self {
        self.engine.device = device.into();
        self
    }

    /// Inference threads, at least 1; all cores if not set.
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Self {
        self.engine.threads = Some(threads);
        self
    }

    /// How many requests [`Annotator::run_all`] answers at once, at least 1; 16 if not set. Each has a KV cache of its own
    /// within the engine's. Has no effect with [`qwen2vl_runtime::EngineKind::Stateful`].
    #[must_use]
    pub fn concurrency(mut self, requests: usize) -> Self {
        self.concurrency = Some(requests);
        self
    }

    /// Which implementation runs the language model.
    #[must_use]
    pub fn engine(mut self, kind: EngineKind) -> Self {
        self.engine.engine = kind;
        self
    }

    /// The most tokens of prompts computed in one step, at least 1; 1,024 if not set. While others decode it is a quarter,
    /// so that a long prompt does not stall them.
    #[must_use]
    pub fn prefill_chunk_tokens(mut self, tokens: usize) -> Self {
        self.engine.prefill_chunk_tokens = tokens;
        self
    }

    /// How keys and values are kept.
    #[must_use]
    pub fn kv_cache_precision(mut self, precision: KvCachePrecision) -> Self {
        self.engine.kv_cache_precision = precision;
        self
    }

    /// The most memory of the KV cache, bytes; 1 GiB if not set.
    #[must_use]
    pub fn kv_cache_bytes(mut self, bytes: u64) -> Self {
        self.engine.kv_cache_bytes = bytes;
        self
    }

    /// The most of the KV cache that is kept for prompts to come which begin as earlier ones did, bytes; 256 MiB if not
    /// set; with 0 requests share nothing.
    #[must_use]
    pub fn prefix_cache_bytes(mut self, bytes: u64) -> Self {
        self.engine.prefix_cache_bytes = bytes;
        self
    }

    /// What is kept of the vision tower's work. An image that was seen before costs no more than decoding it, if its pixels,
    /// size after resizing, model and precision are the same; answers are the same to the token. By default 256 MiB in
    /// memory, nothing on disk.
    #[must_use]
    pub fn vision_cache(mut self, options: VisionCacheOptions) -> Self {
        self.vision_cache = options;
        self
    }

    /// The most memory of the process that a request's plan may come to, the model included, and what becomes of requests
    /// above; none if not set. Plans are those of single requests: what caches keep and what other requests take at the same
    /// time comes on top, see [`AnnotatorBuilder::kv_cache_bytes`], [`AnnotatorBuilder::vision_cache`] and
    /// [`AnnotatorBuilder::concurrency`]. With a limit the engine runs with [`EngineOptions::low_memory`].
    #[must_use]
    pub fn memory_limit(mut self, bytes: u64, on_exceed: OnExceed) -> Self {
        self.memory_limit = Some((bytes, on_exceed));
        self.engine.low_memory = true;
        self
    }

    /// Numeric precision.
    #[must_use]
    pub fn precision(mut self, precision: Precision) -> Self {
        self.engine.precision = precision;
        self
    }

    /// The OpenVINO library or its folder, instead of the one found.
    #[must_use]
    pub fn openvino(mut self, path: impl Into<PathBuf>) -> Self {
        self.engine.openvino = Some(path.into());
        self
    }

    /// Where unpacked and compiled models are kept, instead of the per-user cache.
    #[must_use]
    pub fn cache_root(mut self, path: impl Into<PathBuf>) -> Self {
        self.cache_root = Some(path.into());
        self
    }

    /// Fewest pixels of an image after resizing; the package's own limit if not set.
    #[must_use]
    pub fn min_pixels(mut self, pixels: u64) -> Self {
        self.defaults.min_pixels = Some(pixels);
        self
    }

    /// Most pixels of an image after resizing; the package's own limit if not set.
    #[must_use]
    pub fn max_pixels(mut self, pixels: u64) -> Self {
        self.defaults.max_pixels = Some(pixels);
        self
    }

    /// What becomes of transparency.
    #[must_use]
    pub fn alpha(mut self, alpha: AlphaMode) -> Self {
        self.decode.alpha = alpha;
        self
    }

    /// The largest image that is decoded.
    #[must_use]
    pub fn decode_limits(mut self, limits: DecodeLimits) -> Self {
        self.decode.limits = limits;
        self
    }

    /// Dots an inch at which pages of PDFs are rendered, see [`DecodeOptions::pdf_dpi`].
    #[must_use]
    pub fn pdf_dpi(mut self, dpi: u32) -> Self {
        self.decode.pdf_dpi = dpi;
        self
    }

    /// Options of every request that does not set its own. Pixel limits set on the builder before are kept where
    /// these options leave them open.
    #[must_use]
    pub fn defaults(mut self, options: &RequestOptions) -> Self {
        self.defaults = options.or(&self.defaults);
        self
    }

    /// Opens the package and compiles the model.
    ///
    /// # Errors
    ///
    /// [`Error::NoModel`], [`Error::Package`] for a package that cannot be read, [`Error::Runtime`] without a usable
    /// OpenVINO or for a model that does not compile.
    pub fn build(self) -> Result<Annotator, Error> {
        if self.concurrency == Some(0) {
            return Err(qwen2vl_runtime::Error::InvalidOption {
                name: "concurrency",
                value: "0".to_owned(),
                allowed: "1 or more".into(),
            }
            .into());
        }
        let cache_root = match self.cache_root {
            Some(root) => root,
            None => qwen2vl_package::cache_root()?,
        };
        let package = match (self.package, self.model) {
            (Some(package), _) => package,
            (None, Some(path)) => ModelPackage::open(&path, &cache_root)?,
            (None, None) => return Err(Error::NoModel),
        };
        let mut options = self.engine;
        options.cache_dir.get_or_insert_with(|| cache_root.join("compiled"));
        let cache = &self.vision_cache;
        let (identity, processor, engine) = std::thread::scope(|scope| {
            let identity = scope.spawn(|| ModelIdentity::read(cache, &package, &cache_root));
            let processor = scope
                .spawn(|| Ok::<_, Error>(Processor::new(package.clone(), self.decode)?.for_engine(&options)));
            let engine = Engine::load(&package.files, &package.model, &options);
            (identity.join().unwrap_or_default(), processor.join(), engine)
        });
        let (mut processor, engine) =
            (processor.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?, engine?);
        if let Some((bytes, on_exceed)) = self.memory_limit {
            processor = processor.memory_limit(bytes, on_exceed);
        }
        Ok(Annotator {
            vision_cache: VisionCache::new(cache, &package, &identity, &engine, &options, &cache_root),
            processor,
            engine,
            defaults: self.defaults,
            formats: Formats::default(),
            concurrency: self.concurrency.unwrap_or(DEFAULT_CONCURRENCY),
        })
    }
}

/// Why a streamed answer is the only one.
const STREAMED: &str = "1 where the answer is streamed; run without streaming";

/// A loaded model that annotates. `Send + Sync`: share it between threads.
pub struct Annotator {
    pub(crate) processor: Processor,
    pub(crate) engine: Engine,
    pub(crate) defaults: RequestOptions,
    pub(crate) formats: Formats,
    pub(crate) concurrency: usize,
    pub(crate) vision_cache: Option<VisionCache>,
}

impl Annotator {
    /// Starts setting one up.
    pub fn builder() -> AnnotatorBuilder {
        AnnotatorBuilder::default()
    }

    /// What happens before inference.
    pub fn processor(&self) -> &Processor {
        &self.processor
    }

    /// What the engine did since it was loaded.
    pub fn engine_stats(&self) -> EngineStats {
        self.engine.stats()
    }

    /// Asks a question about an image.
    ///
    /// # Errors
    ///
    /// As [`Annotator::run`].
    pub fn annotate(&self, image: impl Into<ImageInput>, prompt: &str) -> Result<Annotation, Error> {
        self.run(&Request::question(prompt).image(image))
    }

    /// Answers a conversation's last turn; images and videos are read from the sources that its parts name.
    ///
    /// # Errors
    ///
    /// As [`Annotator::run`].
    pub fn annotate_messages(&self, messages: &[Message]) -> Result<Annotation, Error> {
        self.run(&Request::messages(messages))
    }

    /// Starts a conversation, of which no turn is computed twice.
    ///
    /// # Errors
    ///
    /// [`Error::Runtime`] when OpenVINO fails.
    pub fn conversation(&self) -> Result<Conversation<'_>, Error> {
        Conversation::new(self)
    }

    /// Answers a request.
    ///
    /// # Errors
    ///
    /// The request's first problem, see [`Error`]; the annotator stays usable.
    pub fn run(&self, request: &Request) -> Result<Annotation, Error> {
        let prepared = self.prepare_cached(request)?;
        self.run_prepared(request, &prepared, &CancelToken::new(), |_| ControlFlow::Continue(()))
    }

    /// Answers a request; `on_delta` sees the text as it grows, in whole characters that are never taken back, and may
    /// end it. The deltas together are the annotation's `result`.
    ///
    /// # Errors
    ///
    /// As [`Annotator::run`], and [`qwen2vl_runtime::Error::InvalidOption`] for beams or several answers, of which none
    /// can be shown while it grows.
    pub fn run_stream(
        &self,
        request: &Request,
        cancel: &CancelToken,
        on_delta: impl FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Annotation, Error> {
        let options = request.options.or(&self.defaults);
        one_answer(&options.generation(&self.processor.package().generation), STREAMED)?;
        let prepared = self.prepare_cached(request)?;
        self.run_prepared(request, &prepared, cancel, on_delta)
    }

    /// The part of a request before inference, so that it can be done ahead on another thread. The vision cache has no part
    /// in it: pixel values are all there, and may be changed before [`Annotator::run_prepared`].
    ///
    /// # Errors
    ///
    /// As [`Processor::prepare`], and [`qwen2vl_runtime::Error::InvalidOption`] before any image is read.
    pub fn prepare(&self, request: &Request) -> Result<Prepared, Error> {
        self.prepare_with(request, None)
    }

    /// [`Annotator::prepare`] without the pixel values of images that the vision cache knows.
    pub(crate) fn prepare_cached(&self, request: &Request) -> Result<Prepared, Error> {
        self.prepare_with(request, self.vision_cache.as_ref())
    }

    fn prepare_with(&self, request: &Request, cache: Option<&VisionCache>) -> Result<Prepared, Error> {
        let options = request.options.or(&self.defaults);
        options.validate(self.processor.package())?;
        self.constraint(&options)?;
        self.processor.prepare_with(request, &options, cache)
    }

    /// The part of a request from the vision tower on. `prepared` must come from the same request. With beams `on_delta`
    /// sees the best answer when it is found.
    ///
    /// # Errors
    ///
    /// [`qwen2vl_runtime::Error::NotEnoughMemory`] before anything is computed, or what inference reports.
    pub fn run_prepared(
        &self,
        request: &Request,
        prepared: &Prepared,
        cancel: &CancelToken,
        on_delta: impl FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Annotation, Error> {
        let options = request.options.or(&self.defaults);
        self.check_memory(prepared, &options)?;
        let embeddings = self.encode(prepared, cancel)?;
        let mut session = self.engine.session()?;
        let asked = Asked { request, options, prepared, picture: 1 };
        self.answer(session.as_mut(), &asked, &embeddings, cancel, on_delta)
    }

    /// Refuses a request that would not fit into the free memory: OpenVINO ends the process where an allocation fails.
    pub(crate) fn check_memory(&self, prepared: &Prepared, options: &RequestOptions) -> Result<(), Error> {
        let config = options.generation(&self.processor.package().generation);
        let plan = self.memory_plan(prepared, config.max_new_tokens).with_rows(config.num_beams);
        fits_into(available_memory_bytes(), plan.request_bytes())
    }

    /// What a request with answers of so many tokens will take.
    pub(crate) fn memory_plan(&self, prepared: &Prepared, max_new_tokens: usize) -> MemoryPlan {
        let largest = prepared.media.iter().map(|m| m.grid_thw).max_by_key(|g| g.h as usize * g.w as usize);
        let grid = largest.map(|g| qwen2vl_types::GridThw { t: 1, ..g });
        self.processor.memory_plan(grid, prepared.encoded.input_ids.len(), max_new_tokens)
    }
}

impl std::fmt::Debug for Annotator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Annotator").field("model", &self.processor.package().name).finish_non_exhaustive()
    }
}

/// Opens a package with the per-user cache, for callers that need no inference.
///
/// # Errors
///
/// [`Error::Package`].
pub fn open_package(path: &Path) -> Result<ModelPackage, Error> {
    Ok(ModelPackage::open(path, &qwen2vl_package::cache_root()?)?)
}

/// `Send + Sync` is part of the promise.
const _: () = {
    const fn shared<T: Send + Sync>() {}
    shared::<Annotator>();
};
