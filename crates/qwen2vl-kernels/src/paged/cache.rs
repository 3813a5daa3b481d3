//! The cache's memory: blocks of tokens, in each block layers, in each layer heads.

use memmap2::MmapMut;
use thiserror::Error;

use super::is_paged_head_supported;
use crate::GROUP;

/// Tokens of a block.
pub const BLOCK_TOKENS: usize = 32;

/// How numbers are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Element {
    /// 8 bits, groups of 32 with a scale and an offset.
    I8,
    /// 4 bits, in the same way; of each 16 the first eight are lower halves of bytes.
    U4,
    F16,
    F32,
}

/// How keys and values are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KvPrecision {
    /// 8 bits, in groups of 32 values of a token, each with its own range.
    U8,
    /// Keys in 8 bits, values in 4.
    U4,
    /// 16-bit floats.
    F16,
    /// 32-bit floats.
    F32,
}

/// What a cache is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheShape {
    /// Layers of the model.
    pub layers: usize,
    /// Heads of keys, and of values.
    pub heads: usize,
    /// Values of a head.
    pub width: usize,
    /// Blocks of [`BLOCK_TOKENS`] tokens.
    pub blocks: usize,
    /// How its numbers are kept.
    pub precision: KvPrecision,
}

/// Why there is no cache.
#[derive(Debug, Error)]
pub enum CacheError {
    /// Heads of this width are not supported, or there are none.
    #[error("a KV cache cannot have {layers} layers of {heads} heads of {width} values")]
    Shape {
        /// Of the model.
        layers: usize,
        /// Of a layer.
        heads: usize,
        /// Of a head.
        width: usize,
    },
    /// The system has not so much address space.
    #[error("cannot reserve a KV cache of {blocks} blocks of {block_bytes} bytes: {source}")]
    Memory {
        /// How many were asked for.
        blocks: usize,
        /// Of each.
        block_bytes: usize,
        /// What the system says.
        source: std::io::Error,
    },
}

/// Keys and values of tokens, in blocks.
#[derive(Debug)]
pub struct KvCache {
    shape: CacheShape,
    block_bytes: usize,
    memory: MmapMut,
}

/// Keys or values of a block's tokens in one head of a layer, from where they begin: numbers, then scales and offsets of groups. Keys lie as
/// `[width, BLOCK_TOKENS]`, their scales as `[groups, BLOCK_TOKENS]`; values as `[BLOCK_TOKENS, width]` and
/// `[BLOCK_TOKENS, groups]`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part {
    pub element: Element,
    /// From the beginning of a head's keys.
    pub at: usize,
    width: usize,
}

/// A part that is there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Numbers {
    pub data: *mut u8,
    pub scales: *mut f32,
    pub offsets: *mut f32,
}

impl KvPrecision {
    /// Of keys and of values.
    fn elements(self) -> (Element, Element) {
        match self {
            Self::U8 => (Element::I8, Element::I8),
            Self::U4 => (Element::I8, Element::U4),
            Self::F16 => (Element::F16, Element::F16),
            Self::F32 => (Element::F32, Element::F32),
        }
    }
}

impl Element {
    /// Bytes of so many numbers, a multiple of 16.
    fn bytes(self, n: usize) -> usize {
        match self {
            Self::U4 => n / 2,
            Self::I8 => n,
            Self::F16 => n * 2,
            Self::F32 => n * 4,
        }
    }

    pub(crate) fn is_quantized(self) -> bool {
        matches!(self, Self::I8 | Self::U4)
    }
}

impl Part {
    /// Its scales; offsets are as many.
    fn scales(&self) -> usize {
        if self.element.is_quantized() { BLOCK_TOKENS * self.width / GROUP } else { 0 }
    }

    fn data_bytes(&self) -> usize {
        self.element.bytes(BLOCK_TOKENS * self.width)
    }

    fn bytes(&self) -> usize {
        self.data_bytes() + 2 * self.scales() * size_of::<f32>()
    }

    /// Where it is in a head that begins there.
    pub(crate) fn numbers(&self, head: *mut u8) -> Numbers {
        let data = head.wrapping_add(self.at);
        let scales = data.wrapping_add(self.data_bytes()).cast::<f32>();
        Numbers { data, scales, offsets: scales.wrapping_add(self.scales()) }
    }
}

impl CacheShape {
    /// Keys and values of a head.
    pub(crate) fn parts(&self) -> (Part, Part) {
        let ((keys, values), width) = (self.precision.elements(), self.width);
        let keys = Part { element: keys, at: 0, width };
        (keys, Part { element: values, at: keys.bytes(), width })
    }

    /// Bytes of a head in one layer of a block.
    fn head_bytes(&self) -> usize {
        let (keys, values) = self.parts();
        keys.bytes() + values.bytes()
    }

    /// Bytes of a block; `None` for a shape that there is no cache of.
    pub fn block_bytes(&self) -> Option<usize> {
        let heads = self.layers.checked_mul(self.heads).filter(|n| *n > 0)?;
        is_paged_head_supported(self.width).then(|| heads.checked_mul(self.head_bytes()))?
    }
}

impl KvCache {
    /// An empty cache: it takes memory as it is written.
    ///
    /// # Errors
    ///
    /// [`CacheError`].
    pub fn new(shape: CacheShape) -> Result<Self, CacheError> {
        let CacheShape { layers, heads, width, blocks, .. } = shape;
        let block_bytes = shape.block_bytes().ok_or(CacheError::Shape { layers, heads, width })?;
        let bytes = block_bytes.saturating_mul(blocks).max(1);
        let memory = MmapMut::map_anon(bytes);
        let memory = memory.map_err(|source| CacheError::Memory { blocks, block_bytes, source })?;
        Ok(Self { shape, block_bytes, memory })
    }

    /// What it was made for.
    pub fn shape(&self) -> &CacheShape {
        &self.shape
    }

    /// Copies a block to another one.
    ///
    /// # Panics
    ///
    /// If there is no such block.
    pub fn copy_block(&mut self, from: usize, to: usize) {
        let at = |block: usize| block * self.block_bytes;
        self.memory.copy_within(at(from)..at(from + 1), at(to));
    }

    /// Fills all of it.
    #[cfg(test)]
    pub(super) fn fill(&mut self, byte: u8) {
        self.memory.fill(byte);
    }

    /// Where it begins.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn start(&mut self) -> Start {
        let head_bytes = self.shape.head_bytes();
        let Self { shape, block_bytes, .. } = *self;
        Start { memory: self.memory.as_mut_ptr(), block_bytes, head_bytes, heads: shape.heads }
    }
}

/// Where blocks lie. Threads share it: they read all, and each writes tokens that no other does.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(super) struct Start {
    memory: *mut u8,
    block_bytes: usize,
    head_bytes: usize,
    heads: usize,
}

#[cfg(target_arch = "x86_64")]
// SAFETY: as above.
unsafe impl Send for Start {}
#[cfg(target_arch = "x86_64")]
// SAFETY: as above.
unsafe impl Sync for Start {}

#[cfg(target_arch = "x86_64")]
impl Start {
    /// Where a head of a layer begins in a block.
    pub(super) fn head(self, block: usize, layer: usize, head: usize) -> *mut u8 {
        self.memory.wrapping_add(block * self.block_bytes + (layer * self.heads + head) * self.head_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: CacheShape =
        CacheShape { layers: 28, heads: 2, width: 128, blocks: 5, precision: KvPrecision::U8 };

    #[test]
    fn a_block_has_as_many_bytes_as_its_numbers_and_their_scales() {
        let of = |precision| CacheShape { precision, ..SHAPE }.block_bytes().unwrap();
        let values = 28 * 2 * 128 * BLOCK_TOKENS;
        assert_eq!(of(KvPrecision::F32), values * 8);
        assert_eq!(of(KvPrecision::F16), values * 4);
        assert_eq!(of(KvPrecision::U8), values * 2 + values / GROUP * 16);
        assert_eq!(of(KvPrecision::U4), values + values / 2 + values / GROUP * 16);
        for width in [0, 16, 48, 160] {
            assert!(CacheShape { width, ..SHAPE }.block_bytes().is_none(), "{width}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let error = KvCache::new(CacheShape { layers: 0, ..SHAPE }).unwrap_err();
        assert_eq!(error.to_string(), "a KV cache cannot have 0 layers of 2 heads of 128 values");
        let error = KvCache::new(CacheShape { blocks: usize::MAX, ..SHAPE }).unwrap_err();
        assert!(matches!(error, CacheError::Memory { .. }), "{error}");
    }

    #[test]
    fn a_block_is_copied_whole_and_nothing_else() {
        let mut cache = KvCache::new(SHAPE).unwrap();
        for (i, byte) in cache.memory.iter_mut().enumerate() {
            *byte = (i / 1000 % 251) as u8;
        }
        let before = cache.memory.to_vec();
        cache.copy_block(1, 3);
        let n = cache.block_bytes;
        assert!(cache.memory[3 * n..4 * n] == before[n..2 * n]);
        assert!(cache.memory[..3 * n] == before[..3 * n] && cache.memory[4 * n..] == before[4 * n..]);
    }
}
