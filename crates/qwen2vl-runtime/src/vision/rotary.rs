//! The vision tower's rotary table: row and column angles of every patch, in the 2x2-merge order of the patches.
//!
//! Follows `rot_pos_emb` and `VisionRotaryEmbedding` of Hugging Face transformers 4.57.6.

use qwen2vl_types::GridThw;

use crate::VisionConfig;

/// `VisionRotaryEmbedding`'s default; no Qwen2-VL config overrides it.
const THETA: f64 = 10_000.0;

/// Values per patch: half a head, the first half of them for the row, the rest for the column.
pub(super) fn width(config: &VisionConfig) -> usize {
    n_frequencies(config) * 2
}

fn n_frequencies(config: &VisionConfig) -> usize {
    config.hidden_size / config.num_heads / 4
}

/// Fills `table [grid.h * grid.w, width]` for one temporal patch.
///
/// # Panics
///
/// If `table` has another size.
pub(super) fn fill(table: &mut [f32], grid: GridThw, merge_size: u32, config: &VisionConfig) {
    let n = n_frequencies(config);
    let dim = (2 * n) as f32;
    // f32 like the reference: exponent and reciprocal are rounded at the same places.
    let inverse: Vec<f32> =
        (0..n).map(|i| 1.0 / THETA.powf(f64::from((2 * i) as f32 / dim)) as f32).collect();
    assert_eq!(
        table.len(),
        grid.h as usize * grid.w as usize * 2 * n,
        "the caller allots the table from the grid"
    );
    let mut patches = table.chunks_exact_mut(2 * n);
    let mut put = |row: u32, column: u32| {
        let values = patches.next().expect("the table has one chunk for each patch of the grid");
        for (i, frequency) in inverse.iter().enumerate() {
            values[i] = row as f32 * frequency;
            values[n + i] = column as f32 * frequency;
        }
    };
    for block_row in (0..grid.h).step_by(merge_size as usize) {
        for block_column in (0..grid.w).step_by(merge_size as usize) {
            for row in block_row..block_row + merge_size {
                for column in block_column..block_column + merge_size {
                    put(row, column);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_and_angles() {
        let config = VisionConfig { hidden_size: 16, depth: 1, num_heads: 2 };
        assert_eq!(width(&config), 4);
        let mut table = vec![0.0; 4 * 6 * 4];
        fill(&mut table, GridThw { t: 1, h: 4, w: 6 }, 2, &config);
        // Frequencies 1 and 1/100; the first block is (0,0) (0,1) (1,0) (1,1), the second starts at column 2.
        assert_eq!(
            &table[..16],
            [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.01, 1.0, 0.01, 0.0, 0.0, 1.0, 0.01, 1.0, 0.01]
        );
        assert_eq!(&table[16..20], [0.0, 0.0, 2.0, 2.0 * 0.01]);
        assert_eq!(&table[92..], [3.0, 3.0 * 0.01, 5.0, 5.0 * 0.01]);
    }
}
