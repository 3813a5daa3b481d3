//! What sessions begin with in common: taken over where it is computed, waited for where it is about to be.

use super::{Limits, Scheduler, SessionId, State};

/// Tokens of a prompt that cost more than the step that is waited for while another session computes them.
const WORTH_WAITING: usize = 8;

impl Scheduler {
    /// Takes over computed blocks of the same content.
    pub(super) fn find_prefix(&mut self, id: SessionId, row: usize) {
        let Limits { block_tokens: size, max_kept, .. } = self.limits;
        while max_kept > 0 && self.session(id).0.rows[row].may_find(size) && self.take_over(id, row, size) {}
    }

    /// Of how many tokens the row's next block begins as a computed one does.
    pub(super) fn beginning(&mut self, id: SessionId, row: usize) -> usize {
        let (size, max_kept) = (self.limits.block_tokens, self.limits.max_kept);
        let (session, pool) = self.session(id);
        let row = &mut session.rows[row];
        let most = if max_kept > 0 { row.may_begin(size) } else { 0 };
        let start = row.computed;
        (1..=most).rev().find(|n| pool.contains(&row.hash(start + n))).unwrap_or(0)
    }

    /// Takes over the first tokens of a computed block, or all; it is copied when the row goes on otherwise.
    pub(super) fn take_over(&mut self, id: SessionId, row: usize, tokens: usize) -> bool {
        let (session, pool) = self.session(id);
        let row = &mut session.rows[row];
        let hash = row.hash(row.computed + tokens);
        let Some(block) = pool.find(&hash) else { return false };
        row.blocks.push(block);
        row.computed += tokens;
        row.found += tokens;
        self.counts.found += tokens as u64;
        true
    }

    /// Whether an older session is about to compute more of the row's next block than the `begun` tokens that are found: all of it, or
    /// enough more that waiting is cheaper.
    pub(super) fn computed_by_another(&mut self, id: SessionId, row: usize, begun: usize) -> bool {
        let Limits { block_tokens: size, max_kept, .. } = self.limits;
        let own = &mut self.session(id).0.rows[row];
        let most = if own.may_find(size) { size } else { own.may_begin(size) };
        let worth = begun + WORTH_WAITING.min(size);
        if max_kept == 0 || worth > most {
            return false;
        }
        let end = own.computed + worth;
        let wanted = own.hash(end);
        let older = self.sessions.range_mut(..id).filter(|(_, s)| s.state == State::Working);
        let mut rows = older.flat_map(|(_, session)| &mut session.rows);
        rows.any(|other| {
            let will = other.computed < end && end <= other.len();
            will && (other.is_prompt(end) || end.is_multiple_of(size)) && other.hash(end) == wanted
        })
    }
}
