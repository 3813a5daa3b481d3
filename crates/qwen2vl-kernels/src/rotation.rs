//! Rotary embeddings behind a product: pairs of a head's values turned by angles of the row's position.

use std::sync::Mutex;

use crate::pool::Pool;

/// Values below which no other thread is woken.
const LEAST_VALUES: usize = 1 << 14;

/// Heads `[heads, width]` of a row become `y * cos + rotate_half(y) * sin`, as `apply_rotary_pos_emb` of Hugging Face's code
/// has it: `rotate_half(y)` is `[-y[width / 2..], y[..width / 2]]`.
#[derive(Debug, Clone, Copy)]
pub struct Rotation<'a> {
    /// Width of a head, even.
    pub width: usize,
    /// `[m, width]`.
    pub cos: &'a [f32],
    /// `[m, width]`.
    pub sin: &'a [f32],
}

impl Rotation<'_> {
    /// Whether its lengths fit `m` rows of `n` values.
    pub(crate) fn fits(&self, m: usize, n: usize) -> bool {
        let of = |table: &[f32]| table.len() == m * self.width;
        self.width > 0
            && self.width.is_multiple_of(2)
            && n.is_multiple_of(self.width)
            && of(self.cos)
            && of(self.sin)
    }

    /// Rotates rows `[m, n]`.
    pub(crate) fn rotate(&self, out: &mut [f32], n: usize, pool: &Pool) {
        let rows = out.len() / n;
        let share = if out.len() < LEAST_VALUES { rows } else { rows.div_ceil(pool.threads() * 4) }.max(1);
        let shares: Vec<_> = out.chunks_mut(share * n).map(Mutex::new).collect();
        pool.run(shares.len(), &|i| {
            let Ok(mut out) = shares[i].lock() else { return };
            for (row, out) in out.chunks_mut(n).enumerate() {
                out.chunks_mut(self.width).for_each(|head| self.rotate_head(i * share + row, head));
            }
        });
    }

    /// Rotates a head of one of the rows.
    #[inline(always)]
    pub(crate) fn rotate_head(&self, row: usize, head: &mut [f32]) {
        let of_row = row * self.width..(row + 1) * self.width;
        let half = self.width / 2;
        let (first, second) = head.split_at_mut(half);
        let (cos_first, cos_second) = self.cos[of_row.clone()].split_at(half);
        let (sin_first, sin_second) = self.sin[of_row].split_at(half);
        let tables = cos_first.iter().zip(cos_second).zip(sin_first.iter().zip(sin_second));
        for ((a, b), ((cos_a, cos_b), (sin_a, sin_b))) in first.iter_mut().zip(second).zip(tables) {
            (*a, *b) = (*a * cos_a - *b * sin_a, *b * cos_b + *a * sin_b);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_rotated_as_it_is_written() {
        let (m, heads, width) = (301, 3, 8);
        let of = |i: usize, salt: usize| ((i * 7919 + salt) % 1000) as f32 / 500.0 - 1.0;
        let all = |n: usize, salt: usize| (0..n).map(|i| of(i, salt)).collect::<Vec<_>>();
        let (y, cos, sin) = (all(m * heads * width, 1), all(m * width, 2), all(m * width, 3));
        let rotation = Rotation { width, cos: &cos, sin: &sin };
        let want: Vec<f32> = (0..y.len())
            .map(|i| {
                let (row, j) = (i / (heads * width), i % width);
                let half = if j < width / 2 { -y[i + width / 2] } else { y[i - width / 2] };
                y[i] * cos[row * width + j] + half * sin[row * width + j]
            })
            .collect();
        for rows in [1, 2, m] {
            let mut out = y[..rows * heads * width].to_vec();
            rotation.rotate(&mut out, heads * width, &Pool::new(2));
            assert!(out == want[..out.len()], "{rows} rows");
        }
    }

    #[test]
    fn lengths_that_do_not_fit_are_seen() {
        let table = [0.0; 16];
        let rotation = Rotation { width: 8, cos: &table, sin: &table };
        assert!(rotation.fits(2, 24) && !rotation.fits(1, 24) && !rotation.fits(2, 20));
        assert!(!Rotation { width: 0, ..rotation }.fits(0, 8));
        assert!(!Rotation { width: 1, ..rotation }.fits(16, 8));
        assert!(!Rotation { sin: &table[..8], ..rotation }.fits(2, 24));
    }
}
