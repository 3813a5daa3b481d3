//! Sessions of several threads at once on a scripted model, each checked against a list of its tokens.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::paged::scripted::{ScriptedModel, VOCAB, config, expected};

fn engine(n_blocks: usize, block_tokens: usize) -> PagedEngine {
    let limits = Limits {
        block_tokens,
        n_blocks,
        max_kept: n_blocks / 2,
        step_tokens: 24,
        free_tokens: 3,
        vocab_size: VOCAB,
    };
    let model = Box::new(ScriptedModel::new(n_blocks, block_tokens));
    PagedEngine::new(model, &config(), limits, Arc::default())
}

/// A session and the tokens that its rows should have.
struct Checked<'e> {
    session: PagedSession<'e>,
    rows: Vec<Vec<TokenId>>,
}

impl Checked<'_> {
    fn prefill(&mut self, tokens: &[TokenId]) {
        let all: Vec<TokenId> = self.rows.first().into_iter().flatten().chain(tokens).copied().collect();
        let positions: Vec<i64> = (0..all.len() as i64).collect();
        let position_ids = [positions.clone(), positions.clone(), positions];
        let prompt =
            Prompt { input_ids: &all, position_ids: &position_ids, rope_delta: 0, images: &[], videos: &[] };
        let logits = self.session.prefill(&prompt, &CancelToken::new()).unwrap().unwrap();
        assert_eq!(logits, expected(&all));
        self.rows = vec![all];
    }

    fn decode(&mut self, parents: &[usize], tokens: &[TokenId]) {
        let position = self.rows[0].len() as i64;
        let n = tokens.len() / parents.len();
        self.rows = parents
            .iter()
            .zip(tokens.chunks(n))
            .map(|(parent, new)| [&self.rows[*parent][..], new].concat())
            .collect();
        let logits = self.session.decode(parents, tokens, position).unwrap();
        assert_eq!(logits, self.rows.iter().flat_map(|row| expected(row)).collect::<Vec<_>>());
    }

    fn verify(&mut self, tokens: &[TokenId], guessed: usize) {
        let before = self.rows[0].len();
        self.rows[0].extend(tokens);
        let logits = self.session.verify(tokens, guessed, before as i64).unwrap();
        let first = before + tokens.len() - guessed;
        let want = (first..=self.rows[0].len()).flat_map(|n| expected(&self.rows[0][..n]));
        assert_eq!(logits, want.collect::<Vec<_>>());
    }

    fn rewind(&mut self, len: usize) {
        self.session.rewind(len);
        self.rows.truncate(1);
        self.rows[0].truncate(len);
        assert_eq!(self.session.past_tokens(), self.rows[0].len());
    }
}

fn tokens(rng: &mut ChaCha8Rng, n: usize) -> Vec<TokenId> {
    (0..n).map(|_| rng.random_range(0..37)).collect()
}

fn wander(engine: &PagedEngine, seed: u64, rounds: usize) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    for _ in 0..rounds {
        let mut checked = Checked { session: engine.session(), rows: Vec::new() };
        // Half of a prompt is everybody's.
        let mut prompt = (0..rng.random_range(1..40)).collect::<Vec<TokenId>>();
        prompt.retain(|token| *token < 37);
        let own = rng.random_range(1..10);
        prompt.extend(tokens(&mut rng, own));
        checked.prefill(&prompt);
        for _ in 0..rng.random_range(0..12) {
            match rng.random_range(0..10) {
                0 => {
                    let len = rng.random_range(0..=checked.rows[0].len());
                    checked.rewind(len);
                    let more = rng.random_range(1..20);
                    let more = tokens(&mut rng, more);
                    checked.prefill(&more);
                }
                1..4 if checked.rows.len() == 1 => {
                    let n = rng.random_range(1..40);
                    let guessed = rng.random_range(0..n);
                    let new = tokens(&mut rng, n);
                    checked.verify(&new, guessed);
                    let len = checked.rows[0].len() - rng.random_range(0..=guessed);
                    checked.rewind(len);
                }
                _ => {
                    let (children, n) = (rng.random_range(1..4), rng.random_range(1..4));
                    let rows = checked.rows.len();
                    let parents: Vec<usize> = (0..children).map(|_| rng.random_range(0..rows)).collect();
                    let new = tokens(&mut rng, children * n);
                    checked.decode(&parents, &new);
                }
            }
        }
    }
}

#[test]
fn sessions_branch_and_are_taken_back_without_seeing_each_other() {
    for (n_blocks, block_tokens) in [(400, 1), (64, 4), (16, 16), (300, 32)] {
        let engine = engine(n_blocks, block_tokens);
        std::thread::scope(|scope| {
            for seed in 0..6 {
                let engine = &engine;
                scope.spawn(move || wander(engine, seed, 60));
            }
        });
        let state = engine.lock();
        state.scheduler.check().unwrap();
        assert_eq!(state.scheduler.pool.available(), n_blocks, "nobody holds a block");
        assert!(state.scheduler.counts.found > 0);
    }
}

#[test]
fn what_a_session_holds_is_computed_once_for_all() {
    let engine = engine(64, 4);
    let prompt: Vec<TokenId> = (0..30).collect();
    let mut first = Checked { session: engine.session(), rows: Vec::new() };
    first.prefill(&prompt);
    let mut second = Checked { session: engine.session(), rows: Vec::new() };
    second.prefill(&[&prompt[..], &[7, 8]].concat());
    assert_eq!((first.session.found_tokens(), second.session.found_tokens()), (0, 30));
    assert_eq!(engine.stats().run_tokens, 30 + 2);
}

#[test]
fn a_block_is_shared_as_far_as_prompts_begin_the_same() {
    let engine = engine(64, 32);
    let ask = |own: &[TokenId]| {
        let mut asked = Checked { session: engine.session(), rows: Vec::new() };
        let prompt = [&(0..14).collect::<Vec<_>>()[..], own].concat();
        asked.prefill(&prompt);
        asked.decode(&[0], &[1, 2, 3]);
        (asked.session.found_tokens(), prompt.len())
    };
    assert_eq!(ask(&[20, 21, 22, 23]), (0, 18));
    // The first one's answer is in its block behind what is shared.
    assert_eq!(ask(&[20, 21, 30]), (15, 17));
    assert_eq!(ask(&[20, 21, 22, 23, 1, 2, 3, 4]), (18, 22));
    // All but the last two: what is left has to give logits, and is no single token.
    assert_eq!(ask(&[20, 21, 22, 23]), (16, 18));
    assert_eq!(engine.stats().run_tokens, 18 + 2 + 4 + 2 + 4 * 3);
    let state = engine.lock();
    state.scheduler.check().unwrap();
    assert_eq!(state.scheduler.pool.available(), 64);
}

#[test]
fn a_cancelled_prompt_gives_its_blocks_back_and_tokens_that_do_not_fit_are_refused() {
    let engine = engine(8, 4);
    let cancel = CancelToken::new();
    cancel.cancel();
    let ids: Vec<TokenId> = (0..20).collect();
    let positions: Vec<i64> = (0..20).collect();
    let position_ids = [positions.clone(), positions.clone(), positions];
    let prompt =
        Prompt { input_ids: &ids, position_ids: &position_ids, rope_delta: 0, images: &[], videos: &[] };
    let mut session = engine.session();
    assert!(session.prefill(&prompt, &cancel).unwrap().is_none());
    assert_eq!(engine.lock().scheduler.pool.available(), 8);
    let mut checked = Checked { session: engine.session(), rows: Vec::new() };
    checked.prefill(&ids);
    // Five blocks are shared by both rows; each needs two more of its own for so many tokens.
    let error = checked.session.decode(&[0, 0], &(0..24).collect::<Vec<_>>(), 20).unwrap_err();
    let Error::CacheTooSmall { tokens: 64, limit: 32 } = error else { panic!("{error}") };
    assert_eq!(engine.lock().scheduler.pool.available(), 8);
}

#[test]
fn guesses_are_free_while_nobody_else_is_at_work() {
    let engine = engine(64, 4);
    let mut first = Checked { session: engine.session(), rows: Vec::new() };
    let mut second = Checked { session: engine.session(), rows: Vec::new() };
    first.prefill(&[1, 2, 3]);
    assert_eq!((first.session.free_guesses(), second.session.free_guesses()), (3, 0));
    // The step waited a moment for the first, whose user is away.
    second.prefill(&[4, 5]);
    assert_eq!((first.session.free_guesses(), second.session.free_guesses()), (0, 3));
    drop(second);
    assert_eq!(first.session.free_guesses(), 3);
}
