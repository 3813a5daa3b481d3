//! The metadata that every Spark ML writer saves: one JSON object, in `metadata/part-00000`.
//!
//! Knows the frame (class, uid, parameters), not what any class's parameters mean. Follows `DefaultParamsWriter` of
//! Spark 3.5; `defaultParamMap` is missing in files from before Spark 2.4.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{Error, Reason};

/// Metadata are a few KiB; a tree of JSON takes some thirty times its text.
const MAX_BYTES: usize = 4 << 20;

/// What a saved stage or model says about itself.
///
/// ```
/// use qwen2vl_spark_files::ml_metadata::Metadata;
///
/// let metadata = Metadata::parse(
///     br#"{"class":"org.example.Stage","timestamp":1,"sparkVersion":"3.5.9","uid":"Stage_1",
///          "paramMap":{"size":224},"defaultParamMap":{"size":448,"engine":"openvino"}}"#,
/// )?;
/// assert_eq!(metadata.param("size"), Some((&224.into(), true)));
/// assert_eq!(metadata.param("engine"), Some((&"openvino".into(), false)));
/// assert_eq!(metadata.param("other"), None);
/// # Ok::<(), qwen2vl_spark_files::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Metadata {
    /// The JVM class that wrote it.
    pub class: String,
    /// When it was written, in milliseconds since 1970.
    pub timestamp: i64,
    /// The version of Spark.
    pub spark_version: String,
    /// The stage's name, unique in its pipeline.
    pub uid: String,
    /// Parameters that were set.
    #[serde(default)]
    pub param_map: Map<String, Value>,
    /// Defaults of the writer's version.
    #[serde(default)]
    pub default_param_map: Map<String, Value>,
}

impl Metadata {
    /// Parses the file's content.
    ///
    /// # Errors
    ///
    /// If it is larger than any metadata (4 MiB), not one JSON object, or lacks a field that every version of Spark
    /// writes. The offset is where the parser stopped.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        if bytes.len() > MAX_BYTES {
            let (found, limit) = (bytes.len() as u64, MAX_BYTES as u64);
            return Err(Error::new(0, Reason::Limit { what: "bytes of Spark ML metadata", found, limit }));
        }
        serde_json::from_slice(bytes).map_err(|source| {
            let offset = offset(bytes, source.line(), source.column());
            Error::new(offset, Reason::Json { what: "Spark ML metadata", source })
        })
    }

    /// A parameter: the value that was set, or else the default; and whether it was set.
    pub fn param(&self, name: &str) -> Option<(&Value, bool)> {
        let set = self.param_map.get(name).map(|value| (value, true));
        set.or_else(|| self.default_param_map.get(name).map(|value| (value, false)))
    }
}

/// The offset of a line and column, which count from 1, the latter in bytes.
fn offset(bytes: &[u8], line: usize, column: usize) -> u64 {
    let lines = bytes.split_inclusive(|byte| *byte == b'\n');
    let start: usize = lines.take(line.saturating_sub(1)).map(<[u8]>::len).sum();
    (start + column.saturating_sub(1)).min(bytes.len()) as u64
}
