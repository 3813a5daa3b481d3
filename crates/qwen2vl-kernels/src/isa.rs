//! Instruction sets that there are kernels for.

use crate::activations::{Form, Layout};
use crate::attention::VECTORS;
#[cfg(test)]
use crate::avx2;
use crate::avx512;
use crate::weights::{Kind, Weights};

/// Rows of activations of the largest tile.
pub(crate) const TILE: usize = 8;

/// The most rows of activations that meet weights in registers.
pub(crate) const WIDE: usize = 16;

/// An instruction set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Isa {
    /// With FMA and conversions of half precision.
    Avx2,
    /// With VNNI.
    Avx512,
}

impl Isa {
    /// The fastest one, once [`crate::is_supported`] has said yes.
    pub(crate) fn best() -> Self {
        if avx512::is_supported() { Self::Avx512 } else { Self::Avx2 }
    }

    /// Those that this processor has.
    #[cfg(test)]
    pub(crate) fn all() -> Vec<Self> {
        let all = [(Self::Avx2, avx2::is_supported()), (Self::Avx512, avx512::is_supported())];
        all.into_iter().filter_map(|(isa, is)| is.then_some(isa)).collect()
    }

    /// Rows of activations that take little longer than one.
    pub(crate) fn free_rows(self) -> usize {
        match self {
            Self::Avx2 => 2,
            Self::Avx512 => 4,
        }
    }

    /// Rows of activations up to which weights are not unpacked into memory.
    pub(crate) fn few(self) -> usize {
        match self {
            Self::Avx2 => 2,
            Self::Avx512 => WIDE,
        }
    }

    /// Queries of attention that meet keys together.
    pub(crate) fn queries(self) -> usize {
        match self {
            Self::Avx2 => VECTORS * 8,
            Self::Avx512 => VECTORS * 16,
        }
    }

    /// How `m` rows of activations are wanted.
    pub(crate) fn layout(self, weights: &Weights<'_>, m: usize) -> Layout {
        let form = match (self, weights.kind) {
            (_, Kind::U4) => Form::Halves,
            (Self::Avx512, _) => Form::Bytes,
            (Self::Avx2, _) => Form::Words,
        };
        let abreast = match (self, m) {
            (Self::Avx2, _) if m <= self.few() => 1,
            (Self::Avx2, _) => TILE,
            (Self::Avx512, 1..=4) => m,
            (Self::Avx512, 9..=WIDE) => WIDE,
            (Self::Avx512, _) => TILE,
        };
        Layout { k: weights.k, form, abreast }
    }
}
