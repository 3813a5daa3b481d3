//! From logits to a token: repetition penalty, temperature, top-k, top-p, a seeded draw.
//!
//! Order and meaning follow Hugging Face transformers 4.57.6: `RepetitionPenaltyLogitsProcessor`, then
//! `TemperatureLogitsWarper`, `TopKLogitsWarper`, `TopPLogitsWarper`, then a multinomial draw. The draw itself uses
//! ChaCha8 and cannot equal torch's.

use std::collections::HashSet;

use qwen2vl_types::TokenId;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{Error, GenerationConfig};

impl GenerationConfig {
    /// Checks every option against its range.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`] naming the first option that is out of range.
    pub fn validate(&self) -> Result<(), Error> {
        let invalid = |name, value: String, allowed| Err(Error::InvalidOption { name, value, allowed });
        if self.max_new_tokens == 0 {
            return invalid("max_new_tokens", "0".to_owned(), "1 or more");
        }
        if !(self.repetition_penalty.is_finite() && self.repetition_penalty > 0.0) {
            return invalid("repetition_penalty", self.repetition_penalty.to_string(), "a number above 0");
        }
        if !(self.temperature.is_finite() && self.temperature > 0.0) {
            return invalid(
                "temperature",
                self.temperature.to_string(),
                "a number above 0; for greedy answers turn do_sample off",
            );
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return invalid("top_p", self.top_p.to_string(), "above 0 and at most 1");
        }
        Ok(())
    }
}

/// Chooses the tokens of one answer.
#[derive(Debug, Clone)]
pub struct Sampler {
    do_sample: bool,
    temperature: f32,
    top_k: usize,
    top_p: f32,
    repetition_penalty: f32,
    seen: HashSet<TokenId>,
    candidates: Vec<(f32, TokenId)>,
    rng: ChaCha8Rng,
}

impl Sampler {
    /// A sampler for an answer to `prompt`, whose tokens count as seen by the repetition penalty.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`] if the options are out of range.
    pub fn new(config: &GenerationConfig, prompt: &[TokenId]) -> Result<Self, Error> {
        config.validate()?;
        let penalizes = config.repetition_penalty != 1.0;
        Ok(Self {
            do_sample: config.do_sample,
            temperature: config.temperature,
            top_k: config.top_k,
            top_p: config.top_p,
            repetition_penalty: config.repetition_penalty,
            seen: if penalizes { prompt.iter().copied().collect() } else { HashSet::new() },
            candidates: Vec::new(),
            rng: ChaCha8Rng::seed_from_u64(config.seed),
        })
    }

    /// Chooses a token from `logits [vocab_size]`, which the penalty may change; `None` if no logit is finite.
    pub fn sample(&mut self, logits: &mut [f32]) -> Option<TokenId> {
        self.penalize(logits);
        let token = if self.do_sample && self.top_k != 1 { self.draw(logits) } else { argmax(logits) }?;
        if self.repetition_penalty != 1.0 {
            self.seen.insert(token);
        }
        Some(token)
    }

    fn penalize(&self, logits: &mut [f32]) {
        for &id in &self.seen {
            if let Some(logit) = logits.get_mut(id as usize) {
                *logit = if *logit < 0.0 {
                    *logit * self.repetition_penalty
                } else {
                    *logit / self.repetition_penalty
                };
            }
        }
    }

    /// Keeps the candidates, most probable first, and draws one.
    fn draw(&mut self, logits: &[f32]) -> Option<TokenId> {
        let candidates = &mut self.candidates;
        candidates.clear();
        candidates.extend(
            logits
                .iter()
                .enumerate()
                .filter(|(_, l)| l.is_finite())
                .map(|(i, l)| (l / self.temperature, i as TokenId)),
        );
        let by_logit = |a: &(f32, TokenId), b: &(f32, TokenId)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
        if self.top_k > 0 && self.top_k < candidates.len() {
            // Like the reference, ties with the k-th stay.
            let (_, kth, _) = candidates.select_nth_unstable_by(self.top_k - 1, by_logit);
            let threshold = kth.0;
            candidates.retain(|c| c.0 >= threshold);
        }
        let top = candidates.iter().map(|c| c.0).max_by(f32::total_cmp)?;
        let mut total = 0.0f64;
        for candidate in candidates.iter_mut() {
            candidate.0 = (candidate.0 - top).exp();
            total += f64::from(candidate.0);
        }
        candidates.sort_unstable_by(by_logit);
        if self.top_p < 1.0 {
            total = keep_top_p(candidates, total, f64::from(self.top_p));
        }
        let mut rest = self.rng.random::<f64>() * total;
        for &(weight, id) in candidates.iter() {
            rest -= f64::from(weight);
            if rest < 0.0 {
                return Some(id);
            }
        }
        candidates.last().map(|c| c.1)
    }
}

/// Drops the tail whose mass is at most `1 - top_p`, at least one candidate stays; returns the mass that stays.
fn keep_top_p(candidates: &mut Vec<(f32, TokenId)>, total: f64, top_p: f64) -> f64 {
    let mut before = 0.0;
    let mut keep = 0;
    for &(weight, _) in candidates.iter() {
        // A candidate goes when it and all behind it weigh at most 1 - top_p, that is, when those before reach top_p.
        if keep > 0 && total - before <= (1.0 - top_p) * total {
            break;
        }
        before += f64::from(weight);
        keep += 1;
    }
    candidates.truncate(keep);
    before
}

/// The first of the largest logits; NaN never wins.
fn argmax(logits: &[f32]) -> Option<TokenId> {
    let mut best: Option<(usize, f32)> = None;
    for (i, &logit) in logits.iter().enumerate() {
        if logit > best.map_or(f32::NEG_INFINITY, |b| b.1) {
            best = Some((i, logit));
        }
    }
    best.filter(|b| b.1.is_finite()).map(|b| b.0 as TokenId)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> GenerationConfig {
        GenerationConfig { do_sample: true, ..GenerationConfig::default() }
    }

    fn frequencies(config: &GenerationConfig, logits: &[f32], n: usize) -> Vec<f64> {
        let mut sampler = Sampler::new(config, &[]).unwrap();
        let mut counts = vec![0usize; logits.len()];
        for _ in 0..n {
            counts[sampler.sample(&mut logits.to_vec()).unwrap() as usize] += 1;
        }
        counts.iter().map(|&c| c as f64 / n as f64).collect()
    }

    #[test]
    fn greedy_takes_the_first_of_equal_logits_and_ignores_nan() {
        let mut sampler = Sampler::new(&GenerationConfig::default(), &[]).unwrap();
        assert_eq!(sampler.sample(&mut [0.0, 2.0, f32::NAN, 2.0]), Some(1));
        assert_eq!(sampler.sample(&mut [f32::NAN, f32::NEG_INFINITY]), None);
        assert_eq!(sampler.sample(&mut []), None);
    }

    #[test]
    fn draws_follow_the_distribution() {
        let logits = [1.0f32, 0.0, -1.0, 3.0];
        let got = frequencies(&GenerationConfig { temperature: 2.0, ..config() }, &logits, 40_000);
        let weights: Vec<f64> = logits.iter().map(|l| f64::from(l / 2.0).exp()).collect();
        let total: f64 = weights.iter().sum();
        for (g, w) in got.iter().zip(&weights) {
            // Five standard deviations of a frequency over 40,000 draws are at most 0.0125.
            assert!((g - w / total).abs() < 0.0125, "{got:?}");
        }
    }

    #[test]
    fn top_k_and_top_p_cut_what_the_reference_cuts() {
        let logits = [0.0f32, 1.0, 2.0, 2.0, -1.0];
        let kept = |c: GenerationConfig| {
            let f = frequencies(&c, &logits, 4000);
            (0..logits.len()).filter(|&i| f[i] > 0.0).collect::<Vec<_>>()
        };
        assert_eq!(kept(GenerationConfig { top_k: 2, ..config() }), [2, 3]);
        assert_eq!(kept(GenerationConfig { top_k: 3, ..config() }), [1, 2, 3]);
        // A tie with the k-th stays.
        let tie = frequencies(&GenerationConfig { top_k: 2, ..config() }, &[1.0, 1.0, 1.0, 0.0], 4000);
        assert!(tie[..3].iter().all(|&f| f > 0.0) && tie[3] == 0.0);
        // Probabilities are .05 .14 .38 .38 .02 (rounded): .7 needs the two largest, .8 the next as well.
        assert_eq!(kept(GenerationConfig { top_p: 0.7, ..config() }), [2, 3]);
        assert_eq!(kept(GenerationConfig { top_p: 0.8, ..config() }), [1, 2, 3]);
        assert_eq!(kept(GenerationConfig { top_p: 0.001, ..config() }).len(), 1);
    }

    #[test]
    fn the_same_seed_gives_the_same_draws_and_another_one_others() {
        let run = |seed| {
            let mut sampler = Sampler::new(&GenerationConfig { seed, ..config() }, &[]).unwrap();
            (0..64).map(|_| sampler.sample(&mut [0.0; 100]).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
    }

    #[test]
    fn the_penalty_divides_positive_and_multiplies_negative_logits_of_prompt_and_answer() {
        let config = GenerationConfig { repetition_penalty: 2.0, ..GenerationConfig::default() };
        let mut sampler = Sampler::new(&config, &[0, 2, 2, 900]).unwrap();
        let mut logits = [4.0, 1.5, -1.0];
        assert_eq!(sampler.sample(&mut logits), Some(0));
        assert_eq!(logits, [2.0, 1.5, -2.0]);
        assert_eq!(sampler.sample(&mut [2.0, 1.5, -1.0]), Some(1));
        assert_eq!(sampler.sample(&mut [1.0, 1.5, -1.0]), Some(1));
        assert_eq!(sampler.sample(&mut [1.8, 1.5, -1.0]), Some(0));
    }

    #[test]
    fn options_out_of_range_are_named() {
        let cases = [
            (GenerationConfig { max_new_tokens: 0, ..config() }, "max_new_tokens is 0"),
            (GenerationConfig { temperature: 0.0, ..config() }, "temperature is 0"),
            (GenerationConfig { temperature: f32::NAN, ..config() }, "temperature is NaN"),
            (GenerationConfig { top_p: 1.5, ..config() }, "top_p is 1.5"),
            (GenerationConfig { top_p: 0.0, ..config() }, "top_p is 0"),
            (GenerationConfig { repetition_penalty: -1.0, ..config() }, "repetition_penalty is -1"),
        ];
        for (config, want) in cases {
            let error = Sampler::new(&config, &[]).unwrap_err().to_string();
            assert!(error.contains(want), "{error}");
        }
    }
}
