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

/// How an answer is chosen and when it ends; the names and meanings of Hugging Face's `GenerationConfig`.
///
/// The default is greedy without penalties; a model's own defaults come from its `generation_config.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerationConfig {
    /// Draw from the distribution instead of taking the most probable token.
    pub do_sample: bool,
    /// Logits are divided by it before drawing; above 0. Unused without `do_sample`.
    pub temperature: f32,
    /// Keep the k most probable tokens; 0 keeps all. Unused without `do_sample`.
    pub top_k: usize,
    /// Keep the most probable tokens up to this probability mass; in (0, 1]. Unused without `do_sample`.
    pub top_p: f32,
    /// Divides positive and multiplies negative logits of tokens already in prompt or answer; above 0, 1 is off.
    pub repetition_penalty: f32,
    /// The most tokens an answer may have, at least 1.
    pub max_new_tokens: usize,
    /// Tokens that end the answer (`eos_token_id`); the one that did is not part of it.
    pub stop_token_ids: Vec<TokenId>,
    /// Seed of the draws: the same seed gives the same answer.
    pub seed: u64,
}

impl Default for GenerationConfig {
    fn default() -> Self {
        Self {
            do_sample: false,
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            repetition_penalty: 1.0,
            max_new_tokens: 256,
            stop_token_ids: Vec::new(),
            seed: 0,
        }
    }
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
    /// The most prompt tokens computed in one step. Longer prompts go through in pieces, which bounds the memory that
    /// the attention mask of a prefill needs; at least 1. Prompts of more than 4,096 tokens use smaller pieces.
    pub prefill_chunk_tokens: usize,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            openvino: None,
            device: "CPU".to_owned(),
            threads: None,
            cache_dir: None,
            precision: Precision::Fast,
            prefill_chunk_tokens: 1024,
        }
    }
}
