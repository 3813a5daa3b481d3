//! Spark NLP's catalogue of published models: JSON lines, and which line a name stands for.
//!
//! The rule is `ResourceDownloader`'s: ready to use, same name, same language or none on either side, versions
//! compatible; of those the latest. The engine is a preference, since a model may exist for one engine alone.

mod entry;
pub(crate) mod kept;

use serde::Serialize;

pub use entry::Entry;

use crate::Version;

/// Names shown when there is none.
const NEAREST: usize = 3;

/// The catalogue's lines that can be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Catalogue {
    /// In the file's order.
    pub entries: Vec<Entry>,
    /// Lines that hold something else; they are passed over.
    pub skipped_lines: usize,
}

/// What is looked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Query {
    /// The name.
    pub name: String,
    /// The language; any, if none is given.
    pub language: Option<String>,
    /// The Spark NLP that it has to suit; any, if none is given.
    pub lib_version: Option<Version>,
    /// The Spark that it has to suit; any, if none is given.
    pub spark_version: Option<Version>,
    /// The engine that is preferred.
    pub engine: Option<String>,
}

impl Catalogue {
    /// Reads JSON lines. Empty lines, lines that are not JSON or not of this form, and unknown fields are passed over.
    pub fn parse(bytes: &[u8]) -> Self {
        let mut catalogue = Self::default();
        for line in bytes.split(|b| *b == b'\n') {
            match Entry::parse(line) {
                _ if line.trim_ascii().is_empty() => {}
                Some(entry) => catalogue.entries.push(entry),
                None => catalogue.skipped_lines += 1,
            }
        }
        catalogue
    }

    /// The line that a name stands for.
    pub fn resolve(&self, query: &Query) -> Option<&Entry> {
        let fits: Vec<&Entry> = self.entries.iter().filter(|e| e.fits(query)).collect();
        let another_engine =
            |e: &Entry| e.engine.as_ref().is_some_and(|found| Some(found) != query.engine.as_ref());
        let latest = |entries: &mut dyn Iterator<Item = &&'_ Entry>| -> Option<i64> {
            entries.map(|e| e.time_ms).max()
        };
        let preferred = latest(&mut fits.iter().filter(|e| query.engine.is_none() || !another_engine(e)));
        let time = preferred.or_else(|| latest(&mut fits.iter()))?;
        // Of equal times the last line, as a stable sort has it.
        let wanted = |e: &&&Entry| {
            e.time_ms == time && (preferred.is_none() || query.engine.is_none() || !another_engine(e))
        };
        fits.iter().rev().find(wanted).copied()
    }

    /// Names in the catalogue that look most like `name`.
    pub fn nearest(&self, name: &str) -> Vec<String> {
        let mut names: Vec<&str> = self.entries.iter().map(|e| e.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        let mut ranked: Vec<(f64, &str)> =
            names.iter().map(|n| (strsim::jaro_winkler(name, n), *n)).collect();
        ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
        ranked.iter().take(NEAREST).filter(|(score, _)| *score > 0.7).map(|(_, n)| (*n).to_owned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(name: &str, language: &str, lib: &str, time: &str, rest: &str) -> String {
        let parts = lib.replace('.', ",");
        format!(
            "{{\"name\":\"{name}\",\"language\":\"{language}\",\"libVersion\":{{\"parts\":[{parts}]}},\
             \"sparkVersion\":{{\"parts\":[3,0]}},\"readyToUse\":true,\"time\":\"{time}\",\"isZipped\":true,\
             \"category\":\"ml\",\"checksum\":\"\"{rest}}}"
        )
    }

    fn catalogue() -> Catalogue {
        let qwen = "qwen2_vl_2b_instruct_int4";
        let lines = [
            line(qwen, "en", "5.5.1", "2025-02-14T01:10:09.030Z", ",\"annotator\":\"Qwen2VLTransformer\""),
            line(qwen, "en", "5.5.1", "2025-03-14T01:10:09.030Z", ",\"engine\":\"onnx\""),
            line(qwen, "xx", "6.0.0", "2025-04-14T01:10:09.030Z", ",\"engine\":\"openvino\""),
            line("bert_base", "en", "3.0.0", "2021-01-01T00:00:00.000Z", ""),
            line("onnx_only", "en", "5.0.0", "2024-01-01T00:00:00.000Z", ",\"engine\":\"onnx\""),
            line("onnx_only", "en", "5.0.0", "2024-02-01T00:00:00.000Z", ",\"engine\":\"onnx\""),
            line("unready", "en", "5.0.0", "2024-01-01T00:00:00.000Z", "")
                .replace(":true,\"time", ":false,\"time"),
            String::new(),
            "not json".to_owned(),
            "{\"name\":5}".to_owned(),
        ];
        Catalogue::parse(lines.join("\n").as_bytes())
    }

    #[test]
    fn bad_lines_are_passed_over() {
        let catalogue = catalogue();
        assert_eq!((catalogue.entries.len(), catalogue.skipped_lines), (7, 2));
    }

    #[test]
    fn a_name_stands_for_the_latest_that_fits() {
        let found = |name: &str, language: Option<&str>, lib: Option<&str>, engine: Option<&str>| {
            let query = Query {
                name: name.to_owned(),
                language: language.map(str::to_owned),
                lib_version: lib.map(|v| v.parse().expect("a version")),
                spark_version: None,
                engine: engine.map(str::to_owned),
            };
            catalogue().resolve(&query).map(Entry::file_name)
        };
        let qwen = "qwen2_vl_2b_instruct_int4";
        let first = "qwen2_vl_2b_instruct_int4_en_5.5.1_3.0_1739495409030.zip";
        let onnx = "qwen2_vl_2b_instruct_int4_en_5.5.1_3.0_1741914609030.zip";
        let newest = "qwen2_vl_2b_instruct_int4_xx_6.0.0_3.0_1744593009030.zip";
        let later_onnx_only = "onnx_only_en_5.0.0_3.0_1706745600000.zip";
        let ov = Some("openvino");
        let cases = [
            (qwen, Some("en"), None, ov, Some(first)),
            (qwen, Some("en"), None, None, Some(onnx)),
            (qwen, Some("en"), None, Some("onnx"), Some(onnx)),
            (qwen, None, None, ov, Some(newest)),
            (qwen, None, Some("5.5.3"), ov, Some(first)),
            (qwen, None, Some("5.5"), ov, None),
            (qwen, Some("de"), None, ov, None),
            ("onnx_only", None, None, ov, Some(later_onnx_only)),
            ("unready", None, None, None, None),
            ("qwen2_vl", None, None, None, None),
        ];
        for (name, language, lib, engine, want) in cases {
            let got = found(name, language, lib, engine);
            assert_eq!(got.as_deref(), want, "{name} {language:?} {lib:?} {engine:?}");
        }
    }

    #[test]
    fn near_names_are_named() {
        assert_eq!(catalogue().nearest("qwen2_vl_2b_instruct"), ["qwen2_vl_2b_instruct_int4"]);
        assert!(catalogue().nearest("%%%").is_empty());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let catalogue = Catalogue::parse(&bytes);
            let _ = catalogue.resolve(&Query::default());
        }

        #[test]
        fn spoilt_lines_do_not_spoil_others(at in 0usize..200, with in any::<u8>()) {
            let good = line("a", "en", "5.5.1", "2025-02-14T01:10:09.030Z", "");
            let mut bad = good.clone().into_bytes();
            let at = at % bad.len();
            bad[at] = with;
            let text = [good.as_bytes(), b"\n", &bad, b"\n", good.as_bytes()].concat();
            let query = Query { name: "a".to_owned(), ..Query::default() };
            prop_assert!(Catalogue::parse(&text).resolve(&query).is_some());
        }
    }
}
