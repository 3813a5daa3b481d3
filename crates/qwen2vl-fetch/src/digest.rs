//! Checksums: of files, of what a user gives, of git's blobs.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use md5::Md5;
use sha1::Sha1;
use sha2::{Digest, Sha256};

use crate::Error;

/// Checksums of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sums {
    pub sha256: String,
    /// Only if it was asked for.
    pub md5: Option<String>,
}

/// Reads a file once.
pub(crate) fn sums(path: &Path, with_md5: bool) -> io::Result<Sums> {
    let mut sha256 = Sha256::new();
    let mut md5 = with_md5.then(Md5::new);
    read_blocks(path, |block| {
        sha256.update(block);
        if let Some(md5) = &mut md5 {
            md5.update(block);
        }
    })?;
    Ok(Sums { sha256: hex(&sha256.finalize()), md5: md5.map(|md5| hex(&md5.finalize())) })
}

/// The id that git, and so the hub, gives a file.
pub(crate) fn git_blob(path: &Path) -> io::Result<String> {
    let mut sha1 = Sha1::new();
    sha1.update(format!("blob {}\0", std::fs::metadata(path)?.len()));
    read_blocks(path, |block| sha1.update(block))?;
    Ok(hex(&sha1.finalize()))
}

fn read_blocks(path: &Path, mut each: impl FnMut(&[u8])) -> io::Result<()> {
    let mut file = File::open(path)?;
    let mut block = vec![0; 1 << 20];
    loop {
        match file.read(&mut block) {
            Ok(0) => return Ok(()),
            Ok(n) => each(&block[..n]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// Eight digits that tell keys apart.
pub(crate) fn short(key: &[u8]) -> String {
    hex(&Sha256::digest(key)[..4])
}

/// A checksum as a user or a catalogue gives it, in lower case.
pub(crate) fn checked(kind: &'static str, digits: usize, given: &str) -> Result<String, Error> {
    let given = given.trim();
    if given.len() == digits && given.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok(given.to_ascii_lowercase());
    }
    Err(Error::BadChecksum { kind, given: given.to_owned(), digits })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_sums() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("a");
        std::fs::write(&path, "abc").expect("written");
        let sums = sums(&path, true).expect("read");
        // The test vectors of RFC 1321 and FIPS 180-2, and `git hash-object`.
        assert_eq!(sums.md5.as_deref(), Some("900150983cd24fb0d6963f7d28e17f72"));
        assert_eq!(sums.sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(git_blob(&path).expect("read"), "f2ba8f84ab5c1bce84a7b441cb1959cfc7093b7f");
    }

    #[test]
    fn given_sums_are_hexadecimal_of_the_right_length_in_either_case() {
        assert_eq!(checked("MD5", 32, &"Ab".repeat(16)).ok(), Some("ab".repeat(16)));
        for bad in ["", "abc", &"g".repeat(32), &"a".repeat(33)] {
            assert!(matches!(checked("MD5", 32, bad), Err(Error::BadChecksum { .. })), "{bad}");
        }
    }
}
