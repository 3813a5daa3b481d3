//! Two of PyTorch's ranges, to the bit: frame indices are rounded or cut off from its 32-bit floats, and in about
//! one of ten random videos an index depends on the last bit.
//!
//! Follows torch 2.15.0, `aten/src/ATen/native/cpu/RangeFactoriesKernel.cpp`, as it runs on x86-64 with AVX2 or AVX-512:
//! there the compiler fuses multiplication and addition. Up to 32,768 elements torch uses one thread for `arange`;
//! with more, its last bits depend on the number of threads and are not followed.

/// Lanes of a vector of f32, and how many elements the main loop takes at a time.
const LANES: usize = 8;
const UNROLLED: usize = 2 * LANES;

/// `torch.linspace(start, end, steps).round().long()`, for `start < end`, never past `end`.
///
/// Torch's own last value is past `end` where `end` has more than 24 bits and is rounded up.
pub(super) fn linspace_rounded(start: u64, end: u64, steps: usize) -> Vec<u64> {
    let (first, last) = (start as f32, end as f32);
    let step = (last - first) / (steps - 1) as f32;
    let value = |i: usize| {
        // From the near end, so that both ends are exact.
        if i < steps / 2 {
            step.mul_add(i as f32, first)
        } else {
            (-step).mul_add((steps - i - 1) as f32, last)
        }
    };
    (0..steps).map(|i| (value(i).round_ties_even() as u64).min(end)).collect()
}

/// `torch.arange(0, n_frames, n_frames / count).int()`, without what is past the last frame.
///
/// In about one of fifty cases the quotient is rounded down so that torch gives an index more, `n_frames` itself, and the
/// reference fails on reading it.
pub(super) fn arange_truncated(n_frames: u64, count: usize) -> Vec<u64> {
    let step = n_frames as f64 / count as f64;
    let len = (n_frames as f64 / step).ceil() as usize;
    let vectorized = len - len % UNROLLED;
    let value = |i: usize| {
        if i < vectorized {
            let lane = i % LANES;
            let base = (step * (i - lane) as f64) as f32;
            (f64::from(base) + step * lane as f64) as f32
        } else {
            (step * i as f64) as f32
        }
    };
    (0..count).map(|i| (value(i) as u64).min(n_frames - 1)).collect()
}
