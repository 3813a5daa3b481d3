//! Who runs in the next step, and on which blocks. Knows no model, no threads and no clock but its own count of steps.
//!
//! Sessions that decode come first; prompts share what is left of a step, the one that waited longest first, so that a
//! long prompt stalls nobody. Where blocks run out, the session that began last gives its own back and is computed again
//! later: the oldest always gets on.

mod prefix;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::blocks::{BlockId, BlockPool};
use super::row::{MIN_PIECE, Row};
use super::step::Step;
use crate::{CancelToken, Error};

/// Number of a session; later ones are higher.
pub(crate) type SessionId = u64;

/// Sizes of a scheduler.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Tokens of a block.
    pub block_tokens: usize,
    /// Blocks there are.
    pub n_blocks: usize,
    /// Blocks kept for their content when nobody holds them; with 0 nothing is shared between sessions.
    pub max_kept: usize,
    /// The most tokens of a step that no other session waits for.
    pub step_tokens: usize,
    /// Tokens behind the first that a step may have at no cost.
    pub free_tokens: usize,
    /// Values of a row of logits.
    pub vocab_size: usize,
}

/// What a session does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Its user is away: it may give its blocks to others.
    Idle,
    /// It has logits, its next tokens are awaited.
    Deciding,
    /// It has tokens to run.
    Working,
}

/// How a session's work ended.
pub(crate) type Outcome = Result<bool, Error>;

/// A session: rows of tokens.
pub(crate) struct Session {
    pub rows: Vec<Row>,
    /// Of each row's last tokens, as many as are wanted, `[n, vocab_size]`.
    pub logits: Vec<f32>,
    state: State,
    outcome: Option<Outcome>,
    cancel: CancelToken,
    /// The step that served it last.
    served: u64,
}

impl Session {
    fn pending(&self) -> usize {
        self.rows.iter().map(Row::pending).sum()
    }
}

/// A part of a step.
#[derive(Debug)]
struct Part {
    session: SessionId,
    row: usize,
    tokens: usize,
    /// Rows of logits that it gives.
    logits: usize,
}

/// A step and whose it is.
#[derive(Debug)]
pub(crate) struct Plan {
    pub step: Step,
    parts: Vec<Part>,
}

/// Counts since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub steps: u64,
    /// Sessions that had to give their blocks away.
    pub preempted: u64,
    /// Tokens that were run.
    pub run: u64,
    /// Tokens that were found instead.
    pub found: u64,
}

/// All sessions and blocks.
pub(crate) struct Scheduler {
    pub(crate) pool: BlockPool,
    limits: Limits,
    sessions: BTreeMap<SessionId, Session>,
    next_id: SessionId,
    pub(crate) counts: Counts,
    /// Sessions of a step that failed: each is run alone, so that only the guilty one fails.
    suspects: VecDeque<SessionId>,
}

impl Scheduler {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            pool: BlockPool::new(limits.n_blocks, limits.max_kept),
            limits,
            sessions: BTreeMap::new(),
            next_id: 0,
            counts: Counts::default(),
            suspects: VecDeque::new(),
        }
    }

    /// A new session without rows.
    pub(crate) fn open(&mut self) -> SessionId {
        let id = self.next_id;
        self.next_id += 1;
        let session = Session {
            rows: Vec::new(),
            logits: Vec::new(),
            state: State::Idle,
            outcome: None,
            cancel: CancelToken::new(),
            served: 0,
        };
        self.sessions.insert(id, session);
        id
    }

    /// Ends a session; its blocks are free at once.
    pub(crate) fn close(&mut self, id: SessionId) {
        if let Some(mut session) = self.sessions.remove(&id) {
            session.rows.iter_mut().for_each(|row| row.evict(&mut self.pool));
        }
    }

    /// A session, for changes to its rows, with the pool that they need.
    pub(crate) fn session(&mut self, id: SessionId) -> (&mut Session, &mut BlockPool) {
        let session = self.sessions.get_mut(&id).expect("a session lives until it is closed");
        (session, &mut self.pool)
    }

    /// Tokens behind the first that a session's step may have at no cost: with others in it, none.
    pub(crate) fn free_tokens(&self, id: SessionId) -> usize {
        let alone = self.sessions.iter().all(|(other, s)| *other == id || s.state == State::Idle);
        if alone { self.limits.free_tokens } else { 0 }
    }

    /// Has the pending tokens of a session's rows run.
    pub(crate) fn submit(&mut self, id: SessionId, cancel: &CancelToken) {
        let vocab_size = self.limits.vocab_size;
        let (session, _) = self.session(id);
        session.state = State::Working;
        session.outcome = None;
        session.cancel = cancel.clone();
        let wanted: usize = session.rows.iter().map(Row::wanted).sum();
        session.logits.resize(wanted * vocab_size, 0.0);
    }

    /// How the submitted work ended, once: `Ok(false)` when cancelled.
    pub(crate) fn outcome(&mut self, id: SessionId) -> Option<Outcome> {
        self.session(id).0.outcome.take()
    }

    /// Whether somebody's next tokens are awaited.
    pub(crate) fn is_deciding(&self) -> bool {
        self.sessions.values().any(|s| s.state == State::Deciding)
    }

    /// Waits no longer for those that decide.
    pub(crate) fn stop_waiting(&mut self) {
        for session in self.sessions.values_mut().filter(|s| s.state == State::Deciding) {
            session.state = State::Idle;
        }
    }

    /// The next step; `None` where nobody can run now.
    pub(crate) fn plan(&mut self) -> Option<Plan> {
        self.end_cancelled();
        self.suspects.retain(|id| self.sessions.get(id).is_some_and(|s| s.state == State::Working));
        while let Some(&suspect) = self.suspects.front() {
            let plan = self.plan_for(&[suspect]);
            if plan.is_some() {
                return plan;
            }
            // Others have the blocks that it needs.
            self.suspects.pop_front();
        }
        let order = self.order();
        let plan = self.plan_for(&order);
        if plan.is_none() {
            self.end_hopeless(&order);
        }
        plan
    }

    /// A step of some of the sessions.
    fn plan_for(&mut self, order: &[SessionId]) -> Option<Plan> {
        let decoding = order.iter().any(|id| self.is_decoding(*id));
        let mut plan = Plan { step: Step::default(), parts: Vec::new() };
        // A prompt's piece makes everybody wait for its end.
        let mut prompt_tokens = match decoding {
            true => self.limits.step_tokens.div_ceil(4),
            false => self.limits.step_tokens,
        };
        prompt_tokens = prompt_tokens.max(MIN_PIECE);
        let mut planned = BTreeSet::new();
        for &id in order {
            for row in 0..self.sessions[&id].rows.len() {
                let most = if self.is_decoding(id) { usize::MAX } else { prompt_tokens };
                let tokens = self.add(id, row, most, &planned, &mut plan);
                if tokens > 0 {
                    planned.insert(id);
                    if most != usize::MAX {
                        prompt_tokens -= tokens;
                    }
                }
            }
        }
        if plan.parts.is_empty() {
            return None;
        }
        self.counts.steps += 1;
        Some(plan)
    }

    /// Working sessions: those that decode, then prompts by the step that served them last.
    fn order(&self) -> Vec<SessionId> {
        let working = self.sessions.iter().filter(|(_, s)| s.state == State::Working);
        let mut order: Vec<SessionId> = working.map(|(id, _)| *id).collect();
        order.sort_by_key(|id| {
            (!self.is_decoding(*id), if self.is_decoding(*id) { 0 } else { self.sessions[id].served }, *id)
        });
        order
    }

    fn is_decoding(&self, id: SessionId) -> bool {
        let session = &self.sessions[&id];
        session.rows.iter().all(|row| row.pending() <= self.limits.block_tokens)
    }

    /// Adds at most `most` tokens of a row; how many.
    fn add(
        &mut self,
        id: SessionId,
        row: usize,
        most: usize,
        planned: &BTreeSet<SessionId>,
        plan: &mut Plan,
    ) -> usize {
        let shares = self.limits.max_kept > 0;
        if shares {
            self.find_prefix(id, row);
        }
        if self.sessions[&id].rows[row].piece(most) == 0 || (shares && !self.begin_block(id, row)) {
            return 0;
        }
        let piece = self.sessions[&id].rows[row].piece(most);
        let room = self.make_room(id, row, piece, planned);
        let tokens = self.sessions[&id].rows[row].piece(room);
        if tokens == 0 {
            return 0;
        }
        self.occupy(id, row, tokens, &mut plan.step);
        let row_of = &self.sessions[&id].rows[row];
        let logits = plan.step.push(row_of, tokens, self.limits.block_tokens);
        plan.parts.push(Part { session: id, row, tokens, logits });
        tokens
    }

    /// Sees to it that a row has room for up to `tokens` more; for how many it has.
    fn make_room(
        &mut self,
        id: SessionId,
        row: usize,
        tokens: usize,
        planned: &BTreeSet<SessionId>,
    ) -> usize {
        let size = self.limits.block_tokens;
        let (computed, blocks, copies) = {
            let row = &self.sessions[&id].rows[row];
            (row.computed, row.blocks.len(), usize::from(self.copies_on_write(row)))
        };
        let needed = (computed + tokens).div_ceil(size) - blocks + copies;
        while self.pool.available() < needed {
            if !self.preempt_for(id, planned) {
                break;
            }
        }
        let Some(available) = self.pool.available().checked_sub(copies) else { return 0 };
        tokens.min((blocks + available) * size - computed)
    }

    /// Whether the row's next token belongs into a block that others have, or may find for what it holds there.
    fn copies_on_write(&self, row: &Row) -> bool {
        let within = row.computed % self.limits.block_tokens;
        let others = |id: BlockId| self.pool.is_shared(id) || self.pool.is_found_beyond(id, within);
        within > 0 && row.blocks.last().is_some_and(|id| others(*id))
    }

    /// Takes the blocks of a session that is idle, or else of the one that began last, after `id`.
    fn preempt_for(&mut self, id: SessionId, planned: &BTreeSet<SessionId>) -> bool {
        let victims = self.sessions.iter().filter(|(other, session)| {
            **other != id && !planned.contains(other) && session.rows.iter().any(|row| !row.blocks.is_empty())
        });
        let may = victims.filter(|(other, session)| session.state == State::Idle || **other > id);
        let victim =
            may.max_by_key(|(other, session)| (session.state == State::Idle, **other)).map(|(id, _)| *id);
        let Some(victim) = victim else { return false };
        let (session, pool) = self.session(victim);
        session.rows.iter_mut().for_each(|row| row.evict(pool));
        self.counts.preempted += 1;
        true
    }

    /// Gives a row the blocks for `tokens` more, for which there is room.
    fn occupy(&mut self, id: SessionId, row: usize, tokens: usize, step: &mut Step) {
        let size = self.limits.block_tokens;
        let copies = self.copies_on_write(&self.sessions[&id].rows[row]);
        let (session, pool) = (self.sessions.get_mut(&id).expect("it is planned"), &mut self.pool);
        let row = &mut session.rows[row];
        if let (true, Some(last)) = (copies, row.blocks.last_mut()) {
            let copy = pool.take().expect("room was made");
            step.copies.push((*last, copy));
            pool.release(*last);
            *last = copy;
        }
        while row.blocks.len() * size < row.computed + tokens {
            row.blocks.push(pool.take().expect("room was made"));
        }
    }

    /// Takes note of a step that was run.
    pub(crate) fn done(&mut self, plan: &Plan, logits: &[f32]) {
        let (size, vocab_size) = (self.limits.block_tokens, self.limits.vocab_size);
        let mut logits = logits;
        for part in &plan.parts {
            let step = self.counts.steps;
            self.counts.run += part.tokens as u64;
            let (new, rest) = logits.split_at(part.logits * vocab_size);
            logits = rest;
            // It may have been closed meanwhile.
            let Some(session) = self.sessions.get_mut(&part.session) else { continue };
            session.served = step;
            let before: usize = session.rows[..part.row].iter().map(Row::wanted).sum();
            let row = &mut session.rows[part.row];
            let (_, place) = row.wanted_of(part.tokens);
            let before_step = row.computed;
            row.computed += part.tokens;
            for len in before_step + 1..=row.computed {
                if self.limits.max_kept > 0 && row.gives(len, size) {
                    let (last, hash) = (len - 1, row.hash(len));
                    self.pool.publish(row.blocks[last / size], last % size + 1, hash);
                }
            }
            session.logits[(before + place) * vocab_size..][..new.len()].copy_from_slice(new);
            if session.pending() == 0 {
                session.state = State::Deciding;
                session.outcome = Some(Ok(true));
            }
        }
        self.suspects.retain(|id| plan.parts.iter().all(|part| part.session != *id));
    }

    /// Takes note of a step that failed. Whose fault it is shows when each of its sessions is run alone.
    pub(crate) fn failed(&mut self, plan: &Plan, error: Error) {
        let guilty: BTreeSet<SessionId> = plan.parts.iter().map(|part| part.session).collect();
        // What was computed before stays, so that a row gets as far again.
        for id in &guilty {
            if let Some(session) = self.sessions.get_mut(id) {
                let size = self.limits.block_tokens;
                session.rows.iter_mut().for_each(|row| row.release_unused(&mut self.pool, size));
            }
        }
        match guilty.first() {
            Some(only) if guilty.len() == 1 => self.end(*only, Err(error)),
            _ => self.suspects.extend(guilty),
        }
    }

    fn end(&mut self, id: SessionId, outcome: Outcome) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.rows.iter_mut().for_each(|row| row.evict(&mut self.pool));
            session.state = State::Idle;
            session.outcome = Some(outcome);
        }
        self.suspects.retain(|suspect| *suspect != id);
    }

    fn end_cancelled(&mut self) {
        let working =
            self.sessions.iter().filter(|(_, s)| s.state == State::Working && s.cancel.is_cancelled());
        let cancelled: Vec<SessionId> = working.map(|(id, _)| *id).collect();
        cancelled.into_iter().for_each(|id| self.end(id, Ok(false)));
    }

    /// Nobody got on. That is for good if nobody else will let blocks go.
    fn end_hopeless(&mut self, order: &[SessionId]) {
        let oldest = order.iter().min();
        let blocked = oldest.filter(|id| {
            let others = self.sessions.range(..**id);
            others
                .filter(|(_, s)| s.state == State::Deciding)
                .all(|(_, s)| s.rows.iter().all(|r| r.blocks.is_empty()))
        });
        if let Some(&id) = blocked {
            let tokens = self.sessions[&id].rows.iter().map(Row::len).sum();
            let limit = self.pool.len() * self.limits.block_tokens;
            self.end(id, Err(Error::CacheTooSmall { tokens, limit }));
        }
    }

    /// Says what is wrong with the accounting of blocks.
    #[cfg(test)]
    pub(crate) fn check(&self) -> Result<(), String> {
        let rows = || self.sessions.values().flat_map(|s| &s.rows);
        for row in rows() {
            if row.blocks.len() != row.computed.div_ceil(self.limits.block_tokens) {
                return Err(format!("{} blocks hold {} tokens", row.blocks.len(), row.computed));
            }
        }
        self.pool.check(rows().flat_map(|row| row.blocks.iter().copied()))
    }
}
