//! The table of what a stream has had: references name its entries by number.

use std::sync::Arc;

use super::class::ClassDescriptor;
use super::value::Value;
use crate::Reason;

/// The number of the first entry, `baseWireHandle`.
const FIRST: u32 = 0x7e_0000;

/// A value with the height of its tree; 0 for what has nothing below it.
#[derive(Debug, Clone)]
pub(super) struct Tall {
    pub value: Value,
    pub height: u32,
}

#[derive(Debug, Clone)]
pub(super) enum Entry {
    /// Being read.
    Unfinished,
    Value(Tall),
    Class(Arc<ClassDescriptor>),
}

#[derive(Debug, Default)]
pub(super) struct Handles {
    entries: Vec<Entry>,
}

/// An entry that was assigned and has to be filled.
#[derive(Debug)]
pub(super) struct Slot(usize);

impl Handles {
    pub fn assign(&mut self) -> Slot {
        self.entries.push(Entry::Unfinished);
        Slot(self.entries.len() - 1)
    }

    #[expect(clippy::needless_pass_by_value, reason = "a slot is filled once")]
    pub fn fill(&mut self, slot: Slot, entry: Entry) {
        self.entries[slot.0] = entry;
    }

    /// What `handle` refers to.
    pub fn get(&self, handle: u32) -> Result<&Entry, Reason> {
        let index = handle.checked_sub(FIRST).map(|index| index as usize);
        match index.and_then(|index| self.entries.get(index)) {
            None => Err(Reason::UnknownHandle { handle, known: self.entries.len() as u64 }),
            Some(Entry::Unfinished) => Err(Reason::Cycle { handle }),
            Some(entry) => Ok(entry),
        }
    }

    pub fn clear(&mut self) {
        self.entries.clear();
    }
}
