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

/// Up to here the k-th logit is found in one pass with a short list, beyond by selection, which writes all candidates.
const SHORT_TOP_K: usize = 256;

/// The tokens that may be drawn. One list serves all steps of an answer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Candidates {
    list: Vec<Candidate>,
    /// The k largest logits seen, in falling order.
    largest: Vec<f32>,
}

impl Candidates {
    /// Fills the list from a row of logits under the options.
    pub fn warp(&mut self, config: &GenerationConfig, logits: &[f32]) {
        self.fill(logits, config.temperature, config.top_k);
        if config.top_k > SHORT_TOP_K && config.top_k < self.list.len() {
            self.top_k(config.top_k);
        }
        self.weigh();
        // Without a cut the order of ids is as good; sorting the whole vocabulary takes milliseconds.
        if config.top_k > 0 || config.top_p < 1.0 {
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

    /// All finite logits; with a small `top_k` only those from the k-th on.
    fn fill(&mut self, logits: &[f32], temperature: f32, top_k: usize) {
        let least = if (1..=SHORT_TOP_K).contains(&top_k) { self.kth(logits, top_k) } else { None };
        let least = least.map_or(f32::NEG_INFINITY, |kth| kth / temperature);
        self.list.clear();
        for (i, logit) in logits.iter().enumerate().filter(|(_, logit)| logit.is_finite()) {
            // Like the reference, ties with the k-th stay, those that the division makes as well.
            let logit = logit / temperature;
            if logit >= least {
                self.list.push(Candidate { id: i as TokenId, logit, weight: 0.0 });
            }
        }
    }

    /// The k-th largest logit, or the least if there are fewer.
    fn kth(&mut self, logits: &[f32], k: usize) -> Option<f32> {
        let largest = &mut self.largest;
        largest.clear();
        for &logit in logits.iter().filter(|logit| logit.is_finite()) {
            if largest.len() == k {
                if logit <= largest[k - 1] {
                    continue;
                }
                largest.pop();
            }
            largest.insert(largest.partition_point(|other| *other >= logit), logit);
        }
        largest.last().copied()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_to_the_k_largest_give_the_same() {
        // Values come again, so that there are ties; some rows rise, which is the short list's worst.
        for rising in [false, true] {
            let row: Vec<f32> = (0..3000_u32)
                .map(|i| {
                    if rising { i as f32 / 3.0 } else { (i.wrapping_mul(2_654_435_761) >> 20) as f32 / 64.0 }
                })
                .map(|logit| if logit == 7.0 { f32::NAN } else { logit })
                .collect();
            for (k, temperature) in [(1, 1.0), (2, 0.7), (50, 3.0), (SHORT_TOP_K, 1.3)] {
                let (mut short, mut long) = (Candidates::default(), Candidates::default());
                short.fill(&row, temperature, k);
                long.fill(&row, temperature, 0);
                assert!(long.list.len() > 2900);
                long.top_k(k);
                let ids = |candidates: &Candidates| {
                    let mut ids: Vec<TokenId> = candidates.list.iter().map(|c| c.id).collect();
                    ids.sort_unstable();
                    ids
                };
                assert_eq!(ids(&short), ids(&long), "k {k}, rising {rising}");
                assert!(short.list.len() >= k);
            }
        }
    }
}
