//! What can be wrong with a model package.

use std::path::PathBuf;

/// Errors of the package layer: each names the file, what is wrong with it and, where known, what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nothing lies at the path.
    #[error("model {} does not exist", path.display())]
    NotFound {
        /// The path as given.
        path: PathBuf,
    },
    /// A folder or zip without any part of an OpenVINO export.
    #[error(
        "{} is no OpenVINO export of Qwen2-VL: it has no {expected}; make one by `optimum-cli export openvino -m \
         Qwen/Qwen2-VL-2B-Instruct --weight-format int4 FOLDER`", path.display()
    )]
    NotAnExport {
        /// The folder or zip.
        path: PathBuf,
        /// A file that every export has.
        expected: &'static str,
    },
    /// A Hugging Face checkpoint that was not exported yet.
    #[error(
        "{} is a Hugging Face checkpoint ({found}), not an OpenVINO export: convert it by `optimum-cli export openvino \
         -m {} --task image-text-to-text --weight-format int4 FOLDER`", path.display(), path.display()
    )]
    Checkpoint {
        /// The folder or zip.
        path: PathBuf,
        /// The file of weights that gives it away.
        found: String,
    },
    /// An export with parts missing.
    #[error("{} lacks {}: copy or export it again", path.display(), missing.join(", "))]
    Incomplete {
        /// The folder or zip.
        path: PathBuf,
        /// The files that are missing.
        missing: Vec<String>,
    },
    /// A file of the model that has to hold something is empty.
    #[error("{} is empty: copy or export it again", path.display())]
    EmptyFile {
        /// The file.
        path: PathBuf,
    },
    /// A file that is neither a folder nor a zip.
    #[error("{} is neither a folder nor a zip of an OpenVINO export", path.display())]
    NotAPackage {
        /// The file.
        path: PathBuf,
    },
    /// A file that cannot be read.
    #[error("{} cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A text or JSON file larger than any of its kind.
    #[error("{} has {size} bytes, more than the {limit} allowed for such a file", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        size: u64,
        /// The most that is read.
        limit: u64,
    },
    /// Not JSON, or not of the form of this file. The reason holds line and column.
    #[error("{}: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// The parser's reason, with line and column.
        source: serde_json::Error,
    },
    /// A value that is missing, out of range or at odds with another.
    #[error("{}: {field} {problem}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The field, with a dot before nested ones.
        field: String,
        /// The value and what is allowed.
        problem: String,
    },
    /// A zip that is damaged.
    #[error("the zip {} is damaged or truncated: {reason}; fetch it again", path.display())]
    DamagedZip {
        /// The zip.
        path: PathBuf,
        /// What was found, and in which entry.
        reason: String,
    },
    /// A zip with an entry that no model has: a name that leads out of the folder, a link, a duplicate, an encrypted
    /// or oversized entry.
    #[error("the zip {} is refused: {reason}", path.display())]
    UnsafeZip {
        /// The zip.
        path: PathBuf,
        /// The entry and what is wrong with it.
        reason: String,
    },
    /// A zip that was written to while it was read.
    #[error("{} changed while it was read: try again when it is complete", path.display())]
    Changed {
        /// The zip.
        path: PathBuf,
    },
    /// No folder for the cache is known.
    #[error("no home folder, so no place for the cache: name a folder by QWEN2VL_CACHE")]
    NoCache,
    /// The cache cannot be written.
    #[error("cannot write {}: {source}; name a writable folder by QWEN2VL_CACHE", path.display())]
    Cache {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Too little room to unpack.
    #[error(
        "unpacking needs {} MiB in {} and {} MiB are free: free some space, or name another folder by QWEN2VL_CACHE",
        needed_bytes.div_ceil(1 << 20), path.display(), available_bytes >> 20
    )]
    DiskFull {
        /// The cache folder.
        path: PathBuf,
        /// Bytes that the unpacked model has.
        needed_bytes: u64,
        /// Bytes free.
        available_bytes: u64,
    },
}
