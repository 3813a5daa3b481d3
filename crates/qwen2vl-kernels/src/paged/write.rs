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
    for (g, group) in key.as_chunks::<GROUP>().0.iter().enumerate() {
        // SAFETY: the caller vouches for it.
        unsafe {
            match part.element {
                Element::I8 => {
                    let steps = Steps::of(group, 255.0);
                    for (i, value) in group.iter().enumerate() {
                        *to.data.add(at(g * GROUP + i)) = steps.quantized(*value) ^ 128;
                    }
                    *to.scales.add(at(g)) = steps.step;
                    *to.offsets.add(at(g)) = steps.offset + 128.0 * steps.step;
                }
                Element::F16 => {
                    let to = to.data.cast::<f16>();
                    let halves = group.iter().map(|value| f16::from_f32(*value)).enumerate();
                    halves.for_each(|(i, value)| *to.add(at(g * GROUP + i)) = value);
                }
                Element::F32 => {
                    let to = to.data.cast::<f32>();
                    group.iter().enumerate().for_each(|(i, value)| *to.add(at(g * GROUP + i)) = *value);
                }
                Element::U4 => unreachable!("keys have 8 bits or more"),
            }
        }
    }
}

/// Writes a token's value.
///
/// # Safety
///
/// As above.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn write_value(part: &Part, to: Numbers, slot: usize, value: &[f32]) {
    let width = value.len();
    let groups = width / GROUP;
    for (g, group) in value.as_chunks::<GROUP>().0.iter().enumerate() {
        let at = slot * width + g * GROUP;
        // SAFETY: the caller vouches for it.
        unsafe {
            let scales = |steps: &Steps, middle: f32| {
                *to.scales.add(slot * groups + g) = steps.step;
                *to.offsets.add(slot * groups + g) = steps.offset + middle * steps.step;
            };
            match part.element {
                Element::I8 => {
                    let steps = Steps::of(group, 255.0);
                    for (i, value) in group.iter().enumerate() {
                        *to.data.add(at + i) = steps.quantized(*value) ^ 128;
                    }
                    scales(&steps, 128.0);
                }
                Element::U4 => {
                    let steps = Steps::of(group, 15.0);
                    for (unit, values) in group.as_chunks::<16>().0.iter().enumerate() {
                        let (low, high) = values.split_at(8);
                        for (i, (low, high)) in low.iter().zip(high).enumerate() {
                            let both = steps.quantized(*low) | steps.quantized(*high) << 4;
                            *to.data.add(at / 2 + unit * 8 + i) = both;
                        }
                    }
                    scales(&steps, 0.0);
                }
                Element::F16 => {
                    let to = to.data.cast::<f16>().add(at);
                    group.iter().enumerate().for_each(|(i, value)| *to.add(i) = f16::from_f32(*value));
                }
                Element::F32 => {
                    let to = to.data.cast::<f32>().add(at);
                    group.iter().enumerate().for_each(|(i, value)| *to.add(i) = *value);
                }
            }
        }
    }
}
