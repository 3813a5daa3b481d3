//! Against transformers 4.57.6: `tools/reference/logits.py` ran its processors on random rows. Resulting rows are
//! compared to the bit, by their hash.

use std::collections::BTreeMap;

use qwen2vl_testkit::{check_all, golden, read_jsonl, sha256_f32};
use qwen2vl_types::TokenId;
use serde::Deserialize;

use super::history::History;
use super::logprobs::Recorder;
use super::processors::process;
use super::warpers::Candidates;
use crate::{GenerationConfig, Sampler};

/// What the reference has in f64 and six digits, and this crate in f32: rows are within ±16, whose f32 steps are 1e-6.
const LOGPROB_TOLERANCE: f32 = 3e-6;

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Options {
    do_sample: Option<bool>,
    temperature: Option<f32>,
    top_k: Option<usize>,
    top_p: Option<f32>,
    min_p: Option<f32>,
    repetition_penalty: Option<f32>,
    presence_penalty: Option<f32>,
    frequency_penalty: Option<f32>,
    no_repeat_ngram_size: Option<usize>,
    suppress_tokens: Vec<TokenId>,
    logit_bias: BTreeMap<TokenId, f32>,
    min_new_tokens: Option<usize>,
    stop_token_ids: Vec<TokenId>,
    logprobs: Option<usize>,
}

impl Options {
    fn config(&self) -> GenerationConfig {
        let default = GenerationConfig::default();
        GenerationConfig {
            do_sample: self.do_sample.unwrap_or(default.do_sample),
            temperature: self.temperature.unwrap_or(default.temperature),
            top_k: self.top_k.unwrap_or(default.top_k),
            top_p: self.top_p.unwrap_or(default.top_p),
            min_p: self.min_p.unwrap_or(default.min_p),
            repetition_penalty: self.repetition_penalty.unwrap_or(default.repetition_penalty),
            presence_penalty: self.presence_penalty.unwrap_or(default.presence_penalty),
            frequency_penalty: self.frequency_penalty.unwrap_or(default.frequency_penalty),
            no_repeat_ngram_size: self.no_repeat_ngram_size.unwrap_or(default.no_repeat_ngram_size),
            suppress_tokens: self.suppress_tokens.clone(),
            logit_bias: self.logit_bias.clone(),
            min_new_tokens: self.min_new_tokens.unwrap_or(default.min_new_tokens),
            stop_token_ids: self.stop_token_ids.clone(),
            logprobs: self.logprobs,
            ..default
        }
    }
}

#[derive(Debug, Deserialize)]
struct Row {
    options: Options,
    #[serde(default)]
    floor: bool,
    #[serde(flatten)]
    want: Want,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Want {
    Row { hash: String, argmax: TokenId, kept: Option<usize> },
    Logprobs { token: TokenId, logprob: f32, top: Vec<(TokenId, f32)> },
}

/// The numbers that the script made its inputs of.
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}

/// Logits and history of row `row` of file number `file`.
fn inputs(file: u64, row: u64) -> (Vec<f32>, Vec<TokenId>, Vec<TokenId>) {
    let mut made = SplitMix64(file << 32 | row);
    let vocab = 64 + made.below(449);
    let (n_prompt, n_answer) = (1 + made.below(24), made.below(24));
    let alphabet = if row % 2 == 1 { 4 } else { vocab };
    let mut ids = |n: usize| (0..n).map(|_| made.below(alphabet) as TokenId).collect::<Vec<_>>();
    let (prompt, answer) = (ids(n_prompt), ids(n_answer));
    let logits = (0..vocab).map(|_| (made.next() >> 40) as f32 / (1 << 20) as f32 - 8.0).collect();
    (logits, prompt, answer)
}

/// The row that the warpers leave: what is not kept is minus infinity.
fn warped(config: &GenerationConfig, logits: &[f32]) -> Vec<f32> {
    let mut candidates = Candidates::default();
    candidates.warp(config, logits);
    let mut row = vec![f32::NEG_INFINITY; logits.len()];
    candidates.list().iter().for_each(|c| row[c.id as usize] = c.logit);
    row
}

fn check(file: u64, index: u64, row: &Row) -> Result<(), String> {
    let (mut logits, prompt, answer) = inputs(file, index);
    if row.floor {
        logits.iter_mut().for_each(|l| *l = l.floor());
    }
    let config = row.options.config();
    let mut history = History::new(&prompt);
    answer.iter().for_each(|token| history.push(*token));
    match &row.want {
        Want::Row { hash, argmax, kept } => {
            process(&config, &history, &mut logits);
            let result = if kept.is_some() { warped(&config, &logits) } else { logits.clone() };
            let n_finite = result.iter().filter(|l| l.is_finite()).count();
            if kept.is_some_and(|kept| kept != n_finite) {
                return Err(format!("{n_finite} tokens are left, {kept:?} in the reference"));
            }
            let greedy = GenerationConfig::default();
            let chosen = Sampler::new(&greedy, &[]).and_then(|mut s| s.sample(&mut result.clone()));
            match chosen {
                Ok(token) if token == *argmax => {}
                other => return Err(format!("the largest is {other:?}, {argmax} in the reference")),
            }
            let got = sha256_f32(&result);
            if got.starts_with(hash.as_str()) { Ok(()) } else { Err(format!("the row differs: {got}")) }
        }
        Want::Logprobs { token, logprob, top } => {
            let mut recorder = Recorder::new(config.logprobs.unwrap_or(0));
            recorder.look(&logits);
            recorder.record(*token);
            let got = recorder.finish();
            let (chosen, most) = got.iter().next().ok_or("nothing was recorded")?;
            let near = |a: f32, b: f32| (a - b).abs() <= LOGPROB_TOLERANCE;
            let same = most.len() == top.len()
                && most.iter().zip(top).all(|(m, t)| m.token == t.0 && near(m.logprob, t.1));
            if same && chosen.token == *token && near(chosen.logprob, *logprob) {
                Ok(())
            } else {
                Err(format!("got {chosen:?} {most:?}"))
            }
        }
    }
}

#[test]
fn rows_are_those_of_transformers() {
    // In the script's order.
    let files = [
        "bias",
        "repetition",
        "frequency",
        "ngram",
        "min_new_tokens",
        "suppress",
        "temperature",
        "top_k",
        "top_p",
        "min_p",
        "logprobs",
        "everything",
    ];
    let mut cases: Vec<(u64, u64, &str, Row)> = Vec::new();
    for (number, file) in (0..).zip(files) {
        let rows: Vec<Row> = read_jsonl(&golden(&format!("logits/{file}.jsonl")));
        assert!(rows.len() >= 200, "{file} has {} rows", rows.len());
        cases.extend((0..).zip(rows).map(|(index, row)| (number, index, file, row)));
    }
    check_all(
        &cases,
        |(_, index, file, row)| format!("{file} row {index} {:?}", row.options),
        |(number, index, _, row)| check(*number, *index, row),
    );
}

/// A sampler on options with everything chooses what the rows say: greedy the largest, sampled only what is kept.
#[test]
fn samplers_choose_from_the_rows_of_transformers() {
    let number = 11;
    let rows: Vec<Row> = read_jsonl(&golden("logits/everything.jsonl"));
    let cases: Vec<(u64, Row)> = (0..).zip(rows).collect();
    check_all(
        &cases,
        |(index, row)| format!("row {index} {:?}", row.options),
        |(index, row)| {
            let (logits, prompt, _) = inputs(number, *index);
            let config = row.options.config();
            // Without an answer so far: a sampler is fed only through what it chooses itself.
            let mut processed = logits.clone();
            process(&config, &History::new(&prompt), &mut processed);
            let left = if config.do_sample { warped(&config, &processed) } else { processed };
            for seed in 0..8 {
                let config = GenerationConfig { seed, ..config.clone() };
                let mut sampler = Sampler::new(&config, &prompt).map_err(|e| e.to_string())?;
                let token = sampler.sample(&mut logits.clone()).map_err(|e| e.to_string())?;
                if !left[token as usize].is_finite() {
                    return Err(format!("seed {seed} drew {token}, which is excluded"));
                }
                if !config.do_sample && left.iter().any(|l| *l > left[token as usize]) {
                    return Err(format!("greedy took {token}"));
                }
            }
            Ok(())
        },
    );
}
