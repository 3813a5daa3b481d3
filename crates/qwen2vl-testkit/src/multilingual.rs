//! Lines of text in some 500 languages, with what Hugging Face's tokenizer makes of them;
//! `tools/reference/multilingual.py` wrote the data.

use std::io::Read;

use flate2::read::GzDecoder;
use sha2::{Digest, Sha256};

use crate::golden;

/// Bytes of a line in `ids.bin`: the number of ids (u16) and the start of their SHA-256.
const DIGEST_BYTES: usize = 6;

/// A line, and a digest of its ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MultilingualLine {
    /// The line; it may hold line ends and every other control character.
    pub text: String,
    digest: [u8; DIGEST_BYTES],
}

impl MultilingualLine {
    /// Compares ids with those of Hugging Face's tokenizer.
    ///
    /// # Errors
    ///
    /// Both digests, if they differ.
    pub fn check_ids(&self, ids: &[u32]) -> Result<(), String> {
        let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
        let n_ids = u16::try_from(ids.len()).unwrap_or(u16::MAX).to_le_bytes();
        let got = [n_ids.as_slice(), &Sha256::digest(bytes)[..4]].concat();
        if got == self.digest {
            return Ok(());
        }
        let want = u16::from_le_bytes([self.digest[0], self.digest[1]]);
        Err(format!(
            "the {} ids {ids:?} have digest {got:02x?}; {want} ids of digest {:02x?} wanted",
            ids.len(),
            self.digest
        ))
    }
}

/// All lines of `tests/golden/multilingual`, special tokens among them.
///
/// # Panics
///
/// If the files are missing or damaged, or of different lengths.
pub fn multilingual_lines() -> Vec<MultilingualLine> {
    let packed = std::fs::File::open(golden("multilingual/lines.jsonl.gz")).expect("the lines are readable");
    let mut content = String::new();
    GzDecoder::new(packed).read_to_string(&mut content).expect("the lines are gzip of UTF-8");
    let digests = std::fs::read(golden("multilingual/ids.bin")).expect("the digests are readable");
    // Split at line feeds alone: the strings hold U+2028 and its like as they are.
    let texts: Vec<&str> = content.strip_suffix('\n').expect("the last line ends").split('\n').collect();
    assert_eq!(digests.len(), texts.len() * DIGEST_BYTES, "one digest a line");
    let digests = digests.chunks_exact(DIGEST_BYTES).map(|d| d.try_into().expect("a chunk of that size"));
    texts
        .into_iter()
        .zip(digests)
        .map(|(line, digest)| MultilingualLine {
            text: serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}")),
            digest,
        })
        .collect()
}
