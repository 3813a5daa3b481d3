//! What can be wrong with a model package.

use std::path::{Path, PathBuf};

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
        "{} is neither an OpenVINO export of Qwen2-VL nor an annotator saved by Spark NLP: it has no {expected}; make one by `optimum-cli export openvino -m \
         Qwen/Qwen2-VL-2B-Instruct --weight-format int4 FOLDER`", path.display()
    )]
    NotAnExport {
        /// The folder or zip.
        path: PathBuf,
        /// A file that every export has.
        expected: &'static str,
    },
    /// More than one model in a folder or zip.
    #[error(
        "{} holds {} models, in {}: name, or pack, one alone", path.display(), folders.len(),
        folders.iter().map(|f| format!("{:?}", f.trim_end_matches('/'))).collect::<Vec<_>>().join(", ")
    )]
    SeveralModels {
        /// The folder or zip.
        path: PathBuf,
        /// The folders in it, from its root.
        folders: Vec<String>,
    },
    /// What Spark saved there is no annotator of this model.
    #[error("{} was saved by Spark, but holds no {expected}, only {}", path.display(), found.join(", "))]
    WrongClass {
        /// The folder or zip.
        path: PathBuf,
        /// The classes found.
        found: Vec<String>,
        /// The class looked for.
        expected: &'static str,
    },
    /// A file that Spark wrote is damaged, or not of the form that it should have.
    #[error("{}: {source}", path.display())]
    SparkFile {
        /// The file.
        path: PathBuf,
        /// What is wrong, and at which byte.
        source: qwen2vl_spark_files::Error,
    },
    /// A feature that was saved as Parquet.
    #[error(
        "{} is Parquet, which this project does not read: in Spark NLP, load the annotator, set \
         spark.jsl.settings.annotatorSerializationFormat to \"object\", and save it again", path.display()
    )]
    DatasetFormat {
        /// The file.
        path: PathBuf,
    },
    /// An OpenVINO IR that cannot be used.
    #[error("{}: {reason}", path.display())]
    Ir {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        reason: String,
    },
    /// A file of the cache that is not as it was unpacked.
    #[error(
        "{} changed since it was unpacked, {reason}: delete {} and open the model again", path.display(), root.display()
    )]
    Unpacked {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
        /// The unpacked folder.
        root: PathBuf,
    },
    /// A folder with far more files than a model has.
    #[error("{} has more than {limit} files: name the model's own folder", path.display())]
    TooManyFiles {
        /// The folder.
        path: PathBuf,
        /// The most that are looked at.
        limit: usize,
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
    #[error("{} is neither a folder nor a zip of a model", path.display())]
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

impl Error {
    /// With the files that it names in `from` named in `to`.
    pub(crate) fn at(mut self, from: &Path, to: &Path) -> Self {
        if let Self::Ir { path, .. } | Self::Value { path, .. } | Self::Json { path, .. } = &mut self
            && let Ok(file) = path.strip_prefix(from)
        {
            *path = to.join(file);
        }
        self
    }
}
