//! The few plain types that cross the layers, so that preprocessing, tokenizer and runtime need not know each other.
//!
//! No logic of any layer lives here. Names follow Hugging Face transformers 4.57.6 (`image_grid_thw`, `patch_size`,
//! `temporal_patch_size`, `merge_size`).

#![forbid(unsafe_code)]

use std::fmt;

use serde::{Deserialize, Serialize};

/// The id of a token in the vocabulary.
pub type TokenId = u32;

/// The patch grid of one image or video: temporal, height, width, counted in patches (not in merged tokens).
///
/// Serialized as `[t, h, w]`, the order of `image_grid_thw`.
///
/// ```
/// use qwen2vl_types::GridThw;
///
/// let grid = GridThw { t: 1, h: 34, w: 46 };
/// assert_eq!(grid.n_patches(), 1564);
/// assert_eq!(grid.n_tokens(2), 391);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "[u32; 3]", into = "[u32; 3]")]
pub struct GridThw {
    /// Temporal patches: 1 for an image, frames / `temporal_patch_size` for a video.
    pub t: u32,
    /// Rows of patches.
    pub h: u32,
    /// Columns of patches.
    pub w: u32,
}

impl GridThw {
    /// The number of patches, `t * h * w`; saturates instead of overflowing on hostile grids.
    pub fn n_patches(&self) -> usize {
        (self.t as usize).saturating_mul(self.h as usize).saturating_mul(self.w as usize)
    }

    /// The number of merged tokens, `t * (h / merge_size) * (w / merge_size)`: what the language model sees.
    ///
    /// # Panics
    ///
    /// If `merge_size` is 0.
    pub fn n_tokens(&self, merge_size: u32) -> usize {
        Self { t: self.t, h: self.h / merge_size, w: self.w / merge_size }.n_patches()
    }
}

impl From<[u32; 3]> for GridThw {
    fn from([t, h, w]: [u32; 3]) -> Self {
        Self { t, h, w }
    }
}

impl From<GridThw> for [u32; 3] {
    fn from(grid: GridThw) -> Self {
        [grid.t, grid.h, grid.w]
    }
}

impl fmt::Display for GridThw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}, {}, {}]", self.t, self.h, self.w)
    }
}

/// How pixels are cut into patches and patches merged into tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PatchGeometry {
    /// Side of a patch in pixels.
    pub patch_size: u32,
    /// Frames in a patch.
    pub temporal_patch_size: u32,
    /// Side of the square of patches that becomes one token.
    pub merge_size: u32,
}

impl PatchGeometry {
    /// Values of one row of `pixel_values`: `3 * temporal_patch_size * patch_size²` (1176 for Qwen2-VL).
    pub fn patch_len(&self) -> usize {
        3 * self.temporal_patch_size as usize * (self.patch_size as usize).pow(2)
    }

    /// What both sides of a resized image are multiples of: `patch_size * merge_size` pixels (28 for Qwen2-VL).
    pub fn factor(&self) -> u32 {
        self.patch_size * self.merge_size
    }
}

/// Qwen2-VL's own geometry: 14-pixel patches of two frames, merged two by two.
impl Default for PatchGeometry {
    fn default() -> Self {
        Self { patch_size: 14, temporal_patch_size: 2, merge_size: 2 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grid_counts_and_order() {
        let grid = GridThw::from([3, 4, 6]);
        assert_eq!((grid.n_patches(), grid.n_tokens(2)), (72, 18));
        assert_eq!(<[u32; 3]>::from(grid), [3, 4, 6]);
        assert_eq!(grid.to_string(), "[3, 4, 6]");
    }

    #[test]
    fn counts_do_not_overflow_32_bits() {
        let grid = GridThw { t: 1, h: 100_000, w: 100_000 };
        assert_eq!(grid.n_patches(), 10_000_000_000);
        let hostile = GridThw { t: u32::MAX, h: u32::MAX, w: u32::MAX };
        assert_eq!((hostile.n_patches(), hostile.n_tokens(1)), (usize::MAX, usize::MAX));
    }

    #[test]
    fn default_geometry_is_qwen2_vl() {
        let geometry = PatchGeometry::default();
        assert_eq!((geometry.patch_len(), geometry.factor()), (1176, 28));
    }
}
