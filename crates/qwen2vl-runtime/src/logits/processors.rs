//! The changes to a row of logits that depend on options and history alone, each a function on the row. Ids outside
//! the row are passed over.

use qwen2vl_types::TokenId;

use super::history::History;
use crate::GenerationConfig;

/// Applies all of them in the reference's order; whether a token that could have been chosen is excluded now.
pub(crate) fn process(config: &GenerationConfig, history: &History, logits: &mut [f32]) -> bool {
    add_bias(logits, config.logit_bias.iter().map(|(id, bias)| (*id, *bias)));
    if config.repetition_penalty != 1.0 {
        penalize_repetition(logits, history, config.repetition_penalty);
    }
    if config.frequency_penalty != 0.0 || config.presence_penalty != 0.0 {
        penalize_frequency(logits, history, config.frequency_penalty, config.presence_penalty);
    }
    let mut excluded = exclude(logits, repeating(history.tokens(), config.no_repeat_ngram_size));
    if history.n_new_tokens() < config.min_new_tokens {
        excluded |= exclude(logits, config.stop_token_ids.iter().copied());
    }
    excluded | exclude(logits, config.suppress_tokens.iter().copied())
}

/// `SequenceBiasLogitsProcessor` for sequences of one id.
pub(crate) fn add_bias(logits: &mut [f32], bias: impl Iterator<Item = (TokenId, f32)>) {
    for (id, bias) in bias {
        if let Some(logit) = logits.get_mut(id as usize) {
            *logit += bias;
        }
    }
}

/// `RepetitionPenaltyLogitsProcessor`: over prompt and answer, once for each token.
pub(crate) fn penalize_repetition(logits: &mut [f32], history: &History, penalty: f32) {
    for (id, _) in history.counts() {
        if let Some(logit) = logits.get_mut(id as usize) {
            *logit = if *logit < 0.0 { *logit * penalty } else { *logit / penalty };
        }
    }
}

/// OpenAI's two penalties as vLLM's `apply_penalties` computes them: over the answer alone, frequency first.
pub(crate) fn penalize_frequency(logits: &mut [f32], history: &History, frequency: f32, presence: f32) {
    for (id, count) in history.counts().filter(|(_, count)| *count > 0) {
        if let Some(logit) = logits.get_mut(id as usize) {
            *logit -= frequency * count as f32;
            *logit -= presence;
        }
    }
}

/// `NoRepeatNGramLogitsProcessor`: the tokens that followed earlier what the last `size - 1` tokens are. The prompt
/// counts as well.
pub(crate) fn repeating(tokens: &[TokenId], size: usize) -> impl Iterator<Item = TokenId> {
    // Off: no window is that long.
    let size = if size == 0 { usize::MAX } else { size };
    let last = &tokens[tokens.len().saturating_sub(size - 1)..];
    let windows = tokens.windows(size).filter(move |window| window.starts_with(last));
    windows.filter_map(|window| window.last().copied())
}

/// `SuppressTokensLogitsProcessor`, and `MinNewTokensLengthLogitsProcessor` with the stop tokens: these are never
/// chosen. Whether one of them could have been.
pub(crate) fn exclude(logits: &mut [f32], ids: impl Iterator<Item = TokenId>) -> bool {
    let mut excluded = false;
    for id in ids {
        if let Some(logit) = logits.get_mut(id as usize) {
            excluded |= logit.is_finite();
            *logit = f32::NEG_INFINITY;
        }
    }
    excluded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_repetition_penalty_divides_positive_and_multiplies_negative_logits_once_a_token() {
        let mut logits = [4.0, 1.5, -1.0, 3.0];
        penalize_repetition(&mut logits, &History::new(&[0, 2, 2, 900]), 2.0);
        assert_eq!(logits, [2.0, 1.5, -2.0, 3.0]);
    }

    #[test]
    fn frequency_and_presence_count_the_answer_and_not_the_prompt() {
        let mut history = History::new(&[0, 0, 1]);
        [1, 2, 1, 1].into_iter().for_each(|id| history.push(id));
        let mut logits = [1.0; 4];
        penalize_frequency(&mut logits, &history, 0.5, 0.25);
        assert_eq!(logits, [1.0, 1.0 - 3.0 * 0.5 - 0.25, 1.0 - 0.5 - 0.25, 1.0]);
    }

    #[test]
    fn ngrams_that_would_repeat() {
        let banned = |tokens: &[u32], size| {
            let mut banned: Vec<u32> = repeating(tokens, size).collect();
            banned.sort_unstable();
            banned.dedup();
            banned
        };
        assert_eq!(banned(&[1, 2, 3, 1, 2], 3), [3]);
        assert_eq!(banned(&[1, 2, 3, 1, 2], 2), [3]);
        assert_eq!(banned(&[1, 2, 1, 3, 1], 2), [2, 3]);
        assert_eq!(banned(&[1, 2, 3], 1), [1, 2, 3]);
        assert_eq!(banned(&[1, 1, 1], 3), [1]);
        for (tokens, size) in [(&[1, 2, 3, 1, 2][..], 0), (&[1, 2], 3), (&[1, 2], 4), (&[], 1), (&[], 0)] {
            assert!(banned(tokens, size).is_empty(), "{tokens:?} {size}");
        }
    }

    #[test]
    fn excluding_says_whether_it_took_a_choice_away() {
        let mut logits = [1.0, f32::NAN, f32::NEG_INFINITY];
        assert!(!exclude(&mut logits, [1, 2, 7].into_iter()));
        assert!(exclude(&mut logits, [0].into_iter()));
        assert!(logits.iter().all(|l| *l == f32::NEG_INFINITY));
    }
}
