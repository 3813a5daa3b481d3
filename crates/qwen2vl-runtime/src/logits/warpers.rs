//! Which tokens may be drawn, and how likely: temperature, top-k, top-p, min-p, on a list of candidates that each of
//! them shortens. Follows transformers 4.57.6, `TemperatureLogitsWarper` to `MinPLogitsWarper`.

use qwen2vl_types::TokenId;

use crate::GenerationConfig;

/// A token that may be drawn.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Candidate {
    /// Its token.
    pub id: TokenId,
    /// Its logit, divided by the temperature.
    pub logit: f32,
    /// Its probability as a multiple of the most probable one's.
    weight: f32,
}

/// The tokens that may be drawn. One list serves all steps of an answer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Candidates {
    list: Vec<Candidate>,
}

impl Candidates {
    /// Fills the list from a row of logits under the options.
    pub fn warp(&mut self, config: &GenerationConfig, logits: &[f32]) {
        self.fill(logits, config.temperature);
        let cut = config.top_k > 0 && config.top_k < self.list.len();
        if cut {
            self.top_k(config.top_k);
        }
        self.weigh();
        // Without a cut the order of ids is as good; sorting the whole vocabulary takes milliseconds.
        if cut || config.top_p < 1.0 {
            self.list.sort_unstable_by(most_probable_first);
        }
        if config.top_p < 1.0 {
            self.top_p(f64::from(config.top_p));
        }
        if config.min_p > 0.0 {
            self.list.retain(|c| c.weight >= config.min_p);
        }
    }

    /// The candidates that are left.
    #[cfg(test)]
    pub fn list(&self) -> &[Candidate] {
        &self.list
    }

    /// The token at `uniform`, in [0, 1), of the probabilities laid end to end; `None` without candidates.
    pub fn draw(&self, uniform: f64) -> Option<TokenId> {
        let mut rest = uniform * self.total();
        for candidate in &self.list {
            rest -= f64::from(candidate.weight);
            if rest < 0.0 {
                return Some(candidate.id);
            }
        }
        self.list.last().map(|c| c.id)
    }

    fn fill(&mut self, logits: &[f32], temperature: f32) {
        self.list.clear();
        let finite = logits.iter().enumerate().filter(|(_, logit)| logit.is_finite());
        self.list.extend(finite.map(|(i, logit)| Candidate {
            id: i as TokenId,
            logit: logit / temperature,
            weight: 0.0,
        }));
    }

    /// Like the reference, ties with the k-th stay.
    fn top_k(&mut self, k: usize) {
        let (_, kth, _) = self.list.select_nth_unstable_by(k - 1, most_probable_first);
        let threshold = kth.logit;
        self.list.retain(|c| c.logit >= threshold);
    }

    fn weigh(&mut self) {
        let top = self.list.iter().map(|c| c.logit).max_by(f32::total_cmp).unwrap_or_default();
        self.list.iter_mut().for_each(|c| c.weight = (c.logit - top).exp());
    }

    fn total(&self) -> f64 {
        self.list.iter().map(|c| f64::from(c.weight)).sum()
    }

    /// Drops the tail whose mass is at most `1 - top_p`; at least one candidate stays.
    fn top_p(&mut self, top_p: f64) {
        let total = self.total();
        let mut before = 0.0;
        let mut keep = 0;
        for candidate in &self.list {
            if keep > 0 && total - before <= (1.0 - top_p) * total {
                break;
            }
            before += f64::from(candidate.weight);
            keep += 1;
        }
        self.list.truncate(keep);
    }
}

fn most_probable_first(a: &Candidate, b: &Candidate) -> std::cmp::Ordering {
    b.logit.total_cmp(&a.logit).then(a.id.cmp(&b.id))
}
