//! A model whose cache is a list of tokens in blocks, and whose logits depend on every token of a row as the blocks hold
//! them: what is lost, mixed up or written over shows in the answer.

use qwen2vl_types::TokenId;

use super::step::{PagedModel, Step};
use crate::{Error, ModelConfig, TextConfig, VisionConfig};

pub(crate) const VOCAB: usize = 40;

/// Dimensions of it: embeddings of one value.
pub(crate) fn config() -> ModelConfig {
    ModelConfig {
        geometry: qwen2vl_types::PatchGeometry::default(),
        image_token_id: 37,
        video_token_id: 38,
        max_position_embeddings: 4096,
        vocab_size: VOCAB,
        vision: VisionConfig { hidden_size: 4, depth: 1, num_heads: 1 },
        text: TextConfig {
            hidden_size: 1,
            num_hidden_layers: 1,
            num_key_value_heads: 1,
            head_dim: 1,
            intermediate_size: 1,
        },
    }
}

/// What a slot of a block holds: token, positions, the embedding that stood for it.
type Slot = (TokenId, [i64; 3], u32);

pub(crate) struct ScriptedModel {
    block_tokens: usize,
    slots: Vec<Option<Slot>>,
    logits: Vec<f32>,
    poison: Option<TokenId>,
    /// Rows of each step.
    pub rows: Vec<usize>,
}

impl ScriptedModel {
    pub(crate) fn new(n_blocks: usize, block_tokens: usize) -> Self {
        let slots = vec![None; n_blocks * block_tokens];
        Self { block_tokens, slots, logits: Vec::new(), poison: None, rows: Vec::new() }
    }

    /// A step with this token fails.
    pub(crate) fn failing_at(self, token: TokenId) -> Self {
        Self { poison: Some(token), ..self }
    }
}

impl PagedModel for ScriptedModel {
    fn forward(&mut self, step: &Step) -> Result<&[f32], Error> {
        let size = self.block_tokens;
        for &(from, to) in &step.copies {
            let from = from as usize * size;
            self.slots.copy_within(from..from + size, to as usize * size);
        }
        self.rows.push(step.past_lens.len());
        if self.poison.is_some_and(|token| step.ids.contains(&token)) {
            // Half done, as a failing step may be: the first row's new slots are spoilt.
            let past = step.past_lens[0] as usize;
            self.slots[step.block_indices[past / size] as usize * size + past % size] = None;
            return Err(Error::OpenVino { action: "run the model".to_owned(), message: "poison".to_owned() });
        }
        self.logits.clear();
        let bounds = |begins: &[i32], row: usize| begins[row] as usize..begins[row + 1] as usize;
        let slot = |row: usize, i: usize| {
            let blocks = &step.block_indices[bounds(&step.block_indices_begins, row)];
            blocks[i / size] as usize * size + i % size
        };
        let sequences = 0..step.past_lens.len();
        // As OpenVINO does: all of the cache is written before any of it is read.
        for row in sequences.clone() {
            let past = step.past_lens[row] as usize;
            for (i, token) in bounds(&step.subsequence_begins, row).enumerate() {
                let placed = step.placed.iter().find(|p| (p.start..p.start + p.n).contains(&token));
                let embedding = placed.map_or(0, |p| {
                    let mut values = [0.0; 1];
                    p.embeddings.copy_row(p.first_row + token - p.start, &mut values);
                    values[0].to_bits()
                });
                let positions = [0, 1, 2].map(|axis: usize| step.positions[axis][token]);
                self.slots[slot(row, past + i)] = Some((step.ids[token], positions, embedding));
            }
        }
        let mut wanted = step.logits_indices.iter().map(|token| *token as usize).peekable();
        for row in sequences {
            let tokens = bounds(&step.subsequence_begins, row);
            while let Some(token) = wanted.next_if(|token| tokens.contains(token)) {
                let end = step.past_lens[row] as usize + token - tokens.start + 1;
                let context = (0..end).map(|i| self.slots[slot(row, i)].expect("a slot was written"));
                self.logits.extend(logits(context));
            }
        }
        assert_eq!(wanted.next(), None, "logits of no sequence's token");
        Ok(&self.logits)
    }
}

/// Logits after a row of slots.
fn logits(context: impl Iterator<Item = Slot>) -> Vec<f32> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut mix = |value: u64| {
        state = (state ^ value).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        state ^= state >> 29;
        state
    };
    for (token, positions, embedding) in context {
        mix(u64::from(token));
        positions.iter().for_each(|p| _ = mix(*p as u64));
        mix(u64::from(embedding));
    }
    (0..VOCAB).map(|i| (mix(i as u64) >> 40) as f32).collect()
}

/// The likeliest token.
pub(crate) fn best(logits: &[f32]) -> TokenId {
    let best = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    best.map_or(0, |(token, _)| token as TokenId)
}

/// Logits after a row of tokens on positions `0..`, without embeddings.
pub(crate) fn expected(tokens: &[TokenId]) -> Vec<f32> {
    logits(tokens.iter().enumerate().map(|(i, token)| (*token, [i as i64; 3], 0)))
}

/// The answer to a prompt on positions `0..` without embeddings, greedily and by itself.
pub(crate) fn answer(prompt: &[TokenId], n: usize) -> Vec<TokenId> {
    let mut tokens = prompt.to_vec();
    for _ in 0..n {
        tokens.push(best(&expected(&tokens)));
    }
    tokens.split_off(prompt.len())
}
