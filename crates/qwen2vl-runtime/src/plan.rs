//! How much memory a request needs, before any of it is asked for.
//!
//! The formula counts what the engine holds at its peak: the loaded weights, the pixel values and the copy that goes
//! into inference, the vision blocks' activations, the KV cache, one piece of the prefill. Its constants were fitted to
//! measured peaks; docs/memory.md has the figures.

use std::path::Path;

use qwen2vl_types::GridThw;

use crate::vision::is_large;
use crate::{EngineKind, EngineOptions, KvCachePrecision, ModelConfig, ModelFiles, Precision, TextConfig};

const F32: u64 = 4;

/// Rows of a vision block's width that are held at once, for each patch: residual, q, k, v, the MLP's four and their copies;
/// with OpenVINO's products in half precision, with our own, between which and our attention there are no copies, in f32.
const VISION_ROWS: u64 = 18;
const VISION_ROWS_IN_PLACE: u64 = 10;

/// Bytes for each pair of a token of a prefill's piece and a token before it, by the stateful engine: the causal mask in
/// the forms that the graph builds it in, and attention scores. The paged one has none.
const MASK_BYTES: u64 = 36;

/// The most such pairs in one piece: longer prompts go through in smaller pieces.
const MAX_PIECE_PAIRS: usize = 1 << 22;

/// The fewest tokens in a piece: below, the weights would be read too often for too little.
const MIN_PIECE_TOKENS: usize = 128;

/// What the process holds before any model: the program, OpenVINO's libraries, its thread pools, the tokenizer.
const BASE_BYTES: u64 = 200 << 20;

/// The same with weights in place, and what each layer of the graphs adds to it.
const BASE_BYTES_IN_PLACE: u64 = 206 << 20;
const LAYER_BYTES: u64 = 1_200_000;

/// Tokens that go through the language model at once for a prompt of so many tokens.
pub(crate) fn piece_tokens(prompt_tokens: usize, most: usize) -> usize {
    most.min((MAX_PIECE_PAIRS / prompt_tokens.max(1)).max(MIN_PIECE_TOKENS)).max(1)
}

/// Sizes of a model's weight files, and how they are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WeightBytes {
    /// Of the language model.
    pub language: u64,
    /// Of the vision tower.
    pub vision: u64,
    /// Of the table of embeddings.
    pub text_embeddings: u64,
    /// Whether they are used where their files are mapped, as compressed weights are by the paged engine with
    /// [`crate::Precision::Fast`]. Then only what is used is in memory: of the table next to nothing, of the vision tower nothing
    /// without an image. Otherwise OpenVINO packs a copy of all.
    pub in_place: bool,
    /// As [`EngineOptions::low_memory`].
    pub low_memory: bool,
    /// How keys and values are kept beside them; [`KvCachePrecision::Auto`] is 8 bits with weights in place, else 16.
    pub kv_cache: KvCachePrecision,
}

impl WeightBytes {
    /// Sizes of a model's files, used as an engine with these options would. Files that cannot be read count as empty.
    pub fn of(files: &ModelFiles, config: &ModelConfig, options: &EngineOptions) -> Self {
        let size = |xml: &Path| std::fs::metadata(xml.with_extension("bin")).map_or(0, |m| m.len());
        let language = size(&files.language_model);
        // A byte and a half: between 8 bits and 16.
        let compressed = language < parameters(&config.text, config.vocab_size).saturating_mul(3) / 2;
        Self {
            language,
            vision: size(&files.vision_embeddings).saturating_add(size(&files.vision_embeddings_merger)),
            text_embeddings: size(&files.text_embeddings),
            in_place: compressed && options.has_kernels(),
            low_memory: options.low_memory,
            kv_cache: match (options.engine, options.kv_cache_precision, options.precision) {
                (EngineKind::Stateful, ..) => KvCachePrecision::Auto,
                (_, KvCachePrecision::Auto, Precision::F32) => KvCachePrecision::F32,
                (_, precision, _) => precision,
            },
        }
    }
}

/// Weights of a language model of the Qwen2 family.
fn parameters(text: &TextConfig, vocab_size: usize) -> u64 {
    let (hidden, kv) = (text.hidden_size as u64, (text.num_key_value_heads * text.head_dim) as u64);
    let layer = hidden * (2 * hidden + 2 * kv + 3 * text.intermediate_size as u64);
    (text.num_hidden_layers as u64)
        .saturating_mul(layer)
        .saturating_add(hidden.saturating_mul(vocab_size as u64))
}

/// Peak memory of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryPlan {
    /// The process itself, and what of the loaded model belongs to neither phase.
    pub base_bytes: u64,
    /// Encoding the largest image or frame: pixels, `pixel_values`, vision activations. Nothing without one.
    pub vision: Phase,
    /// The conversation: KV cache, embeddings and one piece of the prefill.
    pub language: Phase,
    /// What each further row of the conversation takes, beams and labels: a KV cache and logits of its own.
    pub row_bytes: u64,
    /// Whether the phases have their memory one after the other, as around a large image. Otherwise the first one's is not given
    /// back to the system at once.
    pub in_turn: bool,
}

/// What a part of the work takes, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Phase {
    /// Weights, where they are mapped or in the layout that OpenVINO packs them into.
    pub weights: u64,
    /// Everything else.
    pub work: u64,
}

impl Phase {
    fn bytes(self) -> u64 {
        self.weights.saturating_add(self.work)
    }
}

impl MemoryPlan {
    /// Plans a request whose largest image or frame has this grid (or that has none), with so many prompt tokens in all
    /// (placeholders included) and so many new ones.
    pub fn new(
        config: &ModelConfig,
        weights: &WeightBytes,
        grid: Option<GridThw>,
        prompt_tokens: usize,
        max_new_tokens: usize,
        prefill_chunk_tokens: usize,
    ) -> Self {
        let most = config.max_position_embeddings as u64;
        let tokens = (prompt_tokens.saturating_add(max_new_tokens) as u64).min(most);
        let text = &config.text;
        let logits = config.vocab_size as u64 * F32 * 2;
        let kv_cache = |tokens: u64| {
            let values =
                (text.num_key_value_heads * text.head_dim) as u64 * 2 * text.num_hidden_layers as u64;
            // In eighths of a byte, with the scales of groups; only values are of 4 bits.
            let eighths = match (weights.kv_cache, weights.in_place) {
                (KvCachePrecision::U4, _) => 8,
                (KvCachePrecision::U8, _) | (KvCachePrecision::Auto, true) => 10,
                (KvCachePrecision::F16, _) | (KvCachePrecision::Auto, false) => 16,
                (KvCachePrecision::F32, _) => 32,
            };
            tokens.saturating_mul(values).saturating_mul(eighths) / 8
        };
        let piece = match weights.in_place {
            true => prompt_tokens.min(prefill_chunk_tokens),
            false => prompt_tokens.min(piece_tokens(prompt_tokens, prefill_chunk_tokens)),
        } as u64;
        // Gate and up are one operation with weights in place.
        let wide = if weights.in_place { 1 } else { 2 };
        let widest = (text.intermediate_size * wide + text.hidden_size * 4) as u64;
        let activations = piece.saturating_mul(widest).saturating_mul(F32 * 2);
        let mask = if weights.in_place { 0 } else { piece.saturating_mul(tokens).saturating_mul(MASK_BYTES) };
        let embeddings = (prompt_tokens as u64).saturating_mul(text.hidden_size as u64 * F32);
        // Blocks of the prompt are shared by all rows.
        let own_tokens = if weights.in_place { max_new_tokens as u64 } else { tokens };
        let (base_bytes, vision_weights, language_weights) = loaded(config, weights);
        let work = kv_cache(tokens)
            .saturating_add(activations)
            .saturating_add(mask)
            .saturating_add(embeddings)
            .saturating_add(logits);
        Self {
            base_bytes,
            // Packed copies are there from the start.
            vision: Phase {
                weights: if weights.in_place && grid.is_none() { 0 } else { vision_weights },
                work: grid.map_or(0, |grid| vision_bytes(config, grid, weights.in_place)),
            },
            language: Phase { weights: language_weights, work },
            row_bytes: kv_cache(own_tokens.min(most)).saturating_add(logits),
            in_turn: weights.in_place && grid.is_some_and(|grid| weights.low_memory || is_large(grid)),
        }
    }

    /// The plan with so many rows, at least 1.
    #[must_use]
    pub fn with_rows(self, rows: usize) -> Self {
        let further = self.row_bytes.saturating_mul(rows.saturating_sub(1) as u64);
        let work = self.language.work.saturating_add(further);
        Self { language: Phase { work, ..self.language }, ..self }
    }

    /// The peak of the process.
    pub fn peak_bytes(&self) -> u64 {
        self.base_bytes.saturating_add(self.together(self.vision.bytes(), self.language.bytes()))
    }

    /// What the request needs beyond the loaded model.
    pub fn request_bytes(&self) -> u64 {
        self.together(self.vision.work, self.language.work)
    }

    fn together(&self, vision: u64, language: u64) -> u64 {
        if self.in_turn { vision.max(language) } else { vision.saturating_add(language) }
    }
}

/// What a loaded model takes beside the weights of the vision tower and the language model, and these.
fn loaded(config: &ModelConfig, weights: &WeightBytes) -> (u64, u64, u64) {
    if !weights.in_place {
        let base = BASE_BYTES.saturating_add(weights.text_embeddings.saturating_mul(2));
        return (base, weights.vision.saturating_mul(2), weights.language.saturating_mul(2));
    }
    let layers = (config.text.num_hidden_layers + config.vision.depth) as u64;
    (BASE_BYTES_IN_PLACE.saturating_add(layers.saturating_mul(LAYER_BYTES)), weights.vision, weights.language)
}

fn vision_bytes(config: &ModelConfig, grid: GridThw, in_place: bool) -> u64 {
    let rows = if in_place { VISION_ROWS_IN_PLACE } else { VISION_ROWS };
    let pixels = (grid.n_patches() as u64).saturating_mul(config.geometry.patch_len() as u64 * F32);
    let frame_patches = u64::from(grid.h) * u64::from(grid.w);
    let width = config.vision.hidden_size as u64;
    pixels.saturating_add(frame_patches.saturating_mul(width * F32 * rows))
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
    use crate::VisionConfig;

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

    /// The 2B's.
    fn weights(in_place: bool) -> WeightBytes {
        let (language, vision, text_embeddings) = (914_527_489, 665_511_648, 233_677_572);
        WeightBytes { language, vision, text_embeddings, in_place, ..WeightBytes::default() }
    }

    #[test]
    fn more_pixels_and_more_tokens_never_need_less() {
        for in_place in [false, true] {
            // Without it, large images alone have memory in turn.
            let weights = WeightBytes { low_memory: true, ..weights(in_place) };
            let plan = |side: u32, text: usize| {
                let grid = GridThw { t: 1, h: side, w: side };
                MemoryPlan::new(&config(), &weights, Some(grid), grid.n_tokens(2) + text, 128, 1024)
                    .peak_bytes()
            };
            assert!(
                plan(8, 20) <= plan(16, 20) && plan(16, 20) <= plan(100, 20) && plan(100, 20) < plan(248, 20)
            );
            assert!(plan(16, 20) <= plan(16, 20_000));
        }
    }

    /// Measured: see docs/memory.md.
    #[test]
    fn a_2b_in_place_is_planned_as_it_was_measured() {
        let grid = |h, w| Some(GridThw { t: 1, h, w });
        let cases = [
            (None, 23, 1120),
            (None, 6020, 1360),
            (grid(32, 32), 281, 1881),
            (grid(32, 32), 2087, 2049),
            (grid(64, 64), 1049, 1298),
            (grid(78, 138), 2716, 1500),
            (grid(142, 142), 5066, 1936),
        ];
        for (grid, tokens, measured) in cases {
            let plan = MemoryPlan::new(&config(), &weights(true), grid, tokens, 16, 1024).peak_bytes() >> 20;
            assert!(
                plan.abs_diff(measured) * 100 <= measured * 10,
                "{grid:?}, {tokens}: {plan} for {measured} MiB"
            );
        }
    }

    #[test]
    fn compressed_weights_are_used_in_place_and_others_are_not() {
        let folder = std::env::temp_dir().join(format!("qwen2vl-plan-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let of = |size: u64, options: &EngineOptions| {
            let xml = |name: &str| folder.join(name);
            std::fs::File::create(folder.join("l.bin")).unwrap().set_len(size).unwrap();
            let files = ModelFiles {
                vision_embeddings: xml("v.xml"),
                vision_embeddings_merger: xml("m.xml"),
                text_embeddings: xml("t.xml"),
                language_model: xml("l.xml"),
            };
            WeightBytes::of(&files, &config(), options)
        };
        let fast = EngineOptions::default();
        assert_eq!(of(915_000_000, &fast).in_place, fast.has_kernels());
        assert!(!of(3_100_000_000, &fast).in_place);
        let f32 = EngineOptions { precision: crate::Precision::F32, ..fast };
        assert_eq!((of(915_000_000, &f32).in_place, of(915_000_000, &f32).vision), (false, 0));
        assert_eq!(of(1, &f32).kv_cache, KvCachePrecision::F32);
        let stateful = EngineOptions { engine: EngineKind::Stateful, ..f32 };
        assert_eq!(of(1, &stateful).kv_cache, KvCachePrecision::Auto);
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn keys_and_values_count_as_they_are_kept() {
        use KvCachePrecision::{Auto, F16, F32, U4, U8};
        let bytes = |kv_cache, in_place| {
            let weights = WeightBytes { kv_cache, ..weights(in_place) };
            MemoryPlan::new(&config(), &weights, None, 6000, 16, 1024).language.work
        };
        assert_eq!((bytes(Auto, true), bytes(Auto, false)), (bytes(U8, true), bytes(F16, false)));
        let all = [U4, U8, F16, F32].map(|kv_cache| bytes(kv_cache, true));
        assert!(all.is_sorted_by(|a, b| a < b), "{all:?}");
        // 6,016 tokens of keys and values in 28 layers of 2 heads of 128.
        assert_eq!(all[3] - all[2], 6016 * 2 * 28 * 2 * 128 * 2);
    }

    #[test]
    fn each_row_has_a_cache_of_its_own() {
        let plan = MemoryPlan::new(&config(), &WeightBytes::default(), None, 1000, 24, 1024);
        // 1,024 tokens of keys and values in 28 layers of 2 heads of 128 values of 2 bytes.
        let cache = 1024 * 2 * 28 * 2 * 128 * 2;
        let bytes = |rows| plan.with_rows(rows).request_bytes();
        assert!(bytes(5) - bytes(1) >= 4 * cache && bytes(5) - bytes(1) < 5 * cache);
        assert_eq!((bytes(0), bytes(usize::MAX)), (bytes(1), u64::MAX));
    }

    #[test]
    fn the_larger_phase_counts_where_memory_is_had_in_turn() {
        let plan = |side: u32, low_memory, in_place| {
            let weights = WeightBytes { low_memory, ..weights(in_place) };
            let grid = GridThw { t: 1, h: side, w: side };
            MemoryPlan::new(&config(), &weights, Some(grid), 1000, 128, 1024)
        };
        let sides = [(62, false), (64, true)];
        for (side, large) in sides {
            assert!(plan(side, false, true).in_turn == large && plan(side, true, true).in_turn);
            assert!(!plan(side, true, false).in_turn, "packed copies stay");
        }
        let (together, in_turn) = (plan(62, false, true), plan(62, true, true));
        let largest = (in_turn.vision.bytes()).max(in_turn.language.bytes());
        assert_eq!(in_turn.peak_bytes(), in_turn.base_bytes + largest);
        assert_eq!(
            together.peak_bytes() - in_turn.peak_bytes(),
            in_turn.vision.bytes().min(in_turn.language.bytes())
        );
        assert_eq!(in_turn.request_bytes(), in_turn.vision.work.max(in_turn.language.work));
    }

    #[test]
    fn memory_grows_with_patches_not_with_their_square() {
        let bytes = |h: u32| {
            let grid = GridThw { t: 1, h, w: 248 };
            MemoryPlan::new(&config(), &WeightBytes::default(), Some(grid), 100, 1, 1024).vision.work
        };
        assert_eq!(bytes(200), 2 * bytes(100));
    }

    #[test]
    fn hostile_grids_do_not_overflow() {
        let grid = GridThw { t: u32::MAX, h: 1 << 16, w: 1 << 15 };
        let weights = WeightBytes { language: u64::MAX, ..WeightBytes::default() };
        assert!(
            MemoryPlan::new(&config(), &weights, Some(grid), usize::MAX, usize::MAX, 1).peak_bytes()
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
