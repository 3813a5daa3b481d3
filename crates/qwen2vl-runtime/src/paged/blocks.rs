//! Blocks of the KV cache: who holds which, what is shared, and what is kept for prompts to come.

use std::cmp::Reverse;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BinaryHeap, HashMap};

/// Number of a block in the cache's tensors.
pub(crate) type BlockId = u32;

/// What a block holds, or begins with, and all that comes before it.
pub(crate) type BlockHash = [u8; 16];

#[derive(Debug, Clone, Default)]
struct Block {
    holders: u32,
    /// By which others find it: of its first tokens, and how many these are.
    found_by: Vec<(usize, BlockHash)>,
    /// When its last holder let it go.
    released: u64,
}

/// All blocks. A block is held, or kept for its content (it can be found, and is given up when others are needed), or free.
#[derive(Debug)]
pub(crate) struct BlockPool {
    blocks: Vec<Block>,
    /// The lowest first: what was never used takes no memory.
    free: BinaryHeap<Reverse<BlockId>>,
    found_by: HashMap<BlockHash, BlockId>,
    /// Blocks without holders that can be found, by the time of their release.
    kept: BTreeMap<u64, BlockId>,
    max_kept: usize,
    clock: u64,
}

impl BlockPool {
    /// So many free blocks, of which at most `max_kept` are kept for their content.
    pub(crate) fn new(n_blocks: usize, max_kept: usize) -> Self {
        Self {
            blocks: vec![Block::default(); n_blocks],
            free: (0..n_blocks as BlockId).map(Reverse).collect(),
            found_by: HashMap::new(),
            kept: BTreeMap::new(),
            max_kept,
            clock: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Blocks that [`BlockPool::take`] can still give.
    pub(crate) fn available(&self) -> usize {
        self.free.len() + self.kept.len()
    }

    /// Blocks kept for their content alone.
    #[cfg(test)]
    pub(crate) fn kept(&self) -> usize {
        self.kept.len()
    }

    /// A block for new content, held once: a free one, else the one that was let go first.
    pub(crate) fn take(&mut self) -> Option<BlockId> {
        let id = match self.free.pop() {
            Some(Reverse(id)) => id,
            None => {
                let (_, id) = self.kept.pop_first()?;
                self.forget(id);
                id
            }
        };
        self.blocks[id as usize].holders = 1;
        Some(id)
    }

    /// One holder more.
    pub(crate) fn hold(&mut self, id: BlockId) {
        let block = &mut self.blocks[id as usize];
        if block.holders == 0 {
            self.kept.remove(&block.released);
        }
        block.holders += 1;
    }

    /// One holder less.
    pub(crate) fn release(&mut self, id: BlockId) {
        let block = &mut self.blocks[id as usize];
        debug_assert!(block.holders > 0, "block {id} is released by nobody");
        block.holders = block.holders.saturating_sub(1);
        if block.holders > 0 {
            return;
        }
        if block.found_by.is_empty() || self.max_kept == 0 {
            self.forget(id);
            self.free.push(Reverse(id));
            return;
        }
        self.clock += 1;
        block.released = self.clock;
        self.kept.insert(self.clock, id);
        if self.kept.len() > self.max_kept
            && let Some((_, oldest)) = self.kept.pop_first()
        {
            self.forget(oldest);
            self.free.push(Reverse(oldest));
        }
    }

    /// Whether somebody else's content would change with the block's.
    pub(crate) fn is_shared(&self, id: BlockId) -> bool {
        self.blocks[id as usize].holders > 1
    }

    /// Whether it may be found for more than its first tokens.
    pub(crate) fn is_found_beyond(&self, id: BlockId, tokens: usize) -> bool {
        self.blocks[id as usize].found_by.iter().any(|(n, _)| *n > tokens)
    }

    /// Lets others find a block by its first tokens; of two that begin the same the first stays the one that is found.
    pub(crate) fn publish(&mut self, id: BlockId, tokens: usize, hash: BlockHash) {
        if let Entry::Vacant(entry) = self.found_by.entry(hash) {
            entry.insert(id);
            self.blocks[id as usize].found_by.push((tokens, hash));
        }
    }

    /// Its content will be another: nobody finds it any more.
    fn forget(&mut self, id: BlockId) {
        for (_, hash) in std::mem::take(&mut self.blocks[id as usize].found_by) {
            self.found_by.remove(&hash);
        }
    }

    /// A block of that content, or that begins with it, held once more.
    pub(crate) fn find(&mut self, hash: &BlockHash) -> Option<BlockId> {
        let id = *self.found_by.get(hash)?;
        self.hold(id);
        Some(id)
    }

    /// Whether there is such a block.
    pub(crate) fn contains(&self, hash: &BlockHash) -> bool {
        self.found_by.contains_key(hash)
    }

    /// Says what is wrong if blocks are lost, or held by others than those given.
    #[cfg(test)]
    pub(crate) fn check(&self, held: impl IntoIterator<Item = BlockId>) -> Result<(), String> {
        let mut holders = vec![0; self.blocks.len()];
        for id in held {
            holders[id as usize] += 1;
        }
        let mut idle = vec![0; self.blocks.len()];
        self.free
            .iter()
            .map(|id| id.0)
            .chain(self.kept.values().copied())
            .for_each(|id| idle[id as usize] += 1);
        for (id, block) in self.blocks.iter().enumerate() {
            if block.holders != holders[id] {
                return Err(format!(
                    "block {id}: {} holders counted, {} there are",
                    block.holders, holders[id]
                ));
            }
            if idle[id] != u32::from(block.holders == 0) {
                return Err(format!("block {id} with {} holders is idle {} times", block.holders, idle[id]));
            }
            if block.found_by.iter().any(|(_, hash)| self.found_by.get(hash) != Some(&(id as BlockId))) {
                return Err(format!("block {id} cannot be found"));
            }
        }
        if self.found_by.len() != self.blocks.iter().map(|b| b.found_by.len()).sum::<usize>() {
            return Err("a block is found by a hash that it has not".to_owned());
        }
        if self.kept.len() > self.max_kept {
            return Err(format!("{} blocks are kept, {} may be", self.kept.len(), self.max_kept));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn low_blocks_are_taken_first_and_given_back() {
        let mut pool = BlockPool::new(3, 3);
        assert_eq!([pool.take(), pool.take(), pool.take(), pool.take()], [Some(0), Some(1), Some(2), None]);
        pool.release(1);
        pool.release(0);
        assert_eq!((pool.available(), pool.take()), (2, Some(0)));
        pool.check([0, 2]).unwrap();
    }

    #[test]
    fn content_is_found_until_its_block_is_needed() {
        let mut pool = BlockPool::new(2, 2);
        let (a, b) = (pool.take().unwrap(), pool.take().unwrap());
        pool.publish(a, 4, [1; 16]);
        pool.publish(b, 4, [2; 16]);
        pool.release(a);
        pool.release(b);
        assert_eq!((pool.kept(), pool.available()), (2, 2));
        assert_eq!(pool.find(&[1; 16]), Some(a));
        pool.check([a]).unwrap();
        // The oldest goes first; `a` is held.
        assert_eq!(pool.take(), Some(b));
        assert!(!pool.contains(&[2; 16]) && pool.contains(&[1; 16]));
        pool.check([a, b]).unwrap();
    }

    #[test]
    fn no_more_is_kept_than_may_be() {
        let mut pool = BlockPool::new(8, 2);
        for n in 0..4 {
            let id = pool.take().unwrap();
            pool.publish(id, 4, [n; 16]);
            pool.release(id);
        }
        assert_eq!(pool.kept(), 2);
        assert!(!pool.contains(&[1; 16]) && pool.contains(&[2; 16]) && pool.contains(&[3; 16]));
        pool.check([]).unwrap();
    }

    #[test]
    fn of_equal_contents_one_is_found() {
        let mut pool = BlockPool::new(2, 2);
        let (a, b) = (pool.take().unwrap(), pool.take().unwrap());
        pool.publish(a, 4, [1; 16]);
        pool.publish(b, 4, [1; 16]);
        assert_eq!(pool.find(&[1; 16]), Some(a));
        pool.release(a);
        pool.release(a);
        pool.release(b);
        pool.check([]).unwrap();
        assert_eq!(pool.kept(), 1);
    }

    #[test]
    fn a_block_is_found_by_what_it_begins_with_until_it_goes() {
        let mut pool = BlockPool::new(2, 2);
        let (a, b) = (pool.take().unwrap(), pool.take().unwrap());
        (1..=3).for_each(|n| pool.publish(a, n, [n as u8; 16]));
        // Another one that begins as the first does and goes on otherwise.
        [1, 2, 9].iter().zip(1..).for_each(|(hash, n)| pool.publish(b, n, [*hash; 16]));
        assert_eq!(
            ([2, 9].map(|hash| pool.find(&[hash; 16])), pool.is_shared(a)),
            ([Some(a), Some(b)], true)
        );
        assert!(pool.is_found_beyond(a, 2) && !pool.is_found_beyond(a, 3) && pool.is_found_beyond(b, 2));
        pool.check([a, a, b, b]).unwrap();
        [a, a, b, b].into_iter().for_each(|id| pool.release(id));
        assert_eq!(pool.take(), Some(a));
        assert_eq!([1, 3, 9].map(|hash| pool.contains(&[hash; 16])), [false, false, true]);
        pool.check([a]).unwrap();
    }
}
