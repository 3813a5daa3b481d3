//! How much memory a request needs, before any of it is asked for.
//!
//! The formula counts what the engine holds at its peak: the loaded weights, the pixel values and the copy that goes
//! into inference, the vision blocks' activations, the KV cache, one piece of the prefill. Its constants were fitted to
//! measured peaks; docs/memory.md has the figures.

use qwen2vl_types::GridThw;

use crate::ModelConfig;

const F32: u64 = 4;

/// Rows of a vision block's width that OpenVINO holds at once: residual, q, k, v, the MLP's four and their copies.
const VISION_ROWS: u64 = 18;

/// Bytes for each pair of a token of a prefill's piece and a token before it: the causal mask in the forms that the
/// graph builds it in, and attention scores.
const MASK_BYTES: u64 = 36;

/// The most such pairs in one piece: longer prompts go through in smaller pieces.
const MAX_PIECE_PAIRS: usize = 1 << 22;

/// The fewest tokens in a piece: below, the weights would be read too often for too little.
const MIN_PIECE_TOKENS: usize = 128;

/// What the process holds before any model: the program, OpenVINO's libraries, its thread pools, the tokenizer.
const BASE_BYTES: u64 = 200 << 20;

/// Tokens that go through the language model at once for a prompt of so many tokens.
pub(crate) fn piece_tokens(prompt_tokens: usize, most: usize) -> usize {
    most.min((MAX_PIECE_PAIRS / prompt_tokens.max(1)).max(MIN_PIECE_TOKENS)).max(1)
}

/// Peak memory of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryPlan {
    /// The loaded model: weights, in the layout that OpenVINO packs them into, and the process itself.
    pub model_bytes: u64,
    /// The encoded image while it is prepared: pixels, `pixel_values`, vision activations.
    pub vision_bytes: u64,
    /// The conversation: KV cache, embeddings and one piece of the prefill.
    pub language_bytes: u64,
    /// What each further row of the conversation takes, beams and labels: a KV cache and logits of its own.
    pub row_bytes: u64,
}

impl MemoryPlan {
    /// Plans a request with one image or video of this grid (or none), so many prompt tokens in all (placeholders
    /// included) and so many new ones; `weight_bytes` is the size of the model's weight files.
    pub fn new(
        config: &ModelConfig,
        weight_bytes: u64,
        grid: Option<GridThw>,
        prompt_tokens: usize,
        max_new_tokens: usize,
        prefill_chunk_tokens: usize,
    ) -> Self {
        let vision_bytes = grid.map_or(0, |grid| vision_bytes(config, grid));
        let tokens =
            (prompt_tokens.saturating_add(max_new_tokens) as u64).min(config.max_position_embeddings as u64);
        let text = &config.text;
        let kv_cache = tokens
            .saturating_mul(2 * text.num_hidden_layers as u64)
            .saturating_mul((text.num_key_value_heads * text.head_dim) as u64)
            .saturating_mul(2);
        let piece = prompt_tokens.min(piece_tokens(prompt_tokens, prefill_chunk_tokens)) as u64;
        let widest = (text.intermediate_size * 2 + text.hidden_size * 4) as u64;
        let activations = piece.saturating_mul(widest).saturating_mul(F32 * 2);
        let mask = piece.saturating_mul(tokens).saturating_mul(MASK_BYTES);
        let embeddings = (prompt_tokens as u64).saturating_mul(text.hidden_size as u64 * F32);
        let logits = config.vocab_size as u64 * F32 * 2;
        Self {
            model_bytes: BASE_BYTES.saturating_add(weight_bytes.saturating_mul(2)),
            vision_bytes,
            row_bytes: kv_cache.saturating_add(logits),
            language_bytes: kv_cache
                .saturating_add(activations)
                .saturating_add(mask)
                .saturating_add(embeddings)
                .saturating_add(logits),
        }
    }

    /// The plan with so many rows, at least 1.
    #[must_use]
    pub fn with_rows(self, rows: usize) -> Self {
        let further = self.row_bytes.saturating_mul(rows.saturating_sub(1) as u64);
        Self { language_bytes: self.language_bytes.saturating_add(further), ..self }
    }

    /// The peak: the model and both phases. They follow each other, but the first one's memory is not given back to
    /// the system at once, and pixel values live until the answer ends.
    pub fn peak_bytes(&self) -> u64 {
        self.model_bytes.saturating_add(self.request_bytes())
    }

    /// What the request needs beyond the loaded model.
    pub fn request_bytes(&self) -> u64 {
        self.vision_bytes.saturating_add(self.language_bytes)
    }
}

fn vision_bytes(config: &ModelConfig, grid: GridThw) -> u64 {
    let pixels = (grid.n_patches() as u64).saturating_mul(config.geometry.patch_len() as u64 * F32);
    let frame_patches = u64::from(grid.h) * u64::from(grid.w);
    let width = config.vision.hidden_size as u64;
    pixels.saturating_add(frame_patches.saturating_mul(width * F32 * VISION_ROWS))
}

/// Memory that this process can still get: free memory of the machine, or of its control group if that is less; `None`
/// where the system does not tell.
pub fn available_memory_bytes() -> Option<u64> {
    let machine = meminfo_available(&std::fs::read_to_string("/proc/meminfo").ok()?)?;
    Some(cgroup_available().map_or(machine, |group| group.min(machine)))
}

fn meminfo_available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|l| l.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Limit minus use of the process's control group, version 2.
fn cgroup_available() -> Option<u64> {
    let own = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = own.lines().find_map(|l| l.strip_prefix("0::"))?.trim_start_matches('/');
    let folder = std::path::Path::new("/sys/fs/cgroup").join(path);
    let number = |name: &str| std::fs::read_to_string(folder.join(name)).ok()?.trim().parse::<u64>().ok();
    Some(number("memory.max")?.saturating_sub(number("memory.current")?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{TextConfig, VisionConfig};

    fn config() -> ModelConfig {
        ModelConfig {
            geometry: qwen2vl_types::PatchGeometry::default(),
            image_token_id: 151_655,
            video_token_id: 151_656,
            max_position_embeddings: 32_768,
            vocab_size: 151_936,
            vision: VisionConfig { hidden_size: 1280, depth: 32, num_heads: 16 },
            text: TextConfig {
                hidden_size: 1536,
                num_hidden_layers: 28,
                num_key_value_heads: 2,
                head_dim: 128,
                intermediate_size: 8960,
            },
        }
    }

    #[test]
    fn more_pixels_and_more_tokens_never_need_less() {
        let plan = |side: u32, text: usize| {
            let grid = GridThw { t: 1, h: side, w: side };
            MemoryPlan::new(&config(), 1_800_000_000, Some(grid), grid.n_tokens(2) + text, 128, 1024)
                .peak_bytes()
        };
        assert!(
            plan(8, 20) <= plan(16, 20) && plan(16, 20) <= plan(100, 20) && plan(100, 20) < plan(248, 20)
        );
        assert!(plan(16, 20) <= plan(16, 20_000));
    }

    #[test]
    fn each_row_has_a_cache_of_its_own() {
        let plan = MemoryPlan::new(&config(), 0, None, 1000, 24, 1024);
        // 1,024 tokens of keys and values in 28 layers of 2 heads of 128 values of 2 bytes.
        let cache = 1024 * 2 * 28 * 2 * 128 * 2;
        let bytes = |rows| plan.with_rows(rows).request_bytes();
        assert!(bytes(5) - bytes(1) >= 4 * cache && bytes(5) - bytes(1) < 5 * cache);
        assert_eq!((bytes(0), bytes(usize::MAX)), (bytes(1), u64::MAX));
    }

    #[test]
    fn memory_grows_with_patches_not_with_their_square() {
        let bytes = |h: u32| {
            let grid = GridThw { t: 1, h, w: 248 };
            MemoryPlan::new(&config(), 0, Some(grid), 100, 1, 1024).vision_bytes
        };
        assert_eq!(bytes(200), 2 * bytes(100));
    }

    #[test]
    fn hostile_grids_do_not_overflow() {
        let grid = GridThw { t: u32::MAX, h: 1 << 16, w: 1 << 15 };
        assert!(
            MemoryPlan::new(&config(), u64::MAX, Some(grid), usize::MAX, usize::MAX, 1).peak_bytes()
                == u64::MAX
        );
    }

    #[test]
    fn long_prompts_go_through_in_smaller_pieces() {
        for (prompt, most, want) in [
            (0, 1024, 1024),
            (4096, 1024, 1024),
            (15_577, 1024, 269),
            (1 << 20, 1024, 128),
            (9, 5, 5),
            (9, 0, 1),
        ] {
            assert_eq!(piece_tokens(prompt, most), want, "{prompt} {most}");
        }
    }

    #[test]
    fn meminfo_is_read() {
        assert_eq!(meminfo_available("MemTotal: 9 kB\nMemAvailable:   2048 kB\n"), Some(2048 * 1024));
        assert_eq!(meminfo_available("MemTotal: 9 kB\n"), None);
    }
}
