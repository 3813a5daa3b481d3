//! M-RoPE positions: text counts up on all three axes, an image or video spans its grid.
//!
//! Follows `get_rope_index` of Hugging Face transformers 4.57.6 for one unpadded sequence. The time step of Qwen2-VL is
//! 1 per temporal patch.

use qwen2vl_types::{GridThw, TokenId};

use crate::Error;

/// Ids of the tokens that stand for images and videos.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VisionTokens {
    /// `<|image_pad|>`, 151655.
    pub image_pad: TokenId,
    /// `<|video_pad|>`, 151656.
    pub video_pad: TokenId,
    /// `<|vision_start|>`, 151652.
    pub vision_start: TokenId,
    /// `<|vision_end|>`, 151653.
    pub vision_end: TokenId,
}

/// Qwen2-VL's own ids.
impl Default for VisionTokens {
    fn default() -> Self {
        Self { image_pad: 151_655, video_pad: 151_656, vision_start: 151_652, vision_end: 151_653 }
    }
}

/// Positions of a prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RopeIndex {
    /// Temporal, height and width axis, one position per token each.
    pub position_ids: [Vec<i64>; 3],
    /// Largest position + 1 - number of tokens: a generated token's position is the number of tokens before it plus
    /// this.
    pub rope_delta: i64,
}

/// Positions for Qwen2-VL's own ids and 2x2 merge; see [`rope_index_with`].
///
/// ```
/// use qwen2vl_tokenizer::rope_index;
///
/// // Text, <|vision_start|>, a grid of 2x4 patches (1x2 tokens), <|vision_end|>.
/// let ids = [9, 151652, 151655, 151655, 151653];
/// let index = rope_index(&ids, &[[1, 2, 4]], &[])?;
/// assert_eq!(index.position_ids, [vec![0, 1, 2, 2, 4], vec![0, 1, 2, 2, 4], vec![0, 1, 2, 3, 4]]);
/// assert_eq!(index.rope_delta, 0);
/// # Ok::<(), qwen2vl_tokenizer::Error>(())
/// ```
///
/// # Errors
///
/// As [`rope_index_with`].
pub fn rope_index<G>(
    input_ids: &[TokenId],
    image_grid_thw: &[G],
    video_grid_thw: &[G],
) -> Result<RopeIndex, Error>
where
    G: Copy + Into<GridThw>,
{
    rope_index_with(&VisionTokens::default(), 2, input_ids, image_grid_thw, video_grid_thw)
}

/// Positions of `input_ids` with expanded placeholders, for the grids of its images and videos in order.
///
/// # Errors
///
/// [`Error::PlaceholderTokens`] if the placeholder tokens of a kind are not as many as its grids need,
/// [`Error::PlaceholderRun`] if those of one image or video do not stand in a row, [`Error::PlaceholderCount`] if more
/// images or videos are opened by `vision_start` than there are grids.
pub fn rope_index_with<G>(
    tokens: &VisionTokens,
    merge_size: u32,
    input_ids: &[TokenId],
    image_grid_thw: &[G],
    video_grid_thw: &[G],
) -> Result<RopeIndex, Error>
where
    G: Copy + Into<GridThw>,
{
    let mut images = Kind::new("image", tokens.image_pad, merge_size, image_grid_thw, tokens, input_ids)?;
    let mut videos = Kind::new("video", tokens.video_pad, merge_size, video_grid_thw, tokens, input_ids)?;
    let mut axes = [(); 3].map(|()| Vec::with_capacity(input_ids.len()));
    let mut next = 0;
    let mut start = 0;
    for _ in 0..images.blocks + videos.blocks {
        let (image_at, video_at) = (images.next_at(input_ids, start), videos.next_at(input_ids, start));
        let kind = if image_at < video_at { &mut images } else { &mut videos };
        let at = image_at.min(video_at);
        let name = kind.name;
        let (Some(grid), true) = (kind.take(), at < input_ids.len()) else {
            // A run that took the other blocks' tokens left none for this one.
            return Err(Error::PlaceholderRun { kind: name, at: start, needed: 1, found: 0 });
        };
        next = push_text(&mut axes, next, at - start);
        let pad = kind.pad;
        let needed = grid.n_tokens(merge_size);
        let found = input_ids[at..].iter().take(needed).take_while(|&&id| id == pad).count();
        if found < needed {
            return Err(Error::PlaceholderRun { kind: name, at, needed, found });
        }
        let end = at + needed;
        next = push_grid(&mut axes, next, grid, merge_size);
        start = end;
    }
    next = push_text(&mut axes, next, input_ids.len() - start);
    Ok(RopeIndex { rope_delta: next - input_ids.len() as i64, position_ids: axes })
}

/// The placeholders of images or of videos.
struct Kind {
    name: &'static str,
    pad: TokenId,
    merge_size: u32,
    grids: Vec<GridThw>,
    placeholders: usize,
    /// How many are opened by `vision_start`: like the reference, others count as text.
    blocks: usize,
    taken: usize,
}

impl Kind {
    fn new<G: Copy + Into<GridThw>>(
        name: &'static str,
        pad: TokenId,
        merge_size: u32,
        grids: &[G],
        tokens: &VisionTokens,
        ids: &[TokenId],
    ) -> Result<Self, Error> {
        let kind = Self {
            name,
            pad,
            merge_size,
            grids: grids.iter().map(|&g| g.into()).collect(),
            placeholders: ids.iter().filter(|&&id| id == pad).count(),
            blocks: ids.windows(2).filter(|pair| pair[0] == tokens.vision_start && pair[1] == pad).count(),
            taken: 0,
        };
        if kind.blocks > kind.grids.len() {
            return Err(Error::PlaceholderCount {
                kind: name,
                placeholders: kind.blocks,
                given: kind.grids.len(),
            });
        }
        if kind.placeholders != kind.needed() {
            let needed = kind.needed();
            return Err(Error::PlaceholderTokens { kind: name, placeholders: kind.placeholders, needed });
        }
        Ok(kind)
    }

    fn needed(&self) -> usize {
        self.grids.iter().fold(0, |sum: usize, g| sum.saturating_add(g.n_tokens(self.merge_size)))
    }

    /// Where the next block starts, or past the end.
    fn next_at(&self, ids: &[TokenId], start: usize) -> usize {
        if self.taken == self.blocks {
            return usize::MAX;
        }
        ids[start..].iter().position(|&id| id == self.pad).map_or(usize::MAX, |i| start + i)
    }

    fn take(&mut self) -> Option<GridThw> {
        self.taken += 1;
        self.grids.get(self.taken - 1).copied()
    }
}

/// Appends `n` text positions from `next` on; the position after them.
fn push_text(axes: &mut [Vec<i64>; 3], next: i64, n: usize) -> i64 {
    let end = next + n as i64;
    for axis in axes {
        axis.extend(next..end);
    }
    end
}

/// Appends a grid that starts at `next`; the position after its largest.
fn push_grid(axes: &mut [Vec<i64>; 3], next: i64, grid: GridThw, merge_size: u32) -> i64 {
    let (t, h, w) = (i64::from(grid.t), i64::from(grid.h / merge_size), i64::from(grid.w / merge_size));
    for frame in 0..t {
        for row in 0..h {
            for column in 0..w {
                axes[0].push(next + frame);
                axes[1].push(next + row);
                axes[2].push(next + column);
            }
        }
    }
    if t * h * w == 0 { next } else { next + t.max(h).max(w) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: &[GridThw] = &[];

    #[test]
    fn text_alone_counts_up() {
        let index = rope_index(&[5, 6, 7], NONE, NONE).unwrap();
        assert_eq!(index, RopeIndex { position_ids: [(); 3].map(|()| vec![0, 1, 2]), rope_delta: 0 });
        assert_eq!(rope_index(&[], NONE, NONE).unwrap().rope_delta, 0);
    }

    #[test]
    fn a_video_steps_by_one_per_temporal_patch() {
        let ids = [151_652, 151_656, 151_656, 151_656, 151_656, 151_653];
        let index = rope_index(&ids, &[], &[[2, 2, 4]]).unwrap();
        assert_eq!(index.position_ids[0], [0, 1, 1, 2, 2, 3]);
        assert_eq!(index.position_ids[1], [0, 1, 1, 1, 1, 3]);
        assert_eq!(index.position_ids[2], [0, 1, 2, 1, 2, 3]);
        assert_eq!(index.rope_delta, -2);
    }

    #[test]
    fn counts_that_differ_are_errors_that_name_both() {
        let ids = [151_652, 151_655, 151_655, 151_653];
        for (grids, want) in [
            (vec![[1, 2, 2]], ["2 image placeholder tokens", "need 1"]),
            (vec![[1, 4, 4]], ["2 image placeholder tokens", "need 4"]),
            (vec![], ["1 image placeholders", "0 images"]),
            (vec![[1, 2, 4], [1, 2, 4]], ["2 image", "need 4"]),
            (vec![[u32::MAX; 3]], ["2 image", "need"]),
        ] {
            let error = rope_index(&ids, &grids, &[]).unwrap_err().to_string();
            assert!(want.iter().all(|w| error.contains(w)), "{grids:?}: {error}");
        }
        // Right in number, but the second image's tokens come too early.
        let ids = [151_652, 151_655, 7, 151_652, 151_655, 151_655, 151_655];
        let error = rope_index(&ids, &[[1, 2, 6], [1, 2, 2]], &[]).unwrap_err().to_string();
        assert!(error.contains("token 1 needs 3") && error.contains("there are 1"), "{error}");
    }
}
