//! Prompt lookup decoding: what followed the last tokens where they stood before, in prompt or answer, is a guess at what
//! follows now, and the model checks all of a guess in one step. Guesses are those of transformers 4.57.6,
//! `PromptLookupCandidateGenerator`.

use qwen2vl_types::TokenId;

use crate::GenerationConfig;

/// Guesses at an answer while it grows.
#[derive(Debug)]
pub(crate) struct PromptLookup {
    /// Prompt and answer.
    tokens: Vec<TokenId>,
    prompt_tokens: usize,
    max_matching_ngram_size: usize,
    most: usize,
    /// Whether guesses may cost nothing.
    only_free: bool,
    /// How long the next guess may be: longer after one that came true, shorter after one that did not.
    next: usize,
    stop_token_ids: Vec<TokenId>,
}

impl PromptLookup {
    /// `None` where the options turn it off.
    pub(crate) fn new(config: &GenerationConfig, prompt: &[TokenId]) -> Option<Self> {
        // What costs nothing begins with one token: most first guesses are wrong.
        let (most, next) = config.prompt_lookup_num_tokens.map_or((usize::MAX, 1), |n| (n, n));
        (most > 0).then(|| Self {
            tokens: prompt.to_vec(),
            prompt_tokens: prompt.len(),
            max_matching_ngram_size: config.max_matching_ngram_size,
            most,
            only_free: config.prompt_lookup_num_tokens.is_none(),
            next,
            stop_token_ids: config.stop_token_ids.clone(),
        })
    }

    /// Takes note of an answer that has grown.
    pub(crate) fn extend(&mut self, answer: &[TokenId]) {
        let known = self.tokens.len() - self.prompt_tokens;
        self.tokens.extend_from_slice(&answer[known..]);
    }

    /// A guess of at most `limit` tokens, of which `free` cost nothing; none of them ends an answer.
    pub(crate) fn guess(&self, limit: usize, free: usize) -> Vec<TokenId> {
        let limit = if self.only_free { limit.min(free) } else { limit };
        if limit == 0 {
            return Vec::new();
        }
        let guess = continuation(&self.tokens, self.max_matching_ngram_size, self.next.min(limit));
        guess.iter().copied().take_while(|token| !self.stop_token_ids.contains(token)).collect()
    }

    /// Takes note of how many tokens of a guess came true, as transformers' heuristic schedule does.
    pub(crate) fn came_true(&mut self, guessed: usize, right: usize) {
        self.next = if right == guessed { self.most.min(guessed + 2) } else { (guessed - 1).max(1) };
    }
}

/// What followed the first of the places where the longest end of `tokens` stood before, at most `most` tokens of it.
fn continuation(tokens: &[TokenId], max_ngram_size: usize, most: usize) -> &[TokenId] {
    let longest = max_ngram_size.min(tokens.len().saturating_sub(1));
    let mut places = (1..=longest).rev().filter_map(|n| {
        let end = &tokens[tokens.len() - n..];
        // The end itself stands last, and nothing follows it.
        tokens[..tokens.len() - 1].windows(n).position(|window| window == end).map(|place| place + n)
    });
    let Some(start) = places.next() else { return &[] };
    &tokens[start..tokens.len().min(start + most)]
}

#[cfg(test)]
mod tests {
    use qwen2vl_testkit::{golden, read_jsonl};
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    struct Case {
        tokens: Vec<TokenId>,
        num_tokens: usize,
        ngram_size: usize,
        stop_token_id: TokenId,
        guess: Vec<TokenId>,
    }

    #[test]
    fn guesses_are_those_of_transformers() {
        let cases: Vec<Case> = read_jsonl(&golden("prompt-lookup/guesses.jsonl"));
        assert!(cases.len() >= 300 && cases.iter().filter(|case| !case.guess.is_empty()).count() > 100);
        for case in cases {
            let config = GenerationConfig {
                prompt_lookup_num_tokens: Some(case.num_tokens),
                max_matching_ngram_size: case.ngram_size,
                stop_token_ids: vec![case.stop_token_id],
                ..GenerationConfig::default()
            };
            let lookup = PromptLookup::new(&config, &case.tokens).unwrap();
            assert_eq!(lookup.guess(usize::MAX, 0), case.guess, "{:?}", case.tokens);
            assert_eq!(lookup.guess(1, 0), case.guess.get(..1).unwrap_or_default());
        }
    }

    #[test]
    fn guesses_get_shorter_when_they_are_wrong_and_longer_again() {
        let config = GenerationConfig { prompt_lookup_num_tokens: Some(3), ..GenerationConfig::default() };
        let mut lookup = PromptLookup::new(&config, &[1, 2, 3, 4, 5, 1, 2]).unwrap();
        let lens = [(3, 0), (2, 1), (1, 0), (1, 0), (1, 1), (3, 3), (3, 3)].map(|(guessed, right)| {
            assert_eq!(lookup.guess(9, 0).len(), guessed);
            lookup.came_true(guessed, right);
            lookup.next
        });
        assert_eq!(lens, [2, 1, 1, 1, 3, 3, 3]);
    }

    #[test]
    fn without_an_option_there_is_what_costs_nothing() {
        let lookup = |prompt_lookup_num_tokens| {
            let config = GenerationConfig { prompt_lookup_num_tokens, ..GenerationConfig::default() };
            PromptLookup::new(&config, &[1, 2, 3, 4, 5, 1, 2])
        };
        let mut free = lookup(None).unwrap();
        assert_eq!((free.guess(9, 0).len(), free.guess(9, 3).len()), (0, 1));
        free.came_true(1, 1);
        assert_eq!((free.guess(9, 2).len(), free.guess(9, 5).len(), free.guess(1, 5).len()), (2, 3, 1));
        assert!(lookup(Some(0)).is_none());
    }
}
