//! Whose turn it is on the processor's cores: OpenVINO uses all of them for each call, so calls of two models at once
//! only push each other out of the caches.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// What wants to compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An image or frame.
    Vision,
    /// A step of the language model.
    Step,
}

#[derive(Debug, Default)]
struct State {
    busy: bool,
    /// Waiting, by kind.
    waiting: [usize; 2],
    last: Option<Kind>,
    bulk: usize,
}

impl State {
    fn yields(&self, kind: Kind) -> bool {
        match kind {
            // In bulk work images come first: the more sessions a step has, the less each of them costs.
            Kind::Step => self.waiting[0] > 0 && (self.bulk > 0 || self.last == Some(Kind::Step)),
            Kind::Vision => self.waiting[1] > 0 && self.bulk == 0 && self.last == Some(Kind::Vision),
        }
    }
}

/// Hands out one turn at a time; the two kinds alternate, but in bulk work images go first.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    state: Mutex<State>,
    changed: Condvar,
}

impl Turns {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a turn, which lasts as long as what is returned.
    pub(crate) fn take(&self, kind: Kind) -> Turn<'_> {
        let mut state = self.lock();
        state.waiting[kind as usize] += 1;
        let mut state = self
            .changed
            .wait_while(state, |s| s.busy || s.yields(kind))
            .unwrap_or_else(PoisonError::into_inner);
        state.waiting[kind as usize] -= 1;
        state.busy = true;
        state.last = Some(kind);
        Turn(self)
    }

    /// Lets images go first as long as what is returned lives.
    pub(crate) fn bulk(&self) -> Bulk<'_> {
        self.lock().bulk += 1;
        Bulk(self)
    }
}

/// A turn.
pub(crate) struct Turn<'t>(&'t Turns);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.lock().busy = false;
        self.0.changed.notify_all();
    }
}

/// Bulk work in progress, see [`crate::Engine::bulk`].
pub struct Bulk<'t>(&'t Turns);

impl Drop for Bulk<'_> {
    fn drop(&mut self) {
        self.0.lock().bulk -= 1;
        self.0.changed.notify_all();
    }
}
