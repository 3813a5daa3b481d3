//! Inputs as a compiled model describes them.

/// An element type that inputs have here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Element {
    /// 32-bit float.
    F32,
    /// 64-bit integer.
    I64,
    /// 32-bit integer.
    I32,
    /// Unsigned byte.
    U8,
    /// Signed byte.
    I8,
    /// 16-bit float of IEEE.
    F16,
    /// Upper half of a 32-bit float.
    Bf16,
    /// Four bits.
    U4,
    /// Something else.
    Other,
}

/// In the order of shim.cpp's codes.
const CODES: [Element; 8] = [
    Element::F32,
    Element::I64,
    Element::I32,
    Element::U8,
    Element::I8,
    Element::F16,
    Element::Bf16,
    Element::U4,
];

impl Element {
    pub(crate) fn of_code(code: u32) -> Self {
        CODES.get(code as usize).copied().unwrap_or(Self::Other)
    }

    pub(crate) fn code(self) -> u32 {
        CODES.iter().position(|e| *e == self).map_or(u32::MAX, |code| code as u32)
    }

    /// Bytes of so many values; of four bits, two share a byte.
    pub fn bytes(self, values: usize) -> usize {
        match self {
            Self::I64 => values.saturating_mul(8),
            Self::F32 | Self::I32 => values.saturating_mul(4),
            Self::F16 | Self::Bf16 => values.saturating_mul(2),
            Self::U8 | Self::I8 | Self::Other => values,
            Self::U4 => values.div_ceil(2),
        }
    }
}

/// An input or output of a compiled model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Its name, empty where it has none.
    pub name: String,
    /// Type of its values.
    pub element: Element,
    /// Its dimensions, `None` where open.
    pub dims: Vec<Option<usize>>,
}
