//! Normalizing and cutting into patches, in one pass over the resized image.
//!
//! A pixel has only 256 values a channel, so every normalized value comes from a table that was computed with the
//! reference's own operations: exact, and cheaper than arithmetic on interleaved bytes.
//!
//! Follows `Qwen2VLImageProcessorFast._preprocess` and `rescale_and_normalize` of Hugging Face transformers 4.57.6.

use qwen2vl_types::{GridThw, PatchGeometry};

use crate::PreprocessOptions;

/// For each channel, what each byte becomes.
pub(crate) type Tables = [[f32; 256]; 3];

/// The fused rescaling and normalization, in 32-bit floats as torch computes it.
pub(crate) fn tables(options: &PreprocessOptions) -> Box<Tables> {
    let rescale = 1.0 / options.rescale_factor;
    let value = |byte: usize, channel: usize| {
        let x = byte as f32;
        let (mean, std) = (options.image_mean[channel] as f32, options.image_std[channel] as f32);
        match (options.do_rescale, options.do_normalize) {
            (true, true) => (x - mean * rescale as f32) / (std * rescale as f32),
            (false, true) => (x - mean) / std,
            (true, false) => x * options.rescale_factor as f32,
            (false, false) => x,
        }
    };
    Box::new(std::array::from_fn(|channel| std::array::from_fn(|byte| value(byte, channel))))
}

/// One temporal patch: `frames` holds one frame for a still image, which stands for all of its temporal slices, or
/// `temporal_patch_size` of them. `out` takes `grid.h * grid.w` rows of `geometry.patch_len()` values.
///
/// Rows run through the `merge_size` x `merge_size` blocks, each block in row-major order; within a row the order is
/// channel, time, y, x.
pub(crate) fn cut(
    frames: &[&[u8]],
    grid: GridThw,
    geometry: PatchGeometry,
    tables: &Tables,
    out: &mut [f32],
) {
    // The usual patch size as a constant lets the compiler unroll the row.
    match geometry.patch_size {
        14 => cut_sized(frames, grid, geometry, 14, tables, out),
        other => cut_sized(frames, grid, geometry, other as usize, tables, out),
    }
}

#[inline(always)]
fn cut_sized(
    frames: &[&[u8]],
    grid: GridThw,
    geometry: PatchGeometry,
    patch: usize,
    tables: &Tables,
    out: &mut [f32],
) {
    let (merge, slices) = (geometry.merge_size as usize, geometry.temporal_patch_size as usize);
    let columns = grid.w as usize;
    let (stride, area) = (columns * patch * 3, patch * patch);
    let blocks_in_row = columns / merge;
    for (patch_idx, row) in out.chunks_exact_mut(3 * slices * area).enumerate() {
        let (block, within) = (patch_idx / (merge * merge), patch_idx % (merge * merge));
        let y = (block / blocks_in_row) * merge + within / merge;
        let x = (block % blocks_in_row) * merge + within % merge;
        let start = y * patch * stride + x * patch * 3;
        let (red, rest) = row.split_at_mut(slices * area);
        let (green, blue) = rest.split_at_mut(slices * area);
        for (slice, frame) in frames.iter().enumerate() {
            let at = slice * area..(slice + 1) * area;
            let channels = [&mut red[at.clone()], &mut green[at.clone()], &mut blue[at]];
            normalize_patch(&frame[start..], stride, patch, tables, channels);
        }
        if frames.len() == 1 {
            for channel in [red, green, blue] {
                repeat_first(channel, area);
            }
        }
    }
}

#[inline(always)]
fn normalize_patch(pixels: &[u8], stride: usize, patch: usize, tables: &Tables, channels: [&mut [f32]; 3]) {
    let [red, green, blue] = channels;
    for y in 0..patch {
        let line = &pixels[y * stride..][..patch * 3];
        let at = y * patch..(y + 1) * patch;
        let (red, green, blue) = (&mut red[at.clone()], &mut green[at.clone()], &mut blue[at]);
        for x in 0..patch {
            red[x] = tables[0][usize::from(line[3 * x])];
            green[x] = tables[1][usize::from(line[3 * x + 1])];
            blue[x] = tables[2][usize::from(line[3 * x + 2])];
        }
    }
}

/// A still image shows the same in every temporal slice.
fn repeat_first(channel: &mut [f32], area: usize) {
    let (first, others) = channel.split_at_mut(area);
    for other in others.chunks_exact_mut(area) {
        other.copy_from_slice(first);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The reference's view, permute and reshape, written as one index calculation per value.
    fn plain(
        frames: &[&[u8]],
        grid: GridThw,
        geometry: PatchGeometry,
        options: &PreprocessOptions,
    ) -> Vec<f32> {
        let [p, t, m] =
            [geometry.patch_size, geometry.temporal_patch_size, geometry.merge_size].map(|v| v as usize);
        let (h, w) = (grid.h as usize, grid.w as usize);
        let mut out = Vec::new();
        for (block_y, block_x) in (0..h / m).flat_map(|y| (0..w / m).map(move |x| (y, x))) {
            for (merge_y, merge_x) in (0..m).flat_map(|y| (0..m).map(move |x| (y, x))) {
                for (channel, time) in (0..3).flat_map(|c| (0..t).map(move |t| (c, t))) {
                    for (y, x) in (0..p).flat_map(|y| (0..p).map(move |x| (y, x))) {
                        let (row, column) =
                            ((block_y * m + merge_y) * p + y, (block_x * m + merge_x) * p + x);
                        let frame = frames[time.min(frames.len() - 1)];
                        let byte = f32::from(frame[(row * w * p + column) * 3 + channel]);
                        let scale = (1.0 / options.rescale_factor) as f32;
                        let mean = options.image_mean[channel] as f32 * scale;
                        let std = options.image_std[channel] as f32 * scale;
                        out.push((byte - mean) / std);
                    }
                }
            }
        }
        out
    }

    #[test]
    fn fast_equals_plain_for_every_geometry() {
        let options = PreprocessOptions::default();
        let tables = tables(&options);
        for (patch_size, temporal_patch_size, merge_size) in
            [(14, 2, 2), (14, 1, 1), (16, 2, 2), (3, 3, 2), (5, 1, 3)]
        {
            let geometry = PatchGeometry { patch_size, temporal_patch_size, merge_size };
            let grid = GridThw { t: 1, h: 2 * merge_size, w: 3 * merge_size };
            let bytes = (grid.n_patches() as u32 * patch_size * patch_size * 3) as usize;
            let frames: Vec<Vec<u8>> = (0..temporal_patch_size as usize)
                .map(|t| (0..bytes).map(|i| ((i * 31 + i / 7 + t * 101) % 256) as u8).collect())
                .collect();
            let frames: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
            for frames in [&frames[..1], &frames[..]] {
                let want = plain(frames, grid, geometry, &options);
                let mut got = vec![f32::NAN; grid.n_patches() * geometry.patch_len()];
                cut(frames, grid, geometry, &tables, &mut got);
                assert_eq!(qwen2vl_testkit::first_difference(&got, &want), None, "{geometry:?}");
            }
        }
    }

    #[test]
    fn rescaling_and_normalizing_can_be_left_out() {
        let value = |do_rescale, do_normalize| {
            tables(&PreprocessOptions { do_rescale, do_normalize, ..Default::default() })[0][200]
        };
        assert_eq!(value(false, false), 200.0);
        assert_eq!(value(true, false), 200.0 * (1.0_f32 / 255.0));
        assert_eq!(value(false, true), (200.0 - 0.481_454_66_f32) / 0.268_629_54);
    }
}
