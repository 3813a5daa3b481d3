//! What was fetched into a folder: the zip is gone after unpacking, but its checksums may be asked for later.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{Error, cache};

/// A note about a fetched zip.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Receipt {
    /// The folder that it became.
    pub folder: PathBuf,
    /// Address or path that it came from.
    pub origin: String,
    pub zip_bytes: u64,
    pub sha256: String,
    pub md5: Option<String>,
}

impl Receipt {
    pub fn read(state_dir: &Path, folder: &Path) -> Option<Self> {
        let receipt: Self = serde_json::from_slice(&std::fs::read(place(state_dir, folder)).ok()?).ok()?;
        (receipt.folder == folder).then_some(receipt)
    }

    /// Failing costs only that a checksum cannot be compared later.
    pub fn write(&self, state_dir: &Path) {
        let text = serde_json::to_vec_pretty(self).map_err(std::io::Error::from);
        let path = place(state_dir, &self.folder);
        if let Err(error) = text.and_then(|text| cache::write_whole(&path, &text)) {
            tracing::debug!(path = %path.display(), %error, "the zip's checksums are not noted");
        }
    }
}

/// Compares a checksum that a user gives with what was fetched into a folder. Whether it was compared.
pub(crate) fn check(
    receipt: Option<&Receipt>,
    folder: &Path,
    kind: &'static str,
    expected: Option<&str>,
) -> Result<bool, Error> {
    let Some(expected) = expected else { return Ok(false) };
    let found = receipt.and_then(|r| if kind == "MD5" { r.md5.clone() } else { Some(r.sha256.clone()) });
    match found {
        None => Err(Error::Unverifiable { path: folder.to_owned(), kind }),
        Some(found) if found == expected => Ok(true),
        Some(found) => Err(Error::Mismatch {
            path: folder.to_owned(),
            kind,
            expected: expected.to_owned(),
            found,
            manual: crate::Manual::none(),
        }),
    }
}

fn place(state_dir: &Path, folder: &Path) -> PathBuf {
    let name = folder.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let key = crate::digest::short(folder.to_string_lossy().as_bytes());
    state_dir.join("fetched").join(format!("{name}-{key}.json"))
}
