//! What comes out of a fetch.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::receipt::Receipt;
use crate::zip_check::Expected;

/// A model that is there now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fetched {
    /// The folder.
    pub path: PathBuf,
    /// What to call it.
    pub name: String,
    /// Where it came from.
    pub source: Source,
    /// The address or path that it came from; for a model that was there already, if that is known.
    pub origin: Option<String>,
    /// Whether nothing had to be done.
    pub already_there: bool,
    /// Bytes of all its files.
    pub bytes: u64,
    /// Bytes of the zip, or of the files from the hub; none if nothing was downloaded.
    pub downloaded_bytes: Option<u64>,
    /// How many of them an earlier try had left.
    pub resumed_from_bytes: u64,
    /// The zip's SHA-256, if it was fetched by this program.
    pub sha256: Option<String>,
    /// Whether its SHA-256 was compared with one from outside.
    pub sha256_checked: bool,
    /// Whether its MD5 was compared with one from outside.
    pub md5_checked: bool,
}

/// Where a model comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Source {
    /// Spark NLP's published models.
    Published,
    /// Any other address.
    Url,
    /// The hub.
    Hub,
    /// A zip that lies here.
    File,
    /// A folder that lies here, used where it is.
    Folder,
}

impl Fetched {
    /// A model that lies at `path`, with what was noted when it was fetched.
    pub(crate) fn there(path: PathBuf, source: Source, state_dir: &Path) -> Self {
        let receipt = Receipt::read(state_dir, &path);
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned());
        let (origin, sha256) = receipt.map(|r| (r.origin, r.sha256)).unzip();
        Self {
            bytes: folder_bytes(&path),
            name: name.unwrap_or_else(|| "model".to_owned()),
            path,
            source,
            origin,
            already_there: true,
            downloaded_bytes: None,
            resumed_from_bytes: 0,
            sha256,
            sha256_checked: false,
            md5_checked: false,
        }
    }

    /// Its zip has just been compared with `expected`.
    pub(crate) fn passed(self, expected: &Expected) -> Self {
        Self { sha256_checked: expected.sha256.is_some(), md5_checked: expected.md5.is_some(), ..self }
    }
}

/// Bytes of all files of a folder, links followed.
pub(crate) fn folder_bytes(path: &Path) -> u64 {
    let entries = walkdir::WalkDir::new(path).into_iter().flatten();
    entries
        .filter_map(|e| std::fs::metadata(e.path()).ok())
        .filter(std::fs::Metadata::is_file)
        .map(|m| m.len())
        .sum()
}
