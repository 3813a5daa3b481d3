//! Writes keys and values of a token.

use half::f16;

use super::cache::{BLOCK_TOKENS, Element, Numbers, Part};
use crate::GROUP;

/// Values of which largest and smallest are looked for side by side.
const SIDE_BY_SIDE: usize = 8;

/// A group's range as steps: `offset + step * q` for `q` from 0 to the most.
struct Steps {
    step: f32,
    offset: f32,
    by: f32,
}

impl Steps {
    /// NaN if a value is not finite.
    #[inline(always)]
    fn of(group: &[f32; GROUP], most: f32) -> Self {
        let (mut low, mut high) = ([f32::MAX; SIDE_BY_SIDE], [f32::MIN; SIDE_BY_SIDE]);
        let mut damage = [0.0; SIDE_BY_SIDE];
        for values in group.as_chunks::<SIDE_BY_SIDE>().0 {
            for (i, &value) in values.iter().enumerate() {
                low[i] = if value < low[i] { value } else { low[i] };
                high[i] = if value > high[i] { value } else { high[i] };
                damage[i] += value * 0.0;
            }
        }
        let low = low.into_iter().fold(f32::MAX, |a, b| if b < a { b } else { a });
        let high = high.into_iter().fold(f32::MIN, |a, b| if b > a { b } else { a });
        let step = high / most - low / most + damage.iter().sum::<f32>();
        Self { step, offset: low, by: if step > 0.0 { 1.0 / step } else { 0.0 } }
    }

    #[inline(always)]
    fn quantized(&self, value: f32) -> u8 {
        ((value - self.offset) * self.by).round_ties_even() as u8
    }
}

/// Writes a token's key, whose numbers lie a block's tokens apart.
///
/// # Safety
///
/// The part is there, nobody else writes this token or reads it meanwhile, and the processor has AVX2.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn write_key(part: &Part, to: Numbers, slot: usize, key: &[f32]) {
    let at = |i: usize| i * BLOCK_TOKENS + slot;
    // SAFETY: the caller vouches for it.
    unsafe { write(part, to, key, at, at) };
}

/// Writes a token's value, whose numbers lie together.
///
/// # Safety
///
/// As above.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn write_value(part: &Part, to: Numbers, slot: usize, value: &[f32]) {
    let (width, groups) = (value.len(), value.len() / GROUP);
    // SAFETY: the caller vouches for it.
    unsafe { write(part, to, value, |i| slot * width + i, |g| slot * groups + g) };
}

/// Writes numbers to where they belong, and what their groups share; those of 4 bits lie together.
///
/// # Safety
///
/// As above, and all places are within the part.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn write(
    part: &Part,
    to: Numbers,
    numbers: &[f32],
    place: impl Fn(usize) -> usize,
    place_of_group: impl Fn(usize) -> usize,
) {
    for (g, group) in numbers.as_chunks::<GROUP>().0.iter().enumerate() {
        // SAFETY: the caller vouches for it.
        unsafe {
            let share = |steps: &Steps, middle: f32| {
                *to.scales.add(place_of_group(g)) = steps.step;
                *to.offsets.add(place_of_group(g)) = steps.offset + middle * steps.step;
            };
            match part.element {
                Element::I8 => {
                    let steps = Steps::of(group, 255.0);
                    for (i, number) in group.iter().enumerate() {
                        *to.data.add(place(g * GROUP + i)) = steps.quantized(*number) ^ 128;
                    }
                    share(&steps, 128.0);
                }
                Element::U4 => {
                    let steps = Steps::of(group, 15.0);
                    for (unit, numbers) in group.as_chunks::<16>().0.iter().enumerate() {
                        let at = place(g * GROUP + unit * 16) / 2;
                        let (low, high) = numbers.split_at(8);
                        for (i, (low, high)) in low.iter().zip(high).enumerate() {
                            *to.data.add(at + i) = steps.quantized(*low) | steps.quantized(*high) << 4;
                        }
                    }
                    share(&steps, 0.0);
                }
                Element::F16 => {
                    let to = to.data.cast::<f16>();
                    for (i, number) in group.iter().enumerate() {
                        *to.add(place(g * GROUP + i)) = f16::from_f32(*number);
                    }
                }
                Element::F32 => {
                    let to = to.data.cast::<f32>();
                    for (i, number) in group.iter().enumerate() {
                        *to.add(place(g * GROUP + i)) = *number;
                    }
                }
            }
        }
    }
}
