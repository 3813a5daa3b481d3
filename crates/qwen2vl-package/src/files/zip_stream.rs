//! Zips within a zip, read from front to back without their directory: a compressed entry cannot be read from any other
//! place without unpacking it twice.
//!
//! Sizes and checksums may stand behind an entry's data, as Java's `ZipOutputStream` writes them (APPNOTE.TXT 4.3.9):
//! deflate streams tell their end themselves. What follows the last entry, the directory, is read and left unused.

use std::io::{self, BufRead, Read};

use flate2::bufread::DeflateDecoder;

const LOCAL_HEADER: [u8; 4] = *b"PK\x03\x04";
const DESCRIPTOR: [u8; 4] = *b"PK\x07\x08";
const DIRECTORY: [[u8; 4]; 3] = [*b"PK\x01\x02", *b"PK\x05\x06", *b"PK\x06\x06"];
const ENCRYPTED: u16 = 1;
const SIZES_BEHIND: u16 = 1 << 3;
/// The extra field with 64-bit sizes, and what then stands in the place of others.
const ZIP64: u16 = 1;
const IN_ZIP64: u32 = u32::MAX;
/// A model's has two.
const MAX_ENTRIES: usize = 1000;

/// Why a zip cannot be read on.
#[derive(Debug)]
pub(crate) enum StreamError<E> {
    /// The bytes cannot be read.
    Read(io::Error),
    /// They are no zip of the kind that is read here: where, and why.
    Damaged(u64, String),
    /// What was done with an entry failed.
    Done(E),
}

/// Calls `with` with the name and content of each entry, in the order of the zip. Content that `with` leaves is read and
/// checked all the same.
pub(crate) fn for_each_entry<E>(
    reader: impl BufRead,
    mut with: impl FnMut(&str, &mut dyn Read) -> Result<(), E>,
) -> Result<(), StreamError<E>> {
    let mut input = Counting { inner: reader, at: 0, ahead: None };
    for _ in 0..MAX_ENTRIES {
        let at = input.at;
        let damaged = |reason: String| StreamError::Damaged(at, reason);
        let signature = input.signature().map_err(StreamError::Read)?;
        if DIRECTORY.contains(&signature) && at > 0 {
            return io::copy(&mut input, &mut io::sink()).map(drop).map_err(StreamError::Read);
        }
        if signature != LOCAL_HEADER {
            return Err(damaged(format!("no entry of a zip: {signature:02x?}")));
        }
        let header = Header::read(&mut input).map_err(StreamError::Read)?;
        if header.flags & ENCRYPTED != 0 {
            return Err(damaged(format!("{} is encrypted", header.name)));
        }
        let found = match header.method {
            8 => read_entry(DeflateDecoder::new(&mut input), &header.name, &mut with),
            0 if header.flags & SIZES_BEHIND == 0 => {
                read_entry((&mut input).take(header.size), &header.name, &mut with)
            }
            0 => return Err(damaged(format!("{} does not say how long it is", header.name))),
            other => return Err(damaged(format!("{} is compressed by method {other}", header.name))),
        }?;
        check(&mut input, &header, found).map_err(|e| match e {
            Ok(error) => StreamError::Read(error),
            Err(reason) => damaged(format!("{}: {reason}", header.name)),
        })?;
    }
    Err(StreamError::Damaged(input.at, format!("more than {MAX_ENTRIES} entries")))
}

/// Size and CRC-32 of a content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sizes {
    size: u64,
    crc32: u32,
}

fn read_entry<E>(
    content: impl Read,
    name: &str,
    with: &mut impl FnMut(&str, &mut dyn Read) -> Result<(), E>,
) -> Result<Sizes, StreamError<E>> {
    let mut content = Hashing { inner: content, size: 0, hasher: crc32fast::Hasher::new() };
    with(name, &mut content).map_err(StreamError::Done)?;
    io::copy(&mut content, &mut io::sink()).map_err(StreamError::Read)?;
    Ok(Sizes { size: content.size, crc32: content.hasher.finalize() })
}

/// Compares what was read with the header, or with the descriptor behind the data; an I/O error or a reason.
fn check(
    input: &mut Counting<impl BufRead>,
    header: &Header,
    found: Sizes,
) -> Result<(), Result<io::Error, String>> {
    let said = if header.flags & SIZES_BEHIND == 0 {
        Sizes { size: header.size, crc32: header.crc32 }
    } else {
        descriptor(input).map_err(Ok)?
    };
    if said.size != found.size {
        return Err(Err(format!("it has {} bytes, the zip says {}", found.size, said.size)));
    }
    if said.crc32 != found.crc32 {
        return Err(Err(format!("its checksum is {:08x}, the zip says {:08x}", found.crc32, said.crc32)));
    }
    Ok(())
}

/// The descriptor behind an entry: with or without signature, sizes of 32 or 64 bits. Which, tells what follows it: the
/// next entry or the directory.
fn descriptor(input: &mut Counting<impl BufRead>) -> io::Result<Sizes> {
    let mut crc32 = input.array::<4>()?;
    if crc32 == DESCRIPTOR {
        crc32 = input.array()?;
    }
    let (_packed, narrow) = (input.array::<4>()?, input.array::<4>()?);
    let next = input.array::<4>()?;
    let size = if next == LOCAL_HEADER || DIRECTORY.contains(&next) {
        input.ahead = Some(next);
        u64::from(u32::from_le_bytes(narrow))
    } else {
        let high = input.array::<4>()?;
        u64::from(u32::from_le_bytes(next)) | u64::from(u32::from_le_bytes(high)) << 32
    };
    Ok(Sizes { size, crc32: u32::from_le_bytes(crc32) })
}

/// What is used of a local header.
#[derive(Debug)]
struct Header {
    name: String,
    flags: u16,
    method: u16,
    crc32: u32,
    size: u64,
}

impl Header {
    /// What follows the signature.
    fn read(input: &mut Counting<impl BufRead>) -> io::Result<Self> {
        let fixed = input.array::<26>()?;
        let u16_at = |at: usize| u16::from_le_bytes([fixed[at], fixed[at + 1]]);
        let u32_at = |at: usize| u32::from(u16_at(at)) | u32::from(u16_at(at + 2)) << 16;
        let name = input.bytes(u16_at(22))?;
        let extra = input.bytes(u16_at(24))?;
        let size = match u32_at(18) {
            IN_ZIP64 => zip64_size(&extra).unwrap_or(u64::from(IN_ZIP64)),
            size => u64::from(size),
        };
        Ok(Self {
            name: String::from_utf8_lossy(&name).into_owned(),
            flags: u16_at(2),
            method: u16_at(4),
            crc32: u32_at(10),
            size,
        })
    }
}

/// The size in the extra field: the first of its numbers in a local header.
fn zip64_size(mut extra: &[u8]) -> Option<u64> {
    while let Some((head, rest)) = extra.split_first_chunk::<4>() {
        let (id, len) = (u16::from_le_bytes([head[0], head[1]]), u16::from_le_bytes([head[2], head[3]]));
        let field = rest.get(..len.into())?;
        if id == ZIP64 {
            return field.first_chunk::<8>().map(|b| u64::from_le_bytes(*b));
        }
        extra = &rest[len.into()..];
    }
    None
}

/// Counts the bytes that were read.
struct Counting<R> {
    inner: R,
    at: u64,
    /// A signature that was read already.
    ahead: Option<[u8; 4]>,
}

impl<R: BufRead> Counting<R> {
    fn signature(&mut self) -> io::Result<[u8; 4]> {
        match self.ahead.take() {
            Some(signature) => Ok(signature),
            None => self.array(),
        }
    }

    fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn bytes(&mut self, len: u16) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len.into()];
        self.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}

impl<R: BufRead> Read for Counting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.at += n as u64;
        Ok(n)
    }
}

impl<R: BufRead> BufRead for Counting<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inner.fill_buf()
    }

    fn consume(&mut self, n: usize) {
        self.inner.consume(n);
        self.at += n as u64;
    }
}

/// Size and CRC-32 of what is read.
struct Hashing<R> {
    inner: R,
    size: u64,
    hasher: crc32fast::Hasher,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.size += n as u64;
        self.hasher.update(&buffer[..n]);
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use zip::CompressionMethod;
    use zip::write::SimpleFileOptions;

    use super::*;

    type Entries = Vec<(String, Vec<u8>)>;

    fn read(zip: &[u8]) -> Result<Entries, String> {
        let mut entries = Vec::new();
        // Small pieces, so that nothing depends on what is buffered.
        let reader = io::BufReader::with_capacity(7, zip);
        let done = for_each_entry(reader, |name, content| {
            let mut bytes = Vec::new();
            content.read_to_end(&mut bytes).map_err(|e| e.to_string())?;
            entries.push((name.to_owned(), bytes));
            Ok(())
        });
        match done {
            Ok(()) => Ok(entries),
            Err(StreamError::Read(e)) => Err(e.to_string()),
            Err(StreamError::Damaged(at, reason)) => Err(format!("at byte {at}: {reason}")),
            Err(StreamError::Done(problem)) => Err(problem),
        }
    }

    fn contents() -> Entries {
        let large = (0..200_000_u32).map(|i| (i / 9) as u8).collect();
        [("a.bin", b"weights".to_vec()), ("empty", Vec::new()), ("large.xml", large)]
            .map(|(name, content)| (name.to_owned(), content))
            .to_vec()
    }

    fn java(entries: &Entries) -> Vec<u8> {
        qwen2vl_testkit::java_zip(entries.iter().map(|(n, c)| (n.as_str(), c.as_slice())))
    }

    fn written(options: SimpleFileOptions, streamed: bool) -> Vec<u8> {
        fn add<W: Write + io::Seek>(mut zip: zip::ZipWriter<W>, options: SimpleFileOptions) -> W {
            for (name, content) in contents() {
                zip.start_file(name, options).unwrap();
                zip.write_all(&content).unwrap();
            }
            zip.finish().unwrap()
        }
        if streamed {
            let mut zip = zip::ZipWriter::new_stream(Vec::new());
            for (name, content) in contents() {
                zip.start_file(name, options).unwrap();
                zip.write_all(&content).unwrap();
            }
            return zip.finish().unwrap().into_inner();
        }
        add(zip::ZipWriter::new(io::Cursor::new(Vec::new())), options).into_inner()
    }

    #[test]
    fn zips_of_every_writer_are_read() {
        let options = SimpleFileOptions::default();
        let deflated = options.compression_method(CompressionMethod::Deflated);
        let stored = options.compression_method(CompressionMethod::Stored);
        for (name, zip) in [
            ("as Java writes them", java(&contents())),
            ("deflated", written(deflated, false)),
            ("stored", written(stored, false)),
            ("stored, zip64", written(stored.large_file(true), false)),
            ("deflated, sizes behind", written(deflated, true)),
            ("deflated, 64-bit sizes behind", written(deflated.large_file(true), true)),
        ] {
            assert!(read(&zip).as_ref() == Ok(&contents()), "{name}: {:?}", read(&zip).map(|e| e.len()));
        }
    }

    #[test]
    fn damage_is_seen() {
        let good = java(&contents());
        assert!(read(&good[..good.len() / 2]).is_err());
        for cut in 0..40 {
            assert!(read(&good[..cut]).is_err(), "{cut}");
        }
        // A byte of the first content, of its checksum, of its size.
        let data = 30 + "a.bin".len() + 5;
        for (at, says) in [(data, "checksum"), (data + 7 + 4, "checksum"), (data + 7 + 12, "the zip says")] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            let error = read(&bad).unwrap_err();
            assert!(error.contains("a.bin") && error.contains(says), "{at}: {error}");
        }
        assert!(read(b"hello").unwrap_err().contains("at byte 0: no entry of a zip"));
        let mut encrypted = good.clone();
        encrypted[6] |= 1;
        assert!(read(&encrypted).unwrap_err().contains("a.bin is encrypted"));
        let mut other = good;
        other[8] = 12;
        assert!(read(&other).unwrap_err().contains("method 12"));
    }

    #[test]
    fn what_is_done_with_an_entry_may_fail_or_leave_it() {
        let zip = java(&contents());
        let mut names = Vec::new();
        let done = for_each_entry(zip.as_slice(), |name, _| {
            names.push(name.to_owned());
            Ok::<(), ()>(())
        });
        assert!(done.is_ok() && names.len() == 3);
        let done = for_each_entry(zip.as_slice(), |_, _| Err("full"));
        assert!(matches!(done, Err(StreamError::Done("full"))), "{done:?}");
    }
}
