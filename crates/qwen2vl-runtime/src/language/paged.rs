//! The language model with paged attention: OpenVINO's `SDPAToPagedAttention` on the exported graph, by the shim.

use std::path::Path;
use std::sync::Arc;

use qwen2vl_shim::{CompileOptions, Element as ShimElement, Kernels, Model, Request as ShimRequest, Shim};

use super::embedder::Embedder;
use crate::native::{Native, shim_properties};
use crate::paged::{Limits, PagedModel, Step};
use crate::{EngineOptions, Error, KvCachePrecision, ModelConfig, ModelFiles, Precision};

/// Inputs whose names begin so are the KV cache's tensors.
const CACHES: [&str; 2] = ["key_cache.", "value_cache."];

/// The model, one request of it, and the cache's memory.
pub(crate) struct PagedLanguageModel {
    embedder: Embedder,
    request: ShimRequest,
    n_blocks: usize,
    hidden_size: usize,
    vocab_size: usize,
}

/// What compiles it, on a thread of its own if need be.
pub(crate) struct PagedCompiler {
    shim: Arc<Shim>,
    kernels: Option<Arc<Kernels>>,
}

impl PagedCompiler {
    /// # Errors
    ///
    /// If the shim cannot be had.
    pub(crate) fn new(native: &mut Native) -> Result<Self, Error> {
        Ok(Self { shim: native.shim()?, kernels: native.kernels() })
    }

    pub(crate) fn compile(
        &self,
        files: &ModelFiles,
        config: &ModelConfig,
        options: &EngineOptions,
    ) -> Result<Arc<Model>, Error> {
        let weights = files.language_model.with_extension("bin");
        let compile = |kernels: Option<Arc<Kernels>>| {
            let mut properties = properties(options, config);
            if let Some(kernels) = &kernels {
                set_threads(&mut properties, kernels.threads());
            }
            self.shim
                .compile(&CompileOptions {
                    xml: text(&files.language_model)?,
                    weights: text(&weights)?,
                    device: &options.device,
                    properties: &properties,
                    paged: true,
                    unmasked: false,
                    kernels,
                    kept_in: options.cache_dir.as_deref(),
                })
                .map_err(Error::from)
        };
        let model = compile(self.kernels.clone())?;
        if self.kernels.is_some() && model.replaced() == 0 {
            // No product is ours: all threads are OpenVINO's.
            return compile(None);
        }
        Ok(model)
    }
}

/// Half of the threads for what is left to OpenVINO beside our products: its threads look for work after each operation, and
/// with all of them a token takes 7 % longer, while prompts of 2,500 tokens are 5 % faster (two cores).
fn set_threads(properties: &mut Vec<(&'static str, String)>, threads: usize) {
    const KEY: &str = "INFERENCE_NUM_THREADS";
    properties.retain(|(key, _)| *key != KEY);
    properties.push((KEY, threads.div_ceil(2).to_string()));
}

impl PagedLanguageModel {
    pub(crate) fn new(
        model: &Arc<Model>,
        embedder: Embedder,
        config: &ModelConfig,
        options: &EngineOptions,
    ) -> Result<(Self, Limits), Error> {
        let caches: Vec<_> = model
            .inputs()?
            .into_iter()
            .filter(|port| CACHES.iter().any(|prefix| port.name.starts_with(prefix)))
            .collect();
        let mismatch = |detail: String| Error::ModelMismatch { model: "language_model", detail };
        let mut block_bytes = 0;
        for port in &caches {
            let dims = port.dims.get(1..).unwrap_or_default();
            let values = dims.iter().try_fold(1usize, |n, d| n.checked_mul((*d)?));
            let values =
                values.filter(|n| *n > 0 && port.element != ShimElement::Other).ok_or_else(|| {
                    mismatch(format!(
                        "{} has shape {:?}, expected a fixed one per block",
                        port.name, port.dims
                    ))
                })?;
            block_bytes += port.element.bytes(values);
        }
        let block_tokens = block_tokens(&caches).ok_or_else(|| mismatch("it has no KV cache".to_owned()))?;
        let blocks = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX) / block_bytes.max(1);
        let n_blocks = blocks(options.kv_cache_bytes).clamp(1, i32::MAX as usize / block_tokens);
        let mut request = model.request()?;
        for port in &caches {
            let rest = port.dims[1..].iter().map(|d| d.unwrap_or(0));
            let dims: Vec<usize> = std::iter::once(n_blocks).chain(rest).collect();
            request.set_zeros(&port.name, port.element, &dims)?;
        }
        let limits = Limits {
            block_tokens,
            n_blocks,
            max_kept: blocks(options.prefix_cache_bytes).min(n_blocks),
            step_tokens: options.prefill_chunk_tokens,
            free_tokens: if model.replaced() > 0 { Kernels::free_rows() - 1 } else { 0 },
            vocab_size: config.vocab_size,
        };
        let loaded = Self {
            embedder,
            request,
            n_blocks,
            hidden_size: config.text.hidden_size,
            vocab_size: config.vocab_size,
        };
        Ok((loaded, limits))
    }

    /// Embeds the step's tokens, with images and videos in their places.
    fn embed(&mut self, step: &Step) -> Result<(), Error> {
        let (n, hidden) = (step.ids.len(), self.hidden_size);
        let embedder = &mut self.embedder;
        self.request.set("inputs_embeds", &[n, hidden], |input: &mut [f32]| {
            embedder.embed(&step.ids, input)?;
            for placed in &step.placed {
                for i in 0..placed.n {
                    let at = (placed.start + i) * hidden;
                    placed.embeddings.copy_row(placed.first_row + i, &mut input[at..at + hidden]);
                }
            }
            Ok(())
        })?
    }

    fn set_i32(&mut self, name: &str, values: &[i32]) -> Result<(), Error> {
        self.request.set(name, &[values.len()], |input: &mut [i32]| input.copy_from_slice(values))?;
        Ok(())
    }
}

impl PagedModel for PagedLanguageModel {
    fn forward(&mut self, step: &Step) -> Result<&[f32], Error> {
        self.request.copy_parts(self.n_blocks, &step.copies);
        self.embed(step)?;
        let n = step.ids.len();
        self.request.set("position_ids", &[3, n], |input: &mut [i64]| {
            for (axis, positions) in input.chunks_exact_mut(n).zip(&step.positions) {
                axis.copy_from_slice(positions);
            }
        })?;
        self.set_i32("past_lens", &step.past_lens)?;
        self.set_i32("subsequence_begins", &step.subsequence_begins)?;
        self.set_i32("block_indices", &step.block_indices)?;
        self.set_i32("block_indices_begins", &step.block_indices_begins)?;
        let longest = step.max_context_len();
        self.request.set("max_context_len", &[], |input: &mut [i32]| input.fill(longest))?;
        // One row of logits at least: an empty product is a case of its own.
        let wanted = if step.logits_indices.is_empty() { &[0][..] } else { &step.logits_indices };
        self.request
            .set("logits_indices", &[wanted.len()], |input: &mut [i64]| input.copy_from_slice(wanted))?;
        self.request.infer()?;
        let (dims, logits) = self.request.output("logits")?;
        let want = wanted.len() * self.vocab_size;
        if logits.len() != want {
            let detail = format!("it returned logits of shape {dims:?}, expected {want} values");
            return Err(Error::ModelMismatch { model: "language_model", detail });
        }
        Ok(&logits[..step.logits_indices.len() * self.vocab_size])
    }
}

/// Numbers that share a scale in a quantized cache.
const GROUP: usize = 32;

fn properties(options: &EngineOptions, config: &ModelConfig) -> Vec<(&'static str, String)> {
    let mut properties = shim_properties(options);
    let mut set = |key, value: &str| properties.push((key, value.to_owned()));
    if options.device != "CPU" {
        return properties;
    }
    match (options.kv_cache_precision, options.precision) {
        (KvCachePrecision::F32, _) | (KvCachePrecision::Auto, Precision::F32) => {
            set("KV_CACHE_PRECISION", "f32");
        }
        (KvCachePrecision::F16, _) => set("KV_CACHE_PRECISION", "f16"),
        (precision, _) => {
            set("KV_CACHE_PRECISION", "u8");
            let in_groups = config.text.head_dim.is_multiple_of(GROUP);
            if precision == KvCachePrecision::U4 {
                set("VALUE_CACHE_PRECISION", "u4");
                if in_groups {
                    set("VALUE_CACHE_GROUP_SIZE", &GROUP.to_string());
                }
            }
            // Each token by itself: by channel, as is the default, tokens of a block share scales, and what a key becomes
            // depends on which tokens came in the same step.
            set("KEY_CACHE_QUANT_MODE", "BY_TOKEN");
            if in_groups {
                set("KEY_CACHE_GROUP_SIZE", &GROUP.to_string());
            }
        }
    }
    properties
}

/// Tokens of a block: the third dimension of a value cache, whose quantized rows carry scales of their own beside the
/// values; keys have theirs in further rows.
fn block_tokens(caches: &[qwen2vl_shim::Port]) -> Option<usize> {
    let values = caches.iter().find(|port| port.name.starts_with(CACHES[1]))?;
    values.dims.get(2).copied().flatten().filter(|n| *n > 0)
}

fn text(path: &Path) -> Result<&str, Error> {
    path.to_str().ok_or_else(|| Error::ModelFile {
        path: path.to_owned(),
        reason: "the path is not valid UTF-8, which OpenVINO needs".to_owned(),
    })
}
