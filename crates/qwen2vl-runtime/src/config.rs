//! What the engine must be told about a model: its files and its dimensions.
//!
//! Plain data, filled by whoever reads a model package. Names follow `config.json` of Hugging Face's `qwen2_vl`.

use std::path::PathBuf;

use qwen2vl_types::{PatchGeometry, TokenId};

/// The four OpenVINO IR files of a Qwen2-VL export, as optimum-intel writes them or as Spark NLP reads them (whose other
/// three models are arithmetic that the engine does itself): each path names the `.xml`, its weights lie beside it with
/// the extension `.bin`. Weights may have any precision that OpenVINO computes with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelFiles {
    /// `pixel_values [n_patches, patch_len]` → `[n_patches, vision hidden]`.
    pub vision_embeddings: PathBuf,
    /// Vision blocks and merger: `[n_patches, vision hidden]` → `[n_tokens, text hidden]`.
    pub vision_embeddings_merger: PathBuf,
    /// Token ids `[batch, n]` → `[batch, n, text hidden]`.
    pub text_embeddings: PathBuf,
    /// The stateful language model: embeddings and positions → logits.
    pub language_model: PathBuf,
}

/// The dimensions of a model, read from its `config.json`; nothing in this crate assumes those of one model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelConfig {
    /// Patch geometry.
    pub geometry: PatchGeometry,
    /// Id of `<|image_pad|>`.
    pub image_token_id: TokenId,
    /// Id of `<|video_pad|>`.
    pub video_token_id: TokenId,
    /// Tokens that prompt and answer may have together.
    pub max_position_embeddings: usize,
    /// Rows of the embedding table, at least the tokenizer's vocabulary.
    pub vocab_size: usize,
    /// The vision tower.
    pub vision: VisionConfig,
    /// The language model.
    pub text: TextConfig,
}

/// Dimensions of the vision tower (`vision_config`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VisionConfig {
    /// Width of the blocks, `embed_dim` in the file (1280 for the 2B).
    pub hidden_size: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Attention heads.
    pub num_heads: usize,
}

/// Dimensions of the language model (`text_config`, or the top level of older files).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextConfig {
    /// Width of the blocks (1536 for the 2B).
    pub hidden_size: usize,
    /// Number of blocks.
    pub num_hidden_layers: usize,
    /// Heads of keys and values.
    pub num_key_value_heads: usize,
    /// Width of one head: `hidden_size / num_attention_heads`.
    pub head_dim: usize,
    /// Width of the MLP.
    pub intermediate_size: usize,
}

/// Numeric precision of inference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// OpenVINO's choice for the device: bf16 where the CPU has it, dynamically quantized activations, u8 KV cache.
    #[default]
    Fast,
    /// f32 throughout, so that answers do not depend on the CPU's instruction sets; slower and larger.
    F32,
}

/// Which implementation runs the language model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EngineKind {
    /// Paged where it can be had, else stateful with a word in the log.
    #[default]
    Auto,
    /// A KV cache in blocks, which conversations share, and steps of all of them together. Needs a C++ compiler once, and
    /// OpenVINO's headers.
    Paged,
    /// OpenVINO's own state: each conversation by itself.
    Stateful,
}

/// How keys and values are kept by the paged engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KvCachePrecision {
    /// 8 bits with [`Precision::Fast`], f32 with [`Precision::F32`].
    #[default]
    Auto,
    /// Values in 4 bits, a seventh less memory. Keys stay in 8: those of Qwen2 have a few dimensions far from zero, beside which
    /// 4 bits leave little of the others.
    U4,
    /// 8 bits.
    U8,
    /// 16-bit floats.
    F16,
    /// 32-bit floats.
    F32,
}

/// How the engine runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineOptions {
    /// The OpenVINO library, or a folder of it, to use instead of the one found by [`crate::library::locate`].
    pub openvino: Option<PathBuf>,
    /// OpenVINO's device name: `CPU`, `GPU`, `NPU`, `AUTO`, …
    pub device: String,
    /// Inference threads; `None` leaves it to OpenVINO (all cores).
    pub threads: Option<usize>,
    /// Where compiled models are kept so that the next start is fast; `None` keeps none.
    pub cache_dir: Option<PathBuf>,
    /// Numeric precision.
    pub precision: Precision,
    /// Which implementation runs the language model.
    pub engine: EngineKind,
    /// How keys and values are kept, by the paged engine.
    pub kv_cache_precision: KvCachePrecision,
    /// The most memory of the paged engine's KV cache, bytes. It is taken as conversations need it.
    pub kv_cache_bytes: u64,
    /// The most of it that is kept for prompts to come which begin as earlier ones did; with 0
    /// conversations share nothing.
    pub prefix_cache_bytes: u64,
    /// The most prompt tokens computed in one step. Longer prompts go through in pieces, which bounds the memory that
    /// the attention mask of a prefill needs; at least 1. Prompts of more than 4,096 tokens use smaller pieces.
    pub prefill_chunk_tokens: usize,
    /// Whether vision tower and language model have memory one after the other, their weights included, where these are used in
    /// place ([`EngineOptions::has_kernels`]): an image takes some hundredths of a second longer. It is always so around images
    /// and frames of 4,096 patches and more.
    pub low_memory: bool,
}

impl EngineOptions {
    /// Whether compressed weights are used where they lie, by our own products: on a CPU that has what they need, with
    /// [`Precision::Fast`], unless the engine is stateful.
    pub fn has_kernels(&self) -> bool {
        let wanted = self.precision == Precision::Fast && self.engine != EngineKind::Stateful;
        wanted && self.device == "CPU" && qwen2vl_shim::Kernels::are_supported()
    }
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            openvino: None,
            device: "CPU".to_owned(),
            threads: None,
            cache_dir: None,
            precision: Precision::Fast,
            engine: EngineKind::Auto,
            kv_cache_precision: KvCachePrecision::Auto,
            kv_cache_bytes: 1 << 30,
            prefix_cache_bytes: 256 << 20,
            prefill_chunk_tokens: 1024,
            low_memory: false,
        }
    }
}
