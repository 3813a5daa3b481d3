//! A scripted model of 120 tokens in rows: its logits are made from the last two tokens, as
//! `tools/reference/beams.py` makes them.

use qwen2vl_runtime::{CancelToken, Error, LanguageSession, Prompt};

pub const VOCAB: usize = 120;

/// Keeps the tokens of each row, and checks what it is asked.
pub struct Hashed {
    seed: u64,
    rope_delta: i64,
    rows: Vec<Vec<u32>>,
    logits: Vec<f32>,
    /// Calls of `decode`.
    pub steps: usize,
    /// The most rows of a call, and the rows of all.
    pub most_rows: usize,
    pub all_rows: usize,
    /// Prompt passes.
    pub prefills: usize,
    /// Cancels in this call of `decode`.
    pub cancel_after: Option<(usize, CancelToken)>,
}

impl Hashed {
    pub fn new(seed: u64, rope_delta: i64) -> Self {
        Self {
            seed,
            rope_delta,
            rows: Vec::new(),
            logits: Vec::new(),
            steps: 0,
            most_rows: 0,
            all_rows: 0,
            prefills: 0,
            cancel_after: None,
        }
    }

    fn compute(&mut self) -> &mut [f32] {
        let rows = self.rows.iter().map(|row| logits(self.seed, row));
        self.logits = rows.collect::<Vec<_>>().concat();
        &mut self.logits
    }
}

/// 24 bits each, from -8 on in steps of 2^-20.
pub fn logits(seed: u64, tokens: &[u32]) -> Vec<f32> {
    let last = |n: usize| u64::from(tokens[tokens.len() - n]);
    let mut state = seed << 32 | last(2) << 16 | last(1);
    let mut next = || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    };
    (0..VOCAB).map(|_| (next() >> 40) as f32 / (1 << 20) as f32 - 8.0).collect()
}

impl LanguageSession for Hashed {
    fn prefill(&mut self, prompt: &Prompt<'_>, cancel: &CancelToken) -> Result<Option<&mut [f32]>, Error> {
        self.prefills += 1;
        self.rows = vec![prompt.input_ids.to_vec()];
        Ok(if cancel.is_cancelled() { None } else { Some(self.compute()) })
    }

    fn decode(&mut self, parents: &[usize], tokens: &[u32], position: i64) -> Result<&mut [f32], Error> {
        assert_eq!(position, self.past_tokens() as i64 + self.rope_delta);
        let n = tokens.len() / parents.len();
        let continued = parents.iter().zip(tokens.chunks(n));
        self.rows = continued.map(|(parent, tokens)| [&self.rows[*parent], tokens].concat()).collect();
        self.steps += 1;
        self.most_rows = self.most_rows.max(parents.len());
        self.all_rows += parents.len();
        if let Some((steps, cancel)) = &self.cancel_after
            && *steps == self.steps
        {
            cancel.cancel();
        }
        Ok(self.compute())
    }

    fn verifies(&self) -> bool {
        true
    }

    fn free_guesses(&self) -> usize {
        3
    }

    fn verify(&mut self, tokens: &[u32], guessed: usize, position: i64) -> Result<&mut [f32], Error> {
        assert_eq!(position, self.past_tokens() as i64 + self.rope_delta);
        assert!(self.rows.len() == 1 && guessed > 0 && guessed < tokens.len());
        self.rows[0].extend(tokens);
        self.steps += 1;
        let row = &self.rows[0];
        let rows = (row.len() - guessed..=row.len()).map(|len| logits(self.seed, &row[..len]));
        self.logits = rows.collect::<Vec<_>>().concat();
        Ok(&mut self.logits)
    }

    fn past_tokens(&self) -> usize {
        self.rows.first().map_or(0, Vec::len)
    }

    fn rewind(&mut self, past_tokens: usize) {
        self.rows.truncate(1);
        self.rows[0].truncate(past_tokens);
    }
}
