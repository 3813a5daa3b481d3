//! The language model with paged attention: OpenVINO's `SDPAToPagedAttention` on the exported graph, by the shim, and with our kernels
//! their attention in the place of OpenVINO's.

use std::path::Path;
use std::sync::Arc;

use qwen2vl_shim::{
    BLOCK_TOKENS, CacheShape, CompileOptions, Element as ShimElement, Kernels, KvCache, KvPrecision, Model,
    Port, Request as ShimRequest, Sequences, Shim,
};

use super::embedder::Embedder;
use crate::native::{Native, shim_properties};
use crate::paged::{Limits, PagedModel, Step};
use crate::{EngineOptions, Error, KvCachePrecision, ModelConfig, Precision, TextConfig};

/// Inputs whose names begin so are the KV cache's tensors.
const CACHES: [&str; 2] = ["key_cache.", "value_cache."];

/// The model, one request of it, and the cache's memory.
pub(crate) struct PagedLanguageModel {
    embedder: Embedder,
    request: ShimRequest,
    cache: Cache,
    hidden_size: usize,
    vocab_size: usize,
}

/// Where keys and values are.
enum Cache {
    /// With the kernels that compute attention.
    Kernels(KvCache),
    /// In so many blocks of the request's inputs, as OpenVINO wants them.
    Inputs(usize),
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
        language_model: &Path,
        config: &TextConfig,
        options: &EngineOptions,
    ) -> Result<Arc<Model>, Error> {
        let weights = language_model.with_extension("bin");
        let compile = |kernels: Option<Arc<Kernels>>| {
            let mut properties = shim_properties(options);
            match &kernels {
                Some(kernels) => set_threads(&mut properties, kernels.threads()),
                None => set_cache_precision(&mut properties, options, config),
            }
            self.shim
                .compile(&CompileOptions {
                    xml: text(language_model)?,
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
        let ours = model.replaced() > 0 && model.attentions() > 0;
        if self.kernels.is_some() && !ours {
            // OpenVINO does all of it, on all threads.
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
        let mut request = model.request()?;
        let blocks = |bytes: u64, of: usize| usize::try_from(bytes).unwrap_or(usize::MAX) / of.max(1);
        let n_blocks = |block_bytes, block_tokens| {
            blocks(options.kv_cache_bytes, block_bytes).clamp(1, i32::MAX as usize / block_tokens)
        };
        let (cache, block_bytes, block_tokens) = if model.attentions() > 0 {
            let shape = cache_shape(model, &config.text, options)?;
            let block_bytes = shape.block_bytes().unwrap_or(0);
            let cache = KvCache::new(CacheShape { blocks: n_blocks(block_bytes, BLOCK_TOKENS), ..shape });
            (Cache::Kernels(cache.map_err(qwen2vl_shim::Error::from)?), block_bytes, BLOCK_TOKENS)
        } else {
            let (caches, block_bytes, block_tokens) = cache_inputs(model)?;
            let n_blocks = n_blocks(block_bytes, block_tokens);
            for port in &caches {
                let rest = port.dims[1..].iter().map(|d| d.unwrap_or(0));
                let dims: Vec<usize> = std::iter::once(n_blocks).chain(rest).collect();
                request.set_zeros(&port.name, port.element, &dims)?;
            }
            (Cache::Inputs(n_blocks), block_bytes, block_tokens)
        };
        let n_blocks = cache.n_blocks();
        let limits = Limits {
            block_tokens,
            n_blocks,
            max_kept: blocks(options.prefix_cache_bytes, block_bytes).min(n_blocks),
            step_tokens: options.prefill_chunk_tokens,
            free_tokens: if model.replaced() > 0 { Kernels::free_rows() - 1 } else { 0 },
            vocab_size: config.vocab_size,
        };
        let loaded = Self {
            embedder,
            request,
            cache,
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

    /// Tells OpenVINO's attention what the sequences of a step are.
    fn set_sequences(&mut self, step: &Step) -> Result<(), Error> {
        for (name, values) in [
            ("past_lens", &step.past_lens),
            ("subsequence_begins", &step.subsequence_begins),
            ("block_indices", &step.block_indices),
            ("block_indices_begins", &step.block_indices_begins),
        ] {
            self.request.set(name, &[values.len()], |input: &mut [i32]| input.copy_from_slice(values))?;
        }
        let longest = step.max_context_len();
        self.request.set("max_context_len", &[], |input: &mut [i32]| input.fill(longest))?;
        Ok(())
    }
}

impl Cache {
    fn n_blocks(&self) -> usize {
        match self {
            Self::Kernels(cache) => cache.shape().blocks,
            Self::Inputs(n_blocks) => *n_blocks,
        }
    }
}

impl PagedModel for PagedLanguageModel {
    fn forward(&mut self, step: &Step) -> Result<&[f32], Error> {
        match &mut self.cache {
            Cache::Kernels(cache) => {
                step.copies.iter().for_each(|(from, to)| cache.copy_block(*from as usize, *to as usize));
            }
            Cache::Inputs(n_blocks) => self.request.copy_parts(*n_blocks, &step.copies),
        }
        self.embed(step)?;
        let n = step.ids.len();
        self.request.set("position_ids", &[3, n], |input: &mut [i64]| {
            for (axis, positions) in input.chunks_exact_mut(n).zip(&step.positions) {
                axis.copy_from_slice(positions);
            }
        })?;
        // One row of logits at least: an empty product is a case of its own.
        let wanted = if step.logits_indices.is_empty() { &[0][..] } else { &step.logits_indices };
        self.request
            .set("logits_indices", &[wanted.len()], |input: &mut [i64]| input.copy_from_slice(wanted))?;
        match &mut self.cache {
            Cache::Kernels(cache) => self.request.infer_on(cache, &sequences(step)?)?,
            Cache::Inputs(_) => {
                self.set_sequences(step)?;
                self.request.infer()?;
            }
        }
        let (dims, logits) = self.request.output("logits")?;
        let want = wanted.len() * self.vocab_size;
        if logits.len() != want {
            return Err(mismatch(format!("it returned logits of shape {dims:?}, expected {want} values")));
        }
        Ok(&logits[..step.logits_indices.len() * self.vocab_size])
    }
}

fn mismatch(detail: String) -> Error {
    Error::ModelMismatch { model: "language_model", detail }
}

fn sequences(step: &Step) -> Result<Sequences, Error> {
    let Step { past_lens, subsequence_begins, block_indices, block_indices_begins, .. } = step;
    let all = Sequences::new(past_lens, subsequence_begins, block_indices, block_indices_begins);
    Ok(all.map_err(qwen2vl_shim::Error::from)?)
}

/// The shape of the kernels' cache, but for its blocks.
fn cache_shape(model: &Model, text: &TextConfig, options: &EngineOptions) -> Result<CacheShape, Error> {
    if model.attentions() != text.num_hidden_layers {
        let detail = format!("it has {} attentions, expected {}", model.attentions(), text.num_hidden_layers);
        return Err(mismatch(detail));
    }
    let precision = match options.kv_cache_precision {
        KvCachePrecision::Auto | KvCachePrecision::U8 => KvPrecision::U8,
        KvCachePrecision::U4 => KvPrecision::U4,
        KvCachePrecision::F16 => KvPrecision::F16,
        KvCachePrecision::F32 => KvPrecision::F32,
    };
    let (layers, heads) = (text.num_hidden_layers, text.num_key_value_heads);
    Ok(CacheShape { layers, heads, width: text.head_dim, blocks: 0, precision })
}

/// Inputs that are the KV cache, bytes of a block in all of them, and its tokens.
fn cache_inputs(model: &Model) -> Result<(Vec<Port>, usize, usize), Error> {
    let caches: Vec<_> = model
        .inputs()?
        .into_iter()
        .filter(|port| CACHES.iter().any(|prefix| port.name.starts_with(prefix)))
        .collect();
    let mut block_bytes = 0;
    for port in &caches {
        let dims = port.dims.get(1..).unwrap_or_default();
        let values = dims.iter().try_fold(1usize, |n, d| n.checked_mul((*d)?));
        let values = values.filter(|n| *n > 0 && port.element != ShimElement::Other).ok_or_else(|| {
            mismatch(format!("{} has shape {:?}, expected a fixed one per block", port.name, port.dims))
        })?;
        block_bytes += port.element.bytes(values);
    }
    let block_tokens = block_tokens(&caches).ok_or_else(|| mismatch("it has no KV cache".to_owned()))?;
    Ok((caches, block_bytes, block_tokens))
}

/// Numbers that share a scale in a quantized cache.
const GROUP: usize = 32;

/// How OpenVINO's attention keeps keys and values.
fn set_cache_precision(
    properties: &mut Vec<(&'static str, String)>,
    options: &EngineOptions,
    config: &TextConfig,
) {
    if options.device != "CPU" {
        return;
    }
    let mut set = |key, value: &str| properties.push((key, value.to_owned()));
    match (options.kv_cache_precision, options.precision) {
        (KvCachePrecision::F32, _) | (KvCachePrecision::Auto, Precision::F32) => {
            set("KV_CACHE_PRECISION", "f32");
        }
        (KvCachePrecision::F16, _) => set("KV_CACHE_PRECISION", "f16"),
        (precision, _) => {
            set("KV_CACHE_PRECISION", "u8");
            let in_groups = config.head_dim.is_multiple_of(GROUP);
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
}

/// Tokens of a block: the third dimension of a value cache, whose quantized rows carry scales of their own beside the
/// values; keys have theirs in further rows.
fn block_tokens(caches: &[Port]) -> Option<usize> {
    let values = caches.iter().find(|port| port.name.starts_with(CACHES[1]))?;
    values.dims.get(2).copied().flatten().filter(|n| *n > 0)
}

fn text(path: &Path) -> Result<&str, Error> {
    path.to_str().ok_or_else(|| Error::ModelFile {
        path: path.to_owned(),
        reason: "the path is not valid UTF-8, which OpenVINO needs".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn with_kernels_attention_is_theirs_and_the_model_has_no_inputs_for_it() {
        if let Err(error) = crate::library::locate(None) {
            return qwen2vl_testkit::skip(&error);
        }
        let options = EngineOptions::default();
        if !options.has_kernels() {
            return;
        }
        let xml = qwen2vl_testkit::demo_model_dir().join("openvino_language_model.xml");
        let config = TextConfig {
            hidden_size: 128,
            num_hidden_layers: 4,
            num_key_value_heads: 2,
            head_dim: 32,
            intermediate_size: 384,
        };
        let mut native = Native::start(&options).unwrap();
        let model = PagedCompiler::new(&mut native).unwrap().compile(&xml, &config, &options).unwrap();
        assert_eq!(model.attentions(), 4);
        let mut names: Vec<_> = model.inputs().unwrap().into_iter().map(|port| port.name).collect();
        names.sort_unstable();
        assert_eq!(names, ["inputs_embeds", "logits_indices", "position_ids"]);
        let shape = cache_shape(&model, &config, &options).unwrap();
        assert_eq!(shape.precision, KvPrecision::U8);
        assert_eq!(shape.block_bytes(), Some(4 * 2 * 2 * BLOCK_TOKENS * (32 + 8)));

        let deeper = TextConfig { num_hidden_layers: 5, ..config };
        let error = cache_shape(&model, &deeper, &options).unwrap_err();
        assert_eq!(error.to_string(), "language_model: it has 4 attentions, expected 5");
    }
}
