//! Sessions of many threads on one model: whoever waits for a result and finds the model free runs the next step, for all.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use qwen2vl_types::TokenId;

use super::row::{PromptTokens, Row};
use super::scheduler::{Limits, Scheduler, SessionId};
use super::step::PagedModel;
use super::turns::{Kind, Turns};
use crate::{CancelToken, Error, LanguageSession, ModelConfig, Prompt};

/// The longest wait for sessions that decide, so that they are in the next step.
const MOST_PATIENCE: Duration = Duration::from_millis(20);

/// What the paged engine did since it was loaded; zeros for the stateful one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct EngineStats {
    /// Calls of the language model.
    pub steps: u64,
    /// Tokens that it ran.
    pub run_tokens: u64,
    /// Tokens of prompts that were computed for an earlier request, and not again.
    pub found_tokens: u64,
    /// How often a conversation gave its blocks to others, to be computed again.
    pub preempted: u64,
    /// Time in the language model.
    pub model: Duration,
    /// Time of steps outside it: whose tokens go into it, and handing out logits.
    pub scheduling: Duration,
}

struct State {
    scheduler: Scheduler,
    /// `None` while a step runs.
    model: Option<Box<dyn PagedModel>>,
    last_step: Duration,
    /// Time that steps took beside the model.
    overhead: Duration,
    running: Duration,
}

/// A language model that many sessions share.
pub(crate) struct PagedEngine {
    state: Mutex<State>,
    changed: Condvar,
    turns: Arc<Turns>,
    config: ModelConfig,
    block_tokens: usize,
}

impl PagedEngine {
    pub(crate) fn new(
        model: Box<dyn PagedModel>,
        config: &ModelConfig,
        limits: Limits,
        turns: Arc<Turns>,
    ) -> Self {
        let state = State {
            scheduler: Scheduler::new(limits),
            model: Some(model),
            last_step: Duration::ZERO,
            overhead: Duration::ZERO,
            running: Duration::ZERO,
        };
        Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
            turns,
            config: config.clone(),
            block_tokens: limits.block_tokens,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn session(&self) -> PagedSession<'_> {
        PagedSession { engine: self, id: self.lock().scheduler.open(), logits: Vec::new(), found: 0 }
    }

    pub(crate) fn stats(&self) -> EngineStats {
        let state = self.lock();
        let counts = state.scheduler.counts;
        EngineStats {
            steps: counts.steps,
            run_tokens: counts.run,
            found_tokens: counts.found,
            preempted: counts.preempted,
            model: state.running,
            scheduling: state.overhead,
        }
    }

    /// Has a session's pending tokens run; `Ok(false)` when cancelled.
    fn work(&self, id: SessionId, cancel: &CancelToken) -> Result<bool, Error> {
        let mut state = self.lock();
        state.scheduler.submit(id, cancel);
        self.changed.notify_all();
        loop {
            if let Some(outcome) = state.scheduler.outcome(id) {
                return outcome;
            }
            state = match state.model.take() {
                Some(model) => self.lead(state, model),
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// Runs a step, if there is one.
    fn lead<'a>(
        &'a self,
        state: MutexGuard<'a, State>,
        mut model: Box<dyn PagedModel>,
    ) -> MutexGuard<'a, State> {
        let mut state = self.wait_for_deciding(state);
        let started = Instant::now();
        let plan = state.scheduler.plan();
        let Some(plan) = plan else {
            state.model = Some(model);
            self.changed.notify_all();
            return state;
        };
        drop(state);
        let planned = started.elapsed();
        let turn = self.turns.take(Kind::Step);
        let running = Instant::now();
        let result = model.forward(&plan.step);
        let took = running.elapsed();
        drop(turn);
        let finishing = Instant::now();
        let mut state = self.lock();
        match result {
            Ok(logits) => state.scheduler.done(&plan, logits),
            Err(error) => state.scheduler.failed(&plan, error),
        }
        state.last_step = took;
        state.running += took;
        state.overhead += planned + finishing.elapsed();
        state.model = Some(model);
        self.changed.notify_all();
        state
    }

    /// Lets sessions that have just got logits catch up: a step costs little more with them than without.
    fn wait_for_deciding<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let patience = MOST_PATIENCE.min(state.last_step / 4);
        let deadline = Instant::now() + patience;
        while state.scheduler.is_deciding() {
            let left = deadline.saturating_duration_since(Instant::now());
            let waited = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
            state = waited.0;
            if waited.1.timed_out() || left.is_zero() {
                state.scheduler.stop_waiting();
            }
        }
        state
    }
}

/// A conversation among others on one model.
pub(crate) struct PagedSession<'e> {
    engine: &'e PagedEngine,
    id: SessionId,
    logits: Vec<f32>,
    found: usize,
}

impl PagedSession<'_> {
    /// Changes the rows.
    fn rows<R>(&mut self, change: impl FnOnce(&mut Vec<Row>, &mut super::blocks::BlockPool) -> R) -> R {
        let mut state = self.engine.lock();
        let (session, pool) = state.scheduler.session(self.id);
        change(&mut session.rows, pool)
    }

    fn run(&mut self, cancel: &CancelToken) -> Result<bool, Error> {
        let done = self.engine.work(self.id, cancel)?;
        let mut state = self.engine.lock();
        let (session, _) = state.scheduler.session(self.id);
        std::mem::swap(&mut self.logits, &mut session.logits);
        Ok(done)
    }
}

impl LanguageSession for PagedSession<'_> {
    fn prefill(&mut self, prompt: &Prompt<'_>, cancel: &CancelToken) -> Result<Option<&mut [f32]>, Error> {
        let past = self.past_tokens();
        let config = &self.engine.config;
        let before = self.rows(|rows, pool| {
            rows.drain(1.min(rows.len())..).for_each(|mut row| row.evict(pool));
            rows.is_empty().then(|| rows.push(Row::default()));
            let tokens = PromptTokens::new(prompt, past, rows[0].prompt(), config)?;
            rows[0].set_prompt(tokens);
            rows[0].found = 0;
            Ok::<_, Error>(())
        });
        before?;
        if !self.run(cancel)? {
            return Ok(None);
        }
        self.found = self.rows(|rows, _| rows[0].found);
        Ok(Some(&mut self.logits))
    }

    fn decode(&mut self, parents: &[usize], tokens: &[TokenId], position: i64) -> Result<&mut [f32], Error> {
        self.rows(|rows, pool| {
            let divides =
                !parents.is_empty() && !tokens.is_empty() && tokens.len().is_multiple_of(parents.len());
            if !divides || parents.iter().any(|parent| *parent >= rows.len()) {
                return Err(Error::Rows {
                    parents: parents.to_vec(),
                    tokens: tokens.len(),
                    rows: rows.len(),
                });
            }
            let n = tokens.len() / parents.len();
            let mut children: Vec<Row> = parents.iter().map(|parent| rows[*parent].fork(pool)).collect();
            rows.drain(..).for_each(|mut row| row.evict(pool));
            for (row, tokens) in children.iter_mut().zip(tokens.chunks(n)) {
                row.push(tokens, position);
            }
            *rows = children;
            Ok(())
        })?;
        self.run(&CancelToken::new())?;
        Ok(&mut self.logits)
    }

    fn verifies(&self) -> bool {
        true
    }

    fn free_guesses(&self) -> usize {
        self.engine.lock().scheduler.free_tokens(self.id)
    }

    fn verify(&mut self, tokens: &[TokenId], guessed: usize, position: i64) -> Result<&mut [f32], Error> {
        self.rows(|rows, _| {
            if rows.len() != 1 || guessed >= tokens.len() {
                return Err(Error::Rows { parents: vec![0], tokens: tokens.len(), rows: rows.len() });
            }
            rows[0].push(tokens, position);
            rows[0].wanted_before = guessed;
            Ok(())
        })?;
        let done = self.run(&CancelToken::new());
        self.rows(|rows, _| rows[0].wanted_before = 0);
        done?;
        Ok(&mut self.logits)
    }

    fn past_tokens(&self) -> usize {
        let mut state = self.engine.lock();
        let (session, _) = state.scheduler.session(self.id);
        session.rows.first().map_or(0, Row::len)
    }

    fn rewind(&mut self, past_tokens: usize) {
        let block_tokens = self.engine.block_tokens;
        self.rows(|rows, pool| {
            rows.drain(1.min(rows.len())..).for_each(|mut row| row.evict(pool));
            if let Some(row) = rows.first_mut() {
                row.truncate(past_tokens, pool, block_tokens);
            }
        });
    }

    fn found_tokens(&self) -> usize {
        self.found
    }
}

impl Drop for PagedSession<'_> {
    fn drop(&mut self) {
        self.engine.lock().scheduler.close(self.id);
        // Somebody may wait for its blocks, or for its next tokens.
        self.engine.changed.notify_all();
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
