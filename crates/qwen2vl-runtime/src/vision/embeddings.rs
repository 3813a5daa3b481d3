//! What the vision tower gives: rows of half precision where that holds their values, cheap to share, and as bytes for
//! who keeps them.

use std::io::{self, Write};
use std::sync::Arc;

use half::f16;
use half::slice::HalfFloatSliceExt;

use crate::Precision;

/// What the language model sees of one image or video: `[n_tokens, hidden_size]`, row-major. Clones share the values.
///
/// With [`Precision::Fast`] values are rounded to half precision, which has more digits than the bf16 or the 8-bit
/// activations that inference computes them with; with [`Precision::F32`], and where one is too large for that, they are
/// kept as they are.
#[derive(Debug, Clone, PartialEq)]
pub struct VisionEmbeddings {
    values: Values,
    hidden_size: usize,
}

#[derive(Debug, Clone, PartialEq)]
enum Values {
    F16(Arc<[f16]>),
    F32(Arc<[f32]>),
}

/// Type of the values of [`VisionEmbeddings`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EmbeddingType {
    /// Half precision.
    F16,
    /// Single precision.
    F32,
}

impl EmbeddingType {
    /// Bytes of a value.
    pub fn size_bytes(self) -> usize {
        match self {
            Self::F16 => size_of::<f16>(),
            Self::F32 => size_of::<f32>(),
        }
    }
}

/// Values that are written in one piece.
const PIECE: usize = 4096;

impl VisionEmbeddings {
    /// Number of merged tokens.
    pub fn n_tokens(&self) -> usize {
        self.len() / self.hidden_size
    }

    /// Values per token.
    pub fn hidden_size(&self) -> usize {
        self.hidden_size
    }

    /// Type of the values.
    pub fn element_type(&self) -> EmbeddingType {
        match self.values {
            Values::F16(_) => EmbeddingType::F16,
            Values::F32(_) => EmbeddingType::F32,
        }
    }

    /// Bytes of the values.
    pub fn size_bytes(&self) -> usize {
        self.len() * self.element_type().size_bytes()
    }

    /// The values, `[n_tokens, hidden_size]`, row-major.
    pub fn to_f32(&self) -> Vec<f32> {
        match &self.values {
            Values::F16(values) => values.to_f32_vec(),
            Values::F32(values) => values.to_vec(),
        }
    }

    /// Writes the values in little-endian order.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn write_le(&self, out: &mut impl Write) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(PIECE * size_of::<f32>());
        match &self.values {
            Values::F16(values) => values.chunks(PIECE).try_for_each(|piece| {
                bytes.clear();
                piece.iter().for_each(|value| bytes.extend_from_slice(&value.to_le_bytes()));
                out.write_all(&bytes)
            }),
            Values::F32(values) => values.chunks(PIECE).try_for_each(|piece| {
                bytes.clear();
                piece.iter().for_each(|value| bytes.extend_from_slice(&value.to_le_bytes()));
                out.write_all(&bytes)
            }),
        }
    }

    /// What [`VisionEmbeddings::write_le`] wrote; `None` if it is no whole number of rows.
    pub fn from_le_bytes(element_type: EmbeddingType, hidden_size: usize, bytes: &[u8]) -> Option<Self> {
        let row_bytes = hidden_size.checked_mul(element_type.size_bytes()).filter(|n| *n > 0)?;
        if !bytes.len().is_multiple_of(row_bytes) {
            return None;
        }
        let values = match element_type {
            EmbeddingType::F16 => {
                Values::F16(bytes.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b)).collect())
            }
            EmbeddingType::F32 => {
                Values::F32(bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect())
            }
        };
        Some(Self { values, hidden_size })
    }

    /// Writes the values of token `row`, `[hidden_size]`.
    pub(crate) fn copy_row(&self, row: usize, out: &mut [f32]) {
        let range = row * self.hidden_size..(row + 1) * self.hidden_size;
        match &self.values {
            Values::F16(values) => values[range].convert_to_f32_slice(out),
            Values::F32(values) => out.copy_from_slice(&values[range]),
        }
    }

    fn len(&self) -> usize {
        match &self.values {
            Values::F16(values) => values.len(),
            Values::F32(values) => values.len(),
        }
    }
}

/// Embeddings that grow by one temporal patch after the other.
pub(super) enum Growing {
    F16(Vec<f16>),
    F32(Vec<f32>),
}

impl Growing {
    pub(super) fn new(precision: Precision, n_values: usize) -> Self {
        match precision {
            Precision::Fast => Self::F16(Vec::with_capacity(n_values)),
            Precision::F32 => Self::F32(Vec::with_capacity(n_values)),
        }
    }

    pub(super) fn push(&mut self, values: &[f32]) {
        if let Self::F16(rounded) = self {
            let start = rounded.len();
            rounded.resize(start + values.len(), f16::ZERO);
            rounded[start..].convert_from_f32_slice(values);
            let fits = rounded[start..]
                .iter()
                .zip(values)
                .all(|(half, value)| half.is_finite() || !value.is_finite());
            if fits {
                return;
            }
            rounded.truncate(start);
            *self = Self::F32(rounded.to_f32_vec());
        }
        if let Self::F32(whole) = self {
            whole.extend_from_slice(values);
        }
    }

    pub(super) fn finish(self, hidden_size: usize) -> VisionEmbeddings {
        let values = match self {
            Self::F16(values) => Values::F16(values.into()),
            Self::F32(values) => Values::F32(values.into()),
        };
        VisionEmbeddings { values, hidden_size }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn embeddings(precision: Precision, pieces: &[&[f32]]) -> VisionEmbeddings {
        let mut growing = Growing::new(precision, 8);
        pieces.iter().for_each(|piece| growing.push(piece));
        growing.finish(2)
    }

    #[test]
    fn what_half_precision_cannot_hold_is_kept_whole() {
        let nan = [f32::NAN, f32::NEG_INFINITY];
        for (precision, pieces, element_type, want) in [
            (Precision::Fast, &[&[0.1, 65504.0][..]][..], EmbeddingType::F16, &[0.099_975_586, 65504.0][..]),
            (Precision::F32, &[&[0.1, 65504.0]], EmbeddingType::F32, &[0.1, 65504.0]),
            (Precision::Fast, &[&[0.1, 65520.0]], EmbeddingType::F32, &[0.1, 65520.0]),
            // What came before has been rounded already.
            (
                Precision::Fast,
                &[&[0.1, 0.0], &[0.1, -1e6]],
                EmbeddingType::F32,
                &[0.099_975_586, 0.0, 0.1, -1e6],
            ),
        ] {
            let got = embeddings(precision, pieces);
            assert_eq!((got.element_type(), got.to_f32().as_slice()), (element_type, want));
            assert_eq!(got.size_bytes(), want.len() * element_type.size_bytes());
        }
        let got = embeddings(Precision::Fast, &[&nan]);
        assert_eq!(got.element_type(), EmbeddingType::F16);
        assert!(got.to_f32()[0].is_nan() && got.to_f32()[1] == f32::NEG_INFINITY);
    }

    #[test]
    fn rows_and_bytes_are_the_values() {
        let values: Vec<f32> = (0..6000).map(|i| (i as f32).sin() * 100.0).collect();
        for precision in [Precision::Fast, Precision::F32] {
            let whole = embeddings(precision, &[&values]);
            let mut row = [0.0; 2];
            for token in [0, 1, 2999] {
                whole.copy_row(token, &mut row);
                assert_eq!(row, whole.to_f32()[2 * token..2 * token + 2]);
            }
            let mut bytes = Vec::new();
            whole.write_le(&mut bytes).unwrap();
            assert_eq!(bytes.len(), whole.size_bytes());
            let element_type = whole.element_type();
            assert_eq!(VisionEmbeddings::from_le_bytes(element_type, 2, &bytes), Some(whole));
            for (hidden_size, bytes) in [(2, &bytes[1..]), (0, &bytes[..]), (7, &bytes), (usize::MAX, &bytes)]
            {
                assert_eq!(VisionEmbeddings::from_le_bytes(element_type, hidden_size, bytes), None);
            }
        }
    }
}
