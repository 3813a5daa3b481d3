//! One line of the catalogue.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Query;
use crate::Version;
use crate::published::is_name;

/// A published model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// What users call it.
    pub name: String,
    /// Absent for what has none.
    pub language: Option<String>,
    /// The oldest Spark NLP that it is made for.
    pub lib_version: Option<Version>,
    /// The oldest Spark that it is made for.
    pub spark_version: Option<Version>,
    /// Whether it may be used.
    pub ready_to_use: bool,
    /// When it was published: milliseconds since 1970.
    pub time_ms: i64,
    /// Whether the file is a zip.
    pub is_zipped: bool,
    /// The file's MD5, in lower case.
    pub md5: Option<String>,
    /// The Spark NLP class.
    pub annotator: Option<String>,
    /// `openvino`, `onnx`, `tensorflow`; absent in older catalogues, and if it is `unk`.
    pub engine: Option<String>,
}

/// As it is written.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    name: String,
    language: Option<String>,
    lib_version: Option<Parts>,
    spark_version: Option<Parts>,
    #[serde(default)]
    ready_to_use: bool,
    time: String,
    #[serde(default = "yes")]
    is_zipped: bool,
    checksum: Option<String>,
    annotator: Option<String>,
    engine: Option<String>,
}

#[derive(Deserialize)]
struct Parts {
    parts: Vec<u32>,
}

fn yes() -> bool {
    true
}

impl Entry {
    /// Reads a line; `None` for what is of another form, or has a name or language that no file can have.
    pub(super) fn parse(line: &[u8]) -> Option<Self> {
        let line: Line = serde_json::from_slice(line).ok()?;
        let filled = |text: Option<String>| text.filter(|t| !t.trim().is_empty());
        let language = filled(line.language);
        let fits = is_name(&line.name) && language.as_deref().is_none_or(is_name);
        let time: Timestamp = line.time.parse().ok()?;
        let version = |parts: Option<Parts>| parts.and_then(|p| Version::new(p.parts));
        fits.then(|| Self {
            name: line.name,
            language,
            lib_version: version(line.lib_version),
            spark_version: version(line.spark_version),
            ready_to_use: line.ready_to_use,
            time_ms: time.as_millisecond(),
            is_zipped: line.is_zipped,
            md5: filled(line.checksum).map(|c| c.trim().to_ascii_lowercase()),
            annotator: filled(line.annotator),
            engine: filled(line.engine).filter(|e| e != "unk"),
        })
    }

    pub(super) fn fits(&self, query: &Query) -> bool {
        let same_or_absent = |ours: &Option<String>, found: &Option<String>| {
            ours.is_none() || found.is_none() || ours == found
        };
        let compatible = |ours: &Option<Version>, found: &Option<Version>| match (ours, found) {
            (Some(ours), Some(found)) => ours.accepts(found),
            _ => true,
        };
        self.ready_to_use
            && self.name == query.name
            && same_or_absent(&query.language, &self.language)
            && compatible(&query.lib_version, &self.lib_version)
            && compatible(&query.spark_version, &self.spark_version)
    }

    /// The name of its folder in the cache: the name alone if it has neither language nor versions.
    pub fn key(&self) -> String {
        let versions = [&self.lib_version, &self.spark_version].map(|v| v.as_ref().map(ToString::to_string));
        let [lib, spark] = versions;
        if self.language.is_none() && lib.is_none() && spark.is_none() {
            return self.name.clone();
        }
        let parts =
            [Some(self.name.clone()), self.language.clone(), lib, spark, Some(self.time_ms.to_string())];
        parts.into_iter().flatten().collect::<Vec<_>>().join("_")
    }

    /// The name of its file.
    pub fn file_name(&self) -> String {
        if self.is_zipped { format!("{}.zip", self.key()) } else { self.key() }
    }

    /// Whether it is a Qwen2-VL.
    pub fn is_qwen2_vl(&self) -> bool {
        self.annotator.as_deref() == Some("Qwen2VLTransformer") || self.name.contains("qwen2_vl")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PublishedName;

    #[test]
    fn file_names_are_spark_nlps() {
        let entry = |text: &str| Entry::parse(text.as_bytes()).map(|e| e.file_name());
        let full = "{\"name\":\"a_b\",\"language\":\"en\",\"libVersion\":{\"parts\":[5,5,1]},\
                    \"sparkVersion\":{\"parts\":[3,0]},\"time\":\"2025-02-14T01:10:09.030Z\",\"isZipped\":true}";
        assert_eq!(entry(full).as_deref(), Some("a_b_en_5.5.1_3.0_1739495409030.zip"));
        assert!(PublishedName::parse("a_b_en_5.5.1_3.0_1739495409030.zip").is_some());
        let bare = "{\"name\":\"a_b\",\"time\":\"2025-02-14T01:10:09.030Z\",\"isZipped\":true}";
        assert_eq!(entry(bare).as_deref(), Some("a_b.zip"));
        let folder = bare.replace("true", "false").replace("\"time\"", "\"language\":\"en\",\"time\"");
        assert_eq!(entry(&folder).as_deref(), Some("a_b_en_1739495409030"));
        for bad in
            ["{\"name\":\"../a\",\"time\":\"2025-02-14T01:10:09.030Z\"}", "{\"name\":\"a\",\"time\":\"now\"}"]
        {
            assert_eq!(entry(bad), None, "{bad}");
        }
    }

    #[test]
    fn checksums_are_taken_in_either_case_and_empty_ones_are_none() {
        let entry = |sum: &str| {
            let text = format!("{{\"name\":\"a\",\"time\":\"2025-02-14T01:10:09Z\",\"checksum\":\"{sum}\"}}");
            Entry::parse(text.as_bytes()).and_then(|e| e.md5)
        };
        assert_eq!(entry("AB12").as_deref(), Some("ab12"));
        assert_eq!(entry(""), None);
    }
}
