//! From logits to a token: the options' changes to the row, then the most probable token or a seeded draw.
//!
//! What the options change is in `logits`. The draw itself uses ChaCha8 and cannot equal torch's; it depends on the
//! seed and the row alone, so on nothing that is asked at the same time.

use qwen2vl_types::TokenId;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::logits::history::History;
use crate::logits::logprobs::Recorder;
use crate::logits::processors::process;
use crate::logits::warpers::Candidates;
use crate::{Error, GenerationConfig, Logprobs};

/// Chooses the tokens of one answer.
#[derive(Debug, Clone)]
pub struct Sampler {
    config: GenerationConfig,
    history: History,
    candidates: Candidates,
    recorder: Option<Recorder>,
    rng: ChaCha8Rng,
}

impl Sampler {
    /// A sampler for an answer to `prompt`, whose tokens count for the repetition penalty and repeated n-grams.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`] if the options are out of range.
    pub fn new(config: &GenerationConfig, prompt: &[TokenId]) -> Result<Self, Error> {
        config.validate()?;
        Ok(Self {
            config: config.clone(),
            history: History::new(prompt),
            candidates: Candidates::default(),
            recorder: config.logprobs.map(Recorder::new),
            rng: ChaCha8Rng::seed_from_u64(config.seed),
        })
    }

    /// The draws of the `index`-th of several answers to one prompt: each has its own, all from one seed.
    #[must_use]
    pub fn for_sequence(mut self, index: usize) -> Self {
        self.rng.set_stream(index as u64);
        self
    }

    /// Takes note of a token that was not chosen here.
    pub fn push(&mut self, token: TokenId) {
        self.history.push(token);
    }

    /// Chooses a token from `logits [vocab_size]`, which the options may change.
    ///
    /// # Errors
    ///
    /// [`Error::NothingAllowed`] if the options exclude every token, [`Error::Numerical`] if no logit is finite.
    pub fn sample(&mut self, logits: &mut [f32]) -> Result<TokenId, Error> {
        self.sample_among(logits, |_| Ok(()))
    }

    /// As [`Sampler::sample`], of logits that `narrow` changes first; log-probabilities are those before it.
    pub(crate) fn sample_among(
        &mut self,
        logits: &mut [f32],
        narrow: impl FnOnce(&mut [f32]) -> Result<(), Error>,
    ) -> Result<TokenId, Error> {
        if let Some(recorder) = &mut self.recorder {
            recorder.look(logits);
        }
        narrow(logits)?;
        let excluded = process(&self.config, &self.history, logits);
        let token = if self.config.do_sample && self.config.top_k != 1 {
            self.candidates.warp(&self.config, logits);
            self.candidates.draw(self.rng.random())
        } else {
            argmax(logits)
        };
        let Some(token) = token else {
            let step = self.history.n_new_tokens();
            return Err(if excluded { Error::NothingAllowed { step } } else { Error::Numerical { step } });
        };
        self.history.push(token);
        if let Some(recorder) = &mut self.recorder {
            recorder.record(token);
        }
        Ok(token)
    }

    /// Log-probabilities of the tokens chosen, if the options ask for them.
    pub fn into_logprobs(self) -> Option<Logprobs> {
        self.recorder.map(Recorder::finish)
    }
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
        assert_eq!(sampler.sample(&mut [0.0, 2.0, f32::NAN, 2.0]).unwrap(), 1);
        for row in [&mut [f32::NAN, f32::NEG_INFINITY][..], &mut []] {
            assert!(matches!(sampler.sample(row), Err(Error::Numerical { step: 1 })));
        }
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
    fn min_p_keeps_what_is_near_the_most_probable() {
        let logits = [0.0f32, 1.0, 2.0, 2.0, -1.0];
        // e^-1 is 0.37, e^-2 is 0.14.
        for (min_p, want) in [(1.0, &[2, 3][..]), (0.4, &[2, 3]), (0.3, &[1, 2, 3]), (0.1, &[0, 1, 2, 3])] {
            let f = frequencies(&GenerationConfig { min_p, ..config() }, &logits, 4000);
            assert_eq!((0..logits.len()).filter(|&i| f[i] > 0.0).collect::<Vec<_>>(), want, "{min_p}");
        }
    }

    #[test]
    fn the_penalty_counts_prompt_and_answer() {
        let config = GenerationConfig { repetition_penalty: 2.0, ..GenerationConfig::default() };
        let mut sampler = Sampler::new(&config, &[0, 2, 2, 900]).unwrap();
        let mut logits = [4.0, 1.5, -1.0];
        assert_eq!(sampler.sample(&mut logits).unwrap(), 0);
        assert_eq!(logits, [2.0, 1.5, -2.0]);
        for (mut row, want) in [([2.0, 1.5, -1.0], 1), ([1.0, 1.5, -1.0], 1), ([1.8, 1.5, -1.0], 0)] {
            assert_eq!(sampler.sample(&mut row).unwrap(), want);
        }
    }

    #[test]
    fn options_that_exclude_everything_are_told_from_damaged_logits() {
        let config = GenerationConfig { suppress_tokens: vec![0, 1], ..GenerationConfig::default() };
        for config in [config.clone(), GenerationConfig { do_sample: true, ..config }] {
            let mut sampler = Sampler::new(&config, &[]).unwrap();
            assert!(matches!(sampler.sample(&mut [1.0, 2.0]), Err(Error::NothingAllowed { step: 0 })));
            assert!(matches!(sampler.sample(&mut [f32::NAN; 3]), Err(Error::Numerical { step: 0 })));
        }
    }
}
