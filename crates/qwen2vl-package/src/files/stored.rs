//! A zip entry of stored deflate blocks, read from any place without unpacking it.
//!
//! Java's `ZipOutputStream` at level 0, which Spark NLP packs models by, writes method 8 (deflate) whose blocks are
//! all stored (RFC 1951, 3.2.4): a byte 0 or 1 (last block), length and its complement, and the bytes as they are. A
//! list of where the blocks lie makes such an entry as good as a plain file, so that a zip within it needs no copy.

use std::io::{self, Read, Seek, SeekFrom};

use super::bytes::{Window, seek};

/// Blocks hold up to 65,535 bytes and Java's hold 32,768; below this average the list would not pay.
const MIN_AVERAGE_BLOCK: u64 = 1024;

/// A block's content.
#[derive(Debug, Clone, Copy)]
struct Block {
    /// Where it stands in the entry.
    at: u64,
    /// Where it lies in the window.
    start: u64,
}

/// A reader of the content of stored blocks.
#[derive(Debug)]
pub(super) struct Stored<'a> {
    window: Window<'a>,
    blocks: Vec<Block>,
    len: u64,
    at: u64,
}

impl<'a> Stored<'a> {
    /// The reader, or `None` if a block is compressed, the stream is damaged, or its content is not of `len` bytes:
    /// then inflating tells more.
    pub fn new(window: Window<'a>, len: u64) -> io::Result<Option<Self>> {
        let most = len / MIN_AVERAGE_BLOCK + 64;
        let mut blocks = Vec::new();
        let (mut at, mut start) = (0, 0);
        loop {
            let mut header = [0; 5];
            match window.part(start, 5).read_exact(&mut header) {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
                Err(e) => return Err(e),
            }
            let [kind, low, high, not_low, not_high] = header;
            let size = u64::from(u16::from_le_bytes([low, high]));
            let stored = kind <= 1 && low == !not_low && high == !not_high;
            if !stored || blocks.len() as u64 >= most || at + size > len {
                return Ok(None);
            }
            if size > 0 {
                blocks.push(Block { at, start: start + 5 });
            }
            at += size;
            start += 5 + size;
            if kind == 1 {
                break;
            }
        }
        Ok((at == len && start <= window.len()).then_some(Self { window, blocks, len, at: 0 }))
    }
}

impl Read for Stored<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        // As many blocks as the buffer takes: the readers above ask for far more than one holds.
        while done < buffer.len() && self.at < self.len {
            let index = self.blocks.partition_point(|b| b.at <= self.at) - 1;
            let block = self.blocks[index];
            let end = self.blocks.get(index + 1).map_or(self.len, |next| next.at);
            let left = usize::try_from(end - self.at).unwrap_or(usize::MAX);
            let want = left.min(buffer.len() - done);
            let start = block.start + (self.at - block.at);
            let n = self.window.part(start, want as u64).read(&mut buffer[done..done + want])?;
            if n == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            done += n;
            self.at += n as u64;
        }
        Ok(done)
    }
}

impl Seek for Stored<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.at = seek(to, self.at, self.len)?;
        Ok(self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::super::bytes::Bytes;
    use super::*;

    /// Stored blocks of these sizes, counting up.
    fn stream(sizes: &[u16]) -> (Vec<u8>, Vec<u8>) {
        let (mut packed, mut content) = (Vec::new(), Vec::new());
        for (i, size) in sizes.iter().enumerate() {
            packed.push(u8::from(i + 1 == sizes.len()));
            packed.extend(size.to_le_bytes());
            packed.extend((!size).to_le_bytes());
            let bytes: Vec<u8> = (0..*size).map(|b| (b as u8).wrapping_add(content.len() as u8)).collect();
            packed.extend(&bytes);
            content.extend(bytes);
        }
        (packed, content)
    }

    #[test]
    fn blocks_read_as_one_content_from_any_place() {
        for sizes in [&[0][..], &[5], &[3, 0, 4], &[32_768, 65_535, 1, 0], &[0, 0, 7, 0]] {
            let (packed, content) = stream(sizes);
            let bytes = Bytes::Memory(&packed);
            let mut stored = Stored::new(bytes.window(), content.len() as u64).unwrap().expect("stored");
            let mut read = Vec::new();
            stored.read_to_end(&mut read).unwrap();
            assert!(read == content, "{sizes:?}");
            for at in (0..content.len()).step_by(911) {
                stored.seek(SeekFrom::Start(at as u64)).unwrap();
                let mut some = vec![0; 40_000.min(content.len() - at)];
                stored.read_exact(&mut some).unwrap();
                assert!(some == content[at..at + some.len()], "{sizes:?} at {at}");
            }
        }
    }

    #[test]
    fn compressed_damaged_and_crumbled_streams_are_left_to_inflating() {
        let (packed, content) = stream(&[300, 300]);
        let len = content.len() as u64;
        let open = |packed: &[u8], len| Stored::new(Bytes::Memory(packed).window(), len).unwrap().is_some();
        assert!(open(&packed, len));
        assert!(!open(&packed[..packed.len() - 1], len), "cut");
        assert!(!open(&packed, len + 1) && !open(&packed, len - 1), "another length");
        for (at, byte) in [(0, 2), (0, 5), (1, 9), (305, 3)] {
            let mut bad = packed.clone();
            bad[at] = byte;
            assert!(!open(&bad, len), "byte {at}");
        }
        let (crumbs, content) = stream(&[1; 5000]);
        assert!(!open(&crumbs, content.len() as u64), "too many blocks");
    }
}
