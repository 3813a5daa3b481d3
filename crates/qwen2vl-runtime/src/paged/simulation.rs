//! Requests at random on a scripted model: every answer is that of the request alone, whatever the order of arrival, the
//! size of blocks and cache, what is shared, who is cancelled, fails or gives its blocks away; blocks are counted after
//! every step.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use qwen2vl_types::TokenId;

use super::row::{PromptTokens, Row};
use super::scheduler::{Limits, Scheduler, SessionId};
use super::scripted::{ScriptedModel, VOCAB, answer, best, config};
use super::step::PagedModel;
use crate::{CancelToken, Prompt};

/// A step with it fails.
const POISON: TokenId = 39;

/// What a user wants, and what came.
struct User {
    session: SessionId,
    prompt: Vec<TokenId>,
    n: usize,
    got: Vec<TokenId>,
    cancel: CancelToken,
    /// Steps after which it is cancelled, or leaves.
    patience: Option<usize>,
    waiting: bool,
}

fn prefill(scheduler: &mut Scheduler, session: SessionId, prompt: &[TokenId], cancel: &CancelToken) {
    let positions = (0..prompt.len() as i64).collect::<Vec<_>>();
    let position_ids = [positions.clone(), positions.clone(), positions];
    let prompt =
        Prompt { input_ids: prompt, position_ids: &position_ids, rope_delta: 0, images: &[], videos: &[] };
    let tokens = PromptTokens::new(&prompt, 0, &PromptTokens::default(), &config()).unwrap();
    let mut row = Row::default();
    row.set_prompt(tokens);
    scheduler.session(session).0.rows.push(row);
    scheduler.submit(session, cancel);
}

struct World {
    rng: ChaCha8Rng,
    scheduler: Scheduler,
    model: ScriptedModel,
    prefixes: Vec<Vec<TokenId>>,
    users: Vec<User>,
    answered: usize,
    refused: usize,
    cancelled: usize,
    failed: usize,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let block_tokens = [1, 2, 4, 16, 32][rng.random_range(0..5)];
        let n_blocks = rng.random_range(60..400_usize).div_ceil(block_tokens);
        let limits = Limits {
            block_tokens,
            n_blocks,
            max_kept: rng.random_range(0..=n_blocks),
            step_tokens: rng.random_range(1..80),
            free_tokens: 0,
            vocab_size: VOCAB,
        };
        let prefixes = (0..4).map(|_| tokens(&mut rng, 70)).collect();
        Self {
            scheduler: Scheduler::new(limits),
            model: ScriptedModel::new(n_blocks, block_tokens).failing_at(POISON),
            prefixes,
            users: Vec::new(),
            answered: 0,
            refused: 0,
            cancelled: 0,
            failed: 0,
            rng,
        }
    }

    fn arrive(&mut self) {
        let rng = &mut self.rng;
        let prefix = &self.prefixes[rng.random_range(0..4)];
        let mut prompt = prefix[..rng.random_range(1..=prefix.len())].to_vec();
        let own = rng.random_range(0..12);
        prompt.extend(tokens(rng, own));
        if rng.random_bool(0.03) {
            prompt.push(POISON);
        }
        let cancel = CancelToken::new();
        let session = self.scheduler.open();
        prefill(&mut self.scheduler, session, &prompt, &cancel);
        let patience = rng.random_bool(0.1).then(|| rng.random_range(0..20));
        let n = rng.random_range(1..30);
        self.users.push(User { session, prompt, n, got: Vec::new(), cancel, patience, waiting: true });
    }

    /// One step of the model, then everybody's next move.
    fn step(&mut self) {
        if let Some(plan) = self.scheduler.plan() {
            match self.model.forward(&plan.step) {
                Ok(logits) => self.scheduler.done(&plan, logits),
                Err(error) => self.scheduler.failed(&plan, error),
            }
        }
        self.scheduler.check().unwrap();
        let mut users = std::mem::take(&mut self.users);
        users.retain_mut(|user| self.goes_on(user));
        self.users = users;
        self.scheduler.check().unwrap();
        if self.rng.random_bool(0.5) {
            self.scheduler.stop_waiting();
        }
    }

    fn goes_on(&mut self, user: &mut User) -> bool {
        if let Some(patience) = &mut user.patience {
            if *patience == 0 {
                user.cancel.cancel();
            }
            *patience = patience.saturating_sub(1);
        }
        if user.waiting {
            match self.scheduler.outcome(user.session) {
                None => return true,
                Some(Ok(true)) => user.waiting = false,
                Some(end) => {
                    self.count(user, &end);
                    self.scheduler.close(user.session);
                    return false;
                }
            }
            let token = best(&self.scheduler.session(user.session).0.logits);
            user.got.push(token);
            if user.got.len() == user.n || token == POISON {
                assert_eq!(user.got, answer(&user.prompt, user.got.len()), "prompt {:?}", user.prompt);
                self.answered += 1;
                self.scheduler.close(user.session);
                return false;
            }
        }
        // Some take their time.
        if self.rng.random_bool(0.8) {
            let position = (user.prompt.len() + user.got.len() - 1) as i64;
            let (session, _) = self.scheduler.session(user.session);
            session.rows[0].push(&user.got[user.got.len() - 1..], position);
            self.scheduler.submit(user.session, &user.cancel);
            user.waiting = true;
        }
        true
    }

    fn count(&mut self, user: &User, end: &Result<bool, crate::Error>) {
        match end {
            Ok(_) => {
                assert!(user.cancel.is_cancelled());
                self.cancelled += 1;
            }
            Err(crate::Error::CacheTooSmall { tokens, limit }) => {
                assert!(tokens > limit, "{tokens} tokens fit {limit}");
                self.refused += 1;
            }
            Err(_) => {
                assert!(user.prompt.contains(&POISON), "only the poisoned one fails");
                self.failed += 1;
            }
        }
    }
}

fn tokens(rng: &mut ChaCha8Rng, n: usize) -> Vec<TokenId> {
    // Without those that stand for images and videos.
    (0..n).map(|_| rng.random_range(0..37)).collect()
}

#[test]
fn every_answer_is_that_of_its_request_alone() {
    let (mut answered, mut refused, mut cancelled, mut failed) = (0, 0, 0, 0);
    let (mut preempted, mut found, mut most_rows) = (0, 0, 0);
    for seed in 0..80 {
        let mut world = World::new(seed);
        let (mut left, mut steps) = (40, 0);
        while left > 0 || !world.users.is_empty() {
            if left > 0 && world.users.len() < 12 && world.rng.random_bool(0.4) {
                world.arrive();
                left -= 1;
            }
            world.step();
            steps += 1;
            assert!(steps < 100_000, "seed {seed}: {} users wait for ever", world.users.len());
        }
        // Nobody is left: nothing is held.
        world.scheduler.pool.check([]).unwrap();
        assert_eq!(world.scheduler.pool.available(), world.scheduler.pool.len());
        answered += world.answered;
        refused += world.refused;
        cancelled += world.cancelled;
        failed += world.failed;
        preempted += world.scheduler.counts.preempted;
        found += world.scheduler.counts.found;
        most_rows = most_rows.max(world.model.rows.iter().copied().max().unwrap_or(0));
    }
    assert_eq!(answered + refused + cancelled + failed, 3200);
    // All that could go wrong did, often.
    assert!(answered > 2000, "{answered}");
    assert!(cancelled > 50 && failed > 30, "{cancelled} {failed}");
    assert!(preempted > 200 && found > 5000 && most_rows > 6, "{preempted} {found} {most_rows}");
}

#[test]
fn a_prompt_waits_for_an_older_one_that_begins_as_it_does() {
    let limits = Limits {
        block_tokens: 32,
        n_blocks: 16,
        max_kept: 8,
        step_tokens: 100,
        free_tokens: 0,
        vocab_size: VOCAB,
    };
    let (mut scheduler, mut model) = (Scheduler::new(limits), ScriptedModel::new(16, 32));
    let prompt = |shared: u32, own: u32| (0..shared).chain([own; 5]).collect::<Vec<TokenId>>();
    let prompts = [prompt(14, 30), prompt(14, 31), prompt(7, 32), prompt(14, 33)];
    let sessions = prompts.each_ref().map(|prompt| {
        let session = scheduler.open();
        prefill(&mut scheduler, session, prompt, &CancelToken::new());
        session
    });
    // The third has too little in common with the first to wait for it.
    for (step, tokens) in [19 + 12, 5 + 5].into_iter().enumerate() {
        let plan = scheduler.plan().unwrap();
        assert_eq!(plan.step.ids.len(), tokens, "step {step}");
        let logits = model.forward(&plan.step).unwrap();
        scheduler.done(&plan, logits);
        scheduler.check().unwrap();
    }
    for (session, prompt) in sessions.into_iter().zip(&prompts) {
        assert!(scheduler.outcome(session).unwrap().unwrap());
        assert_eq!(vec![best(&scheduler.session(session).0.logits)], answer(prompt, 1));
    }
    assert_eq!(scheduler.counts.found, 2 * 14);
}
