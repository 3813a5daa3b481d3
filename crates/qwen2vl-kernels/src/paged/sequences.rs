//! Sequences whose tokens go through the model together.

use std::ops::Range;

use thiserror::Error;

use super::BLOCK_TOKENS;

/// Sequences of a step, and where the cache has them; checked once for all layers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sequences {
    sequences: Vec<Sequence>,
    blocks: Vec<u32>,
    /// One past the highest block.
    blocks_needed: usize,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sequence {
    /// Its tokens among those of the step.
    pub rows: Range<usize>,
    /// Tokens before them.
    pub past: usize,
    /// Its blocks among all.
    blocks: Range<usize>,
}

/// Why there are no such sequences.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum SequencesError {
    /// Their parts do not belong together.
    #[error("descriptions of {past} and {begins} and {blocks} sequences")]
    Lengths {
        /// In `past_lens`.
        past: usize,
        /// In `subsequence_begins`, less one.
        begins: usize,
        /// In `block_indices_begins`, less one.
        blocks: usize,
    },
    /// Numbers are negative, or beginnings not in order.
    #[error("sequence {0} is described by numbers that cannot be")]
    Numbers(usize),
    /// A sequence has fewer blocks than its tokens need.
    #[error("sequence {0} has no blocks for all of its tokens")]
    Blocks(usize),
}

impl Sequences {
    /// As the inputs of OpenVINO's `PagedAttentionExtension` describe them: of each sequence the tokens before, and in the other
    /// two where tokens and blocks begin, with the end at last.
    ///
    /// # Errors
    ///
    /// [`SequencesError`].
    pub fn new(
        past_lens: &[i32],
        subsequence_begins: &[i32],
        block_indices: &[i32],
        block_indices_begins: &[i32],
    ) -> Result<Self, SequencesError> {
        let n = past_lens.len();
        let ends = |begins: &[i32]| begins.len().saturating_sub(1);
        let (begins, blocks) = (ends(subsequence_begins), ends(block_indices_begins));
        if begins != n || blocks != n {
            return Err(SequencesError::Lengths { past: n, begins, blocks });
        }
        let mut all = Self::default();
        let range = |begins: &[i32], i: usize| {
            let range = usize::try_from(begins[i]).ok()?..usize::try_from(begins[i + 1]).ok()?;
            (range.start <= range.end).then_some(range)
        };
        for (i, past) in past_lens.iter().enumerate() {
            let parts = || {
                let rows = range(subsequence_begins, i)?;
                let blocks =
                    range(block_indices_begins, i).filter(|blocks| blocks.end <= block_indices.len())?;
                (rows.start == all.tokens()).then_some((rows, usize::try_from(*past).ok()?, blocks))
            };
            let (rows, past, blocks) = parts().ok_or(SequencesError::Numbers(i))?;
            if (past + rows.len()).div_ceil(BLOCK_TOKENS) > blocks.len() {
                return Err(SequencesError::Blocks(i));
            }
            all.sequences.push(Sequence { rows, past, blocks });
        }
        for (i, block) in block_indices.iter().enumerate() {
            let owner = || all.sequences.iter().position(|s| s.blocks.contains(&i)).unwrap_or(n);
            let block = u32::try_from(*block).map_err(|_| SequencesError::Numbers(owner()))?;
            all.blocks_needed = all.blocks_needed.max(block as usize + 1);
            all.blocks.push(block);
        }
        Ok(all)
    }

    /// Tokens of all of them.
    pub fn tokens(&self) -> usize {
        self.sequences.last().map_or(0, |last| last.rows.end)
    }

    pub(super) fn blocks_needed(&self) -> usize {
        self.blocks_needed
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Sequence> {
        self.sequences.iter()
    }

    /// A sequence's blocks.
    pub(super) fn blocks_of(&self, sequence: &Sequence) -> &[u32] {
        &self.blocks[sequence.blocks.clone()]
    }
}

impl Sequence {
    /// Tokens that a row sees, itself included.
    pub(super) fn seen_by(&self, row: usize) -> usize {
        self.past + row - self.rows.start + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_are_what_they_are_described_by() {
        let all = Sequences::new(&[40, 0], &[0, 1, 5], &[7, 2, 9], &[0, 2, 3]).unwrap();
        assert_eq!((all.tokens(), all.blocks_needed()), (5, 10));
        let of: Vec<_> = all.iter().map(|s| (s.rows.clone(), all.blocks_of(s).to_vec())).collect();
        assert_eq!(of, [(0..1, vec![7, 2]), (1..5, vec![9])]);
        let seen: Vec<_> =
            all.iter().map(|s| s.rows.clone().map(|row| s.seen_by(row)).collect::<Vec<_>>()).collect();
        assert_eq!(seen, [vec![41], vec![1, 2, 3, 4]]);
        assert_eq!(Sequences::new(&[], &[0], &[], &[0]).unwrap().tokens(), 0);
        assert_eq!(Sequences::new(&[], &[], &[], &[]).unwrap().tokens(), 0);
    }

    #[test]
    fn what_does_not_belong_together_is_named() {
        use SequencesError::{Blocks, Lengths, Numbers};
        let of = |past: &[i32], begins: &[i32], blocks: &[i32], block_begins: &[i32]| {
            Sequences::new(past, begins, blocks, block_begins).unwrap_err()
        };
        assert_eq!(of(&[0], &[0], &[0], &[0, 1]), Lengths { past: 1, begins: 0, blocks: 1 });
        assert_eq!(of(&[-1], &[0, 1], &[0], &[0, 1]), Numbers(0));
        assert_eq!(of(&[0], &[0, -1], &[0], &[0, 1]), Numbers(0));
        assert_eq!(of(&[0, 0], &[0, 1, 0], &[0, 1], &[0, 1, 2]), Numbers(1));
        assert_eq!(of(&[0], &[1, 2], &[0], &[0, 1]), Numbers(0));
        assert_eq!(of(&[0], &[0, 1], &[0], &[0, 2]), Numbers(0));
        assert_eq!(of(&[0], &[0, 1], &[-3], &[0, 1]), Numbers(0));
        assert_eq!(of(&[0, 31], &[0, 1, 3], &[0, 1], &[0, 1, 2]), Blocks(1));
    }
}
