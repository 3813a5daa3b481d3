//! The token loop on random logits.

use std::ops::ControlFlow;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use qwen2vl_grammar::{Error, Format, Grammar, GrammarConstraint, GrammarEngine};
use qwen2vl_runtime::{
    CancelToken, Constraint, FinishReason, Generation, GenerationConfig, LanguageSession, Prompt, generate,
};
use qwen2vl_testkit::demo_model_dir;
use qwen2vl_tokenizer::Tokenizer;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The logits of Qwen2-VL-2B.
pub const VOCAB_SIZE: usize = 151_936;
pub const IM_END: u32 = 151_645;
pub const ENDOFTEXT: u32 = 151_643;

pub static TOKENIZER: LazyLock<Arc<Tokenizer>> =
    LazyLock::new(|| Arc::new(Tokenizer::from_file(demo_model_dir().join("tokenizer.json")).unwrap()));

pub static ENGINE: LazyLock<GrammarEngine> =
    LazyLock::new(|| GrammarEngine::new(TOKENIZER.clone(), VOCAB_SIZE, &[IM_END, ENDOFTEXT]).unwrap());

pub fn compile(format: &Format) -> Result<Grammar, Error> {
    ENGINE.compile(format)
}

/// Logits from a seed and the number of the step alone.
pub struct RandomModel {
    rng: ChaCha8Rng,
    logits: Vec<f32>,
    /// Added to the stop token's logit: how much the model wants to end.
    eager_to_end: f32,
    past: usize,
    pub decode_steps: usize,
}

impl RandomModel {
    pub fn new(seed: u64, eager_to_end: f32) -> Self {
        let rng = ChaCha8Rng::seed_from_u64(seed);
        Self { rng, logits: vec![0.0; VOCAB_SIZE], eager_to_end, past: 0, decode_steps: 0 }
    }

    fn step(&mut self) -> &mut [f32] {
        // Cheap: a random beginning, then a fixed scatter of it.
        let mut state: u32 = self.rng.random();
        for logit in &mut self.logits {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *logit = (state >> 8) as f32 / (1 << 22) as f32;
        }
        self.logits[IM_END as usize] += self.eager_to_end;
        &mut self.logits
    }
}

impl LanguageSession for RandomModel {
    fn prefill(
        &mut self,
        prompt: &Prompt<'_>,
        _: &CancelToken,
    ) -> Result<Option<&mut [f32]>, qwen2vl_runtime::Error> {
        self.past = prompt.input_ids.len();
        Ok(Some(self.step()))
    }

    fn decode(&mut self, _: &[usize], tokens: &[u32], _: i64) -> Result<&mut [f32], qwen2vl_runtime::Error> {
        self.past += tokens.len();
        self.decode_steps += 1;
        Ok(self.step())
    }

    fn past_tokens(&self) -> usize {
        self.past
    }

    fn rewind(&mut self, past_tokens: usize) {
        self.past = past_tokens;
    }
}

/// The constraint, with what it costs.
pub struct Timed {
    pub inner: GrammarConstraint,
    pub times: Arc<std::sync::Mutex<Vec<Duration>>>,
}

impl Constraint for Timed {
    fn mask(&mut self, logits: &mut [f32], remaining: usize) -> Result<(), qwen2vl_runtime::Error> {
        let started = Instant::now();
        let result = self.inner.mask(logits, remaining);
        self.times.lock().unwrap().push(started.elapsed());
        result
    }

    fn commit(&mut self, token: u32) -> Result<(), qwen2vl_runtime::Error> {
        self.inner.commit(token)
    }

    fn forced(&mut self, remaining: usize) -> Result<Vec<u32>, qwen2vl_runtime::Error> {
        self.inner.forced(remaining)
    }

    fn is_finished(&self) -> bool {
        self.inner.is_finished()
    }

    fn closed_early(&self) -> bool {
        self.inner.closed_early()
    }

    fn fork(&self) -> Box<dyn Constraint> {
        self.inner.fork()
    }
}

pub struct Answer {
    pub text: String,
    pub generation: Generation,
    pub decode_steps: usize,
    /// Of each mask.
    pub times: Vec<Duration>,
}

impl Answer {
    pub fn is_complete(&self) -> bool {
        self.generation.finish_reason == FinishReason::Stop
    }
}

/// What a random model answers under a format within so many tokens.
pub fn answer(
    grammar: &Grammar,
    seed: u64,
    max_new_tokens: usize,
    eager_to_end: f32,
) -> Result<Answer, String> {
    let inner = grammar.start(max_new_tokens, &[IM_END, ENDOFTEXT]).map_err(|e| e.to_string())?;
    let times = Arc::default();
    let constraint = Box::new(Timed { inner, times: Arc::clone(&times) });
    let mut model = RandomModel::new(seed, eager_to_end);
    let positions = [vec![0], vec![0], vec![0]];
    let prompt =
        Prompt { input_ids: &[1], position_ids: &positions, rope_delta: 0, images: &[], videos: &[] };
    let config = GenerationConfig {
        max_new_tokens,
        stop_token_ids: vec![IM_END, ENDOFTEXT],
        do_sample: seed.is_multiple_of(2),
        seed,
        ..GenerationConfig::default()
    };
    let generation =
        generate(&mut model, &prompt, &config, 1 << 20, Some(constraint), &CancelToken::new(), &mut |_| {
            ControlFlow::Continue(())
        })
        .map_err(|e| e.to_string())?;
    let text = TOKENIZER.detokenize(&generation.token_ids, false);
    let times = std::mem::take(&mut *times.lock().unwrap());
    Ok(Answer { text, generation, decode_steps: model.decode_steps, times })
}
