//! What sessions begin with in common: taken over where it is computed, waited for where it is about to be.

use super::{Scheduler, SessionId, State};

/// Tokens of a prompt that cost more than the step that is waited for while another session computes them.
const WORTH_WAITING: usize = 8;

impl Scheduler {
    /// Takes over computed blocks of the same content.
    pub(super) fn find_prefix(&mut self, id: SessionId, row: usize) {
        let size = self.limits.block_tokens;
        while self.session(id).0.rows[row].may_find(size) && self.take_over(id, row, size) {}
    }

    /// Takes over what the row's next block begins with in common with a computed one; false where it waits for an older session
    /// instead.
    pub(super) fn begin_block(&mut self, id: SessionId, row: usize) -> bool {
        let begun = self.beginning(id, row);
        if self.computed_by_another(id, row, begun) {
            return false;
        }
        if begun > 0 {
            self.take_over(id, row, begun);
        }
        true
    }

    /// Of how many tokens the row's next block begins as a computed one does.
    fn beginning(&mut self, id: SessionId, row: usize) -> usize {
        let size = self.limits.block_tokens;
        let (session, pool) = self.session(id);
        let row = &mut session.rows[row];
        let (start, most) = (row.computed, row.may_begin(size));
        (1..=most).rev().find(|n| pool.contains(&row.hash(start + n))).unwrap_or(0)
    }

    /// Takes over the first tokens of a computed block, or all; it is copied when the row goes on otherwise.
    fn take_over(&mut self, id: SessionId, row: usize, tokens: usize) -> bool {
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

    /// Whether an older session is about to compute so much more of the row's next block than the `begun` tokens that are found
    /// that waiting is cheaper.
    fn computed_by_another(&mut self, id: SessionId, row: usize, begun: usize) -> bool {
        let size = self.limits.block_tokens;
        let own = &mut self.session(id).0.rows[row];
        let most = if own.may_find(size) { size } else { own.may_begin(size) };
        let worth = begun + WORTH_WAITING.min(size);
        if worth > most {
            return false;
        }
        let end = own.computed + worth;
        let wanted = own.hash(end);
        let older = self.sessions.range_mut(..id).filter(|(_, s)| s.state == State::Working);
        let mut rows = older.flat_map(|(_, session)| &mut session.rows);
        rows.any(|other| {
            let will = other.computed < end && end <= other.len();
            will && other.gives(end, size) && other.hash(end) == wanted
        })
    }
}
