//! Zips as Java's `ZipOutputStream` at level 0 writes them, which Spark NLP packs models by.
//!
//! Method 8 of stored blocks of 32,768 bytes, flags 0x0808 (UTF-8 names; sizes and CRC-32 behind the data, in a
//! descriptor with signature), names in the order given, no folders.

/// Names are not written twice by Java, and no two may be equal here.
pub fn java_zip<'a>(files: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Vec<u8> {
    let (mut zip, mut directory, mut count) = (Vec::new(), Vec::new(), 0u16);
    for (name, content) in files {
        let start = u32::try_from(zip.len()).expect("small test zips");
        let packed = stored_blocks(content);
        let name_len = u16::try_from(name.len()).expect("short names");
        let sizes = [
            crc32(content),
            u32::try_from(packed.len()).expect("small test zips"),
            u32::try_from(content.len()).expect("small test zips"),
        ];
        // Version, flags, method, time and date.
        let common: [u16; 5] = [20, 0x0808, 8, 0, 0x5b78];
        zip.extend(b"PK\x03\x04");
        zip.extend(common.iter().flat_map(|v| v.to_le_bytes()));
        zip.extend([0; 12]);
        zip.extend(name_len.to_le_bytes());
        zip.extend([0; 2]);
        zip.extend(name.as_bytes());
        zip.extend(packed);
        zip.extend(b"PK\x07\x08");
        zip.extend(sizes.iter().flat_map(|v| v.to_le_bytes()));

        directory.extend(b"PK\x01\x02");
        directory.extend(20u16.to_le_bytes());
        directory.extend(common.iter().flat_map(|v| v.to_le_bytes()));
        directory.extend(sizes.iter().flat_map(|v| v.to_le_bytes()));
        directory.extend(name_len.to_le_bytes());
        directory.extend([0; 12]);
        directory.extend(start.to_le_bytes());
        directory.extend(name.as_bytes());
        count += 1;
    }
    let start = u32::try_from(zip.len()).expect("small test zips");
    let len = u32::try_from(directory.len()).expect("small test zips");
    zip.extend(directory);
    zip.extend(b"PK\x05\x06\0\0\0\0");
    zip.extend([count, count].iter().flat_map(|v| v.to_le_bytes()));
    zip.extend([len, start].iter().flat_map(|v| v.to_le_bytes()));
    zip.extend([0; 2]);
    zip
}

fn stored_blocks(content: &[u8]) -> Vec<u8> {
    const BLOCK: usize = 32_768;
    let mut packed = Vec::with_capacity(content.len() + 5 * (content.len() / BLOCK + 1));
    let count = content.len().div_ceil(BLOCK).max(1);
    for i in 0..count {
        let block = &content[i * BLOCK..content.len().min((i + 1) * BLOCK)];
        let len = u16::try_from(block.len()).expect("a block is small");
        packed.push(u8::from(i + 1 == count));
        packed.extend(len.to_le_bytes());
        packed.extend((!len).to_le_bytes());
        packed.extend(block);
    }
    packed
}

/// CRC-32 of ISO 3309, bit by bit into a table first.
fn crc32(bytes: &[u8]) -> u32 {
    let table: Vec<u32> = (0..256u32)
        .map(|byte| (0..8).fold(byte, |c, _| if c & 1 == 1 { c >> 1 ^ 0xedb8_8320 } else { c >> 1 }))
        .collect();
    !bytes.iter().fold(!0u32, |crc, byte| table[((crc ^ u32::from(*byte)) & 0xff) as usize] ^ crc >> 8)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn it_is_a_zip() {
        let large: Vec<u8> = (0..100_000u32).map(|i| (i / 7) as u8).collect();
        let bytes = java_zip([("a", b"".as_slice()), ("b/c", b"hello"), ("large", &large)]);
        let mut zip = zip::ZipArchive::new(std::io::Cursor::new(bytes)).unwrap();
        for (name, content) in [("a", &b""[..]), ("b/c", b"hello"), ("large", &large)] {
            let mut read = Vec::new();
            zip.by_name(name).unwrap().read_to_end(&mut read).unwrap();
            assert!(read == content, "{name}");
        }
    }
}
