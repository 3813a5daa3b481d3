//! Where a package comes from.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The form of a package.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum PackageKind {
    /// An export of optimum-intel: IRs and configs in one folder.
    OpenvinoExport,
    /// An export for Spark NLP's `loadSavedModel`: IRs, and the configs in `assets/`.
    SparkExport,
    /// An annotator that Spark NLP saved: the published zip, a cached folder, or a stage of a pipeline.
    SparkAnnotator,
}

impl std::fmt::Display for PackageKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::OpenvinoExport => "OpenVINO export",
            Self::SparkExport => "OpenVINO export for Spark NLP",
            Self::SparkAnnotator => "Spark NLP annotator",
        })
    }
}

/// Where a package comes from.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Provenance {
    /// What was opened: a folder, a zip, or the name of a zip in memory.
    pub source: PathBuf,
    /// Its form.
    pub kind: PackageKind,
    /// SHA-256 of the zip, or of a saved annotator's files (names and their hashes), lower-case hexadecimal; `None` for
    /// a folder used in place.
    pub sha256: Option<String>,
    /// What Spark NLP wrote about it.
    pub spark: Option<SparkProvenance>,
}

/// What a saved annotator's metadata say of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SparkProvenance {
    /// The annotator's class.
    pub class: String,
    /// Its `uid`.
    pub uid: String,
    /// The version of Spark that saved it.
    pub spark_version: String,
    /// When it was saved, in milliseconds since 1970.
    pub timestamp: i64,
    /// The saved pipeline that it is a stage of.
    pub pipeline: Option<Pipeline>,
}

/// A saved Spark pipeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pipeline {
    /// Its `uid`.
    pub uid: String,
    /// The classes of its stages, in order.
    pub stages: Vec<String>,
}

/// What Spark NLP wrote about a converted package, beside its files.
pub(crate) const RECORD_FILE: &str = "spark_nlp.json";

/// The content of [`RECORD_FILE`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    #[serde(flatten)]
    pub provenance: SparkProvenance,
    #[serde(rename = "paramMap")]
    pub param_map: Map<String, Value>,
    #[serde(rename = "defaultParamMap")]
    pub default_param_map: Map<String, Value>,
    /// What is odd about the package.
    pub notes: Vec<String>,
}
