//! Limits of the parser.

/// How deep and how large a stream may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Objects and arrays within each other, through references too; also superclasses above a class. The parser calls
    /// itself that often, so more than 512 are taken as 512.
    pub max_depth: u32,
    /// Elements of one array.
    pub max_elements: usize,
    /// Values and fields of classes in all, elements of arrays of numbers not counted. A value takes up to 170 bytes, so
    /// that the default comes to 180 MB at worst; numbers in arrays take what they take in the stream.
    pub max_values: usize,
}

impl Default for Limits {
    /// Depth 128, 16 Mi elements of an array, 1 Mi values.
    fn default() -> Self {
        Self { max_depth: 128, max_elements: 1 << 24, max_values: 1 << 20 }
    }
}

impl Limits {
    /// The parser calls itself for each level; this many fit into the stack of any thread.
    const MAX_DEPTH: u32 = 512;

    pub(super) fn clamped(self) -> Self {
        Self { max_depth: self.max_depth.min(Self::MAX_DEPTH), ..self }
    }
}
