//! What is looked at before a zip is unpacked. What is inside, `qwen2vl-package` looks at while it unpacks.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::progress::{Progress, Tell};
use crate::{Error, Manual, cache, digest};

/// What is at the start of every zip, an empty one apart.
const ZIP_START: &[u8] = b"PK\x03\x04";

/// The checksums that a zip has to have.
#[derive(Debug, Default)]
pub(crate) struct Expected {
    pub sha256: Option<String>,
    pub md5: Option<String>,
}

/// A zip that passed.
#[derive(Debug)]
pub(crate) struct Checked {
    pub sums: digest::Sums,
    pub bytes: u64,
}

/// Whether another copy of the zip may be better.
pub(crate) fn is_bad_zip(error: &Error) -> bool {
    use qwen2vl_package::Error as Package;
    let damaged = matches!(error, Error::Package(Package::DamagedZip { .. } | Package::UnsafeZip { .. }));
    damaged || matches!(error, Error::Mismatch { .. } | Error::NotAZip { .. } | Error::NotAModel { .. })
}

/// Whether a file is a zip, and the one that is expected.
pub(crate) fn check_zip(
    path: &Path,
    manual: Manual,
    expected: &Expected,
    tell: Tell<'_>,
) -> Result<Checked, Error> {
    let failed = |e| cache::io_error(path, e);
    let bytes = std::fs::metadata(path).map_err(failed)?.len();
    let mut start = Vec::new();
    File::open(path).and_then(|f| f.take(60).read_to_end(&mut start)).map_err(failed)?;
    if !start.starts_with(ZIP_START) {
        let begins = String::from_utf8_lossy(&start).into_owned();
        return Err(Error::NotAZip { path: path.to_owned(), begins, manual });
    }
    tell(Progress::Checking);
    let sums = digest::sums(path, expected.md5.is_some()).map_err(failed)?;
    let pairs = [
        ("MD5", expected.md5.as_ref(), sums.md5.as_ref()),
        ("SHA-256", expected.sha256.as_ref(), Some(&sums.sha256)),
    ];
    for (kind, expected, found) in pairs {
        if let (Some(expected), Some(found)) = (expected, found)
            && expected != found
        {
            let (path, expected, found) = (path.to_owned(), expected.clone(), found.clone());
            return Err(Error::Mismatch { path, kind, expected, found, manual });
        }
    }
    Ok(Checked { sums, bytes })
}

/// Whether there is room to unpack a zip.
pub(crate) fn check_room(folder: &Path, zip_bytes: u64) -> Result<(), Error> {
    let needed_bytes = zip_bytes.saturating_add(cache::HEADROOM_BYTES);
    match fs4::available_space(folder) {
        Ok(available_bytes) if available_bytes < needed_bytes => {
            Err(Error::NoSpace { folder: folder.to_owned(), needed_bytes, available_bytes, kept_bytes: 0 })
        }
        _ => Ok(()),
    }
}
