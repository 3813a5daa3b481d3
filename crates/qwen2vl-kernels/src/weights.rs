//! Weights as NNCF writes them into an IR: integers in groups that share a scale and a zero point.

use half::f16;

use crate::BLOCK;

/// How a weight is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// 4 bits, two in a byte, the first one in the lower half.
    U4,
    /// 8 bits.
    U8,
    /// 8 bits, signed.
    I8,
}

impl Kind {
    /// Bytes of so many values.
    pub(crate) fn bytes(self, values: usize) -> usize {
        match self {
            Self::U4 => values.div_ceil(2),
            Self::U8 | Self::I8 => values,
        }
    }
}

/// Why weights cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WeightsError {
    /// A shape that the kernels are not made for.
    #[error(
        "weights of {n} rows of {k} in groups of {group} are not supported: rows and groups are multiples of 128, or groups of 4 bits 32 or 64"
    )]
    Shape {
        /// Rows: outputs.
        n: usize,
        /// Values of a row: inputs.
        k: usize,
        /// Values of a group.
        group: usize,
    },
    /// Data of another size than the shape has.
    #[error("{what} has {got} bytes, expected {want}")]
    Size {
        /// What.
        what: &'static str,
        /// Bytes given.
        got: usize,
        /// Bytes needed.
        want: usize,
    },
}

/// The weights of a product, `[n, k]` row-major: `(value - zero_point) * scale`.
#[derive(Debug, Clone, Copy)]
pub struct Weights<'a> {
    pub(crate) kind: Kind,
    pub(crate) n: usize,
    pub(crate) k: usize,
    pub(crate) group: usize,
    pub(crate) data: &'a [u8],
    pub(crate) scales: &'a [u8],
    pub(crate) zero_points: Option<&'a [u8]>,
}

impl<'a> Weights<'a> {
    /// Checks that all fits together. Scales are f16, little-endian, `[n, k / group]`; zero points are of the weights'
    /// kind, `[n, k / group]`.
    ///
    /// # Errors
    ///
    /// [`WeightsError`].
    pub fn new(
        kind: Kind,
        (n, k, group): (usize, usize, usize),
        data: &'a [u8],
        scales: &'a [u8],
        zero_points: Option<&'a [u8]>,
    ) -> Result<Self, WeightsError> {
        let shape = || WeightsError::Shape { n, k, group };
        // With 8 bits a lane of the kernels meets both halves of a block.
        let within_block = kind == Kind::U4 && matches!(group, 32 | 64);
        let fits = group > 0 && k % group == 0 && (group % BLOCK == 0 || within_block);
        if n == 0 || k == 0 || k % BLOCK != 0 || !fits {
            return Err(shape());
        }
        let values = n.checked_mul(k).ok_or_else(shape)?;
        let groups = values / group;
        let sizes = [
            ("weights", data.len(), kind.bytes(values)),
            ("scales", scales.len(), groups * 2),
            ("zero points", zero_points.map_or(kind.bytes(groups), <[u8]>::len), kind.bytes(groups)),
        ];
        for (what, got, want) in sizes {
            if got != want {
                return Err(WeightsError::Size { what, got, want });
            }
        }
        Ok(Self { kind, n, k, group, data, scales, zero_points })
    }

    /// Outputs.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Inputs.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Writes a row as numbers, `[k]`.
    ///
    /// # Panics
    ///
    /// If there is no such row, or `out` has another length.
    pub fn dequantize(&self, row: usize, out: &mut [f32]) {
        assert!(row < self.n && out.len() == self.k, "row {row} of {}, {} values", self.n, out.len());
        for (group, out) in out.chunks_exact_mut(self.group).enumerate() {
            let (scale, zero) = (self.scale(row, group), f32::from(self.zero_point(row, group)));
            let first = group * self.group;
            for (i, out) in out.iter_mut().enumerate() {
                *out = (f32::from(self.value(row, first + i)) - zero) * scale;
            }
        }
    }

    /// The values of a row, packed.
    #[inline(always)]
    pub(crate) fn row(&self, row: usize) -> &'a [u8] {
        let bytes = self.kind.bytes(self.k);
        &self.data[row * bytes..][..bytes]
    }

    /// A value of a row, as the kernels see it: signed ones are moved up by 128.
    #[inline(always)]
    pub(crate) fn value(&self, row: usize, i: usize) -> u8 {
        let packed = self.row(row);
        match self.kind {
            Kind::U4 => packed[i / 2] >> (i % 2 * 4) & 15,
            Kind::U8 => packed[i],
            Kind::I8 => packed[i] ^ 128,
        }
    }

    /// Scale of a row's group.
    #[inline(always)]
    pub(crate) fn scale(&self, row: usize, group: usize) -> f32 {
        f16::from_bits(self.scale_bits(row, group)).to_f32()
    }

    /// The same, in half precision.
    #[inline(always)]
    pub(crate) fn scale_bits(&self, row: usize, group: usize) -> u16 {
        let at = (row * (self.k / self.group) + group) * 2;
        u16::from_le_bytes([self.scales[at], self.scales[at + 1]])
    }

    /// Zero point of a row's group, moved up likewise.
    #[inline(always)]
    pub(crate) fn zero_point(&self, row: usize, group: usize) -> u8 {
        let at = row * (self.k / self.group) + group;
        match (self.zero_points, self.kind) {
            (None, Kind::I8) => 128,
            (None, Kind::U4 | Kind::U8) => 0,
            (Some(points), Kind::U8) => points[at],
            (Some(points), Kind::I8) => points[at] ^ 128,
            (Some(points), Kind::U4) => points[at / 2] >> (at % 2 * 4) & 15,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_named() {
        let new = |kind, shape, data: usize, scales: usize, points: Option<usize>| {
            let bytes = [0; 4096];
            Weights::new(kind, shape, &bytes[..data], &bytes[..scales], points.map(|n| &bytes[..n]))
                .map(|_| ())
                .map_err(|e| e.to_string())
        };
        assert_eq!(new(Kind::U4, (2, 256, 128), 256, 8, Some(2)), Ok(()));
        assert_eq!(new(Kind::I8, (2, 256, 256), 512, 4, None), Ok(()));
        assert_eq!(new(Kind::U4, (3, 128, 32), 192, 24, Some(6)), Ok(()));
        let error = new(Kind::U4, (2, 256, 128), 255, 8, None).unwrap_err();
        assert_eq!(error, "weights has 255 bytes, expected 256");
        assert!(new(Kind::U4, (2, 256, 128), 256, 9, None).unwrap_err().starts_with("scales has 9"));
        assert!(new(Kind::U8, (2, 256, 128), 512, 8, Some(2)).unwrap_err().starts_with("zero points has 2"));
        for shape in [(0, 128, 128), (1, 100, 100), (1, 128, 0), (1, 256, 96), (1, 128, 16)] {
            assert!(new(Kind::U8, shape, 0, 0, None).unwrap_err().contains("not supported"), "{shape:?}");
        }
    }
}
