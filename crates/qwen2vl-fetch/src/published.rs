//! Published file names and versions, as Spark NLP's `ResourceMetadata` and `Version` form and compare them.

use std::fmt;
use std::str::FromStr;

/// A version: numbers with dots between them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(into = "String")]
pub struct Version(Vec<u32>);

impl Version {
    /// A version of these parts; `None` if there are none.
    pub fn new(parts: Vec<u32>) -> Option<Self> {
        (!parts.is_empty()).then_some(Self(parts))
    }

    /// Whether a program of this version takes a resource made for `found`: equal up to the resource's last part, or
    /// larger at the first part that differs. A resource with more parts than the program's version is not taken,
    /// which is how Spark NLP's `Version.isCompatible` has it: 5.5 refuses 5.5.1.
    pub fn accepts(&self, found: &Self) -> bool {
        if found.0.len() > self.0.len() {
            return false;
        }
        let differing = self.0.iter().zip(&found.0).find(|(ours, theirs)| ours != theirs);
        differing.is_none_or(|(ours, theirs)| ours > theirs)
    }
}

impl FromStr for Version {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |part: &str| {
            let plain = part.bytes().all(|b| b.is_ascii_digit()) && (part == "0" || !part.starts_with('0'));
            plain.then(|| part.parse().ok()).flatten()
        };
        let parts: Option<Vec<u32>> = text.split('.').map(number).collect();
        parts
            .and_then(Self::new)
            .ok_or_else(|| format!("{text:?} is no version; expected numbers with dots, for example 5.5.1"))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, part) in self.0.iter().enumerate() {
            write!(f, "{}{part}", if i == 0 { "" } else { "." })?;
        }
        Ok(())
    }
}

impl From<Version> for String {
    fn from(version: Version) -> Self {
        version.to_string()
    }
}

/// The full name of a published model, for example `qwen2_vl_2b_instruct_int4_en_5.5.1_3.0_1739495409030`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PublishedName {
    /// What users call it, for example `qwen2_vl_2b_instruct_int4`.
    pub name: String,
    /// Two or three letters.
    pub language: String,
    /// The oldest Spark NLP that it is made for.
    pub lib_version: Version,
    /// The oldest Spark that it is made for.
    pub spark_version: Version,
    /// When it was published: milliseconds since 1970.
    pub time_ms: u64,
}

impl PublishedName {
    /// Reads a full name, with or without `.zip`. Names hold underscores themselves, so it is read from the right.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.strip_suffix(".zip").unwrap_or(text).rsplitn(5, '_');
        let time = parts.next().filter(|t| is_time(t))?;
        let spark_version = parts.next()?.parse().ok()?;
        let lib_version = parts.next()?.parse().ok()?;
        let language = parts.next().filter(|l| is_language(l))?.to_owned();
        let name = parts.next().filter(|n| is_name(n))?.to_owned();
        Some(Self { name, language, lib_version, spark_version, time_ms: time.parse().ok()? })
    }

    /// The file that holds it.
    pub fn file_name(&self) -> String {
        format!("{self}.zip")
    }
}

impl fmt::Display for PublishedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, language, lib_version, spark_version, time_ms } = self;
        write!(f, "{name}_{language}_{lib_version}_{spark_version}_{time_ms}")
    }
}

/// Thirteen digits since 2001; ten are enough to tell a time from a version.
fn is_time(text: &str) -> bool {
    (10..=16).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0')
}

/// Whether it looks like a language code.
pub(crate) fn is_language(text: &str) -> bool {
    (2..=3).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_lowercase())
}

/// Whether it can be the name of a model, and so of a folder.
pub(crate) fn is_name(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    !text.is_empty() && text.len() <= 200 && !text.starts_with(['.', '-']) && text.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn version(text: &str) -> Version {
        text.parse().expect(text)
    }

    #[test]
    fn versions_are_compared_as_spark_nlp_does() {
        let cases = [
            ("6.1.0", "5.5.1", true),
            ("5.5.1", "5.5.1", true),
            ("5.5.1", "5.5", true),
            ("5.5", "5.5.1", false),
            ("6", "5.5.1", false),
            ("5.5.1", "5.5.2", false),
            ("5.6.0", "5.5.9", true),
            ("5.4.9", "5.5.0", false),
            ("3.5", "3.0", true),
            ("3", "3", true),
            ("2.4", "3.0", false),
        ];
        for (ours, found, accepted) in cases {
            assert_eq!(version(ours).accepts(&version(found)), accepted, "{ours} {found}");
        }
    }

    #[test]
    fn a_full_name_is_read_from_the_right() {
        let text = "qwen2_vl_2b_instruct_int4_en_5.5.1_3.0_1739495409030";
        let name = PublishedName::parse(text).expect("a full name");
        assert_eq!((name.name.as_str(), name.language.as_str()), ("qwen2_vl_2b_instruct_int4", "en"));
        assert_eq!(
            (name.lib_version.to_string(), name.spark_version.to_string()),
            ("5.5.1".into(), "3.0".into())
        );
        assert_eq!(name.time_ms, 1_739_495_409_030);
        assert_eq!(name.file_name(), format!("{text}.zip"));
        assert_eq!(PublishedName::parse(&format!("{text}.zip")), Some(name));
        for bad in [
            "",
            "qwen2_vl_2b_instruct_int4",
            "qwen2_vl_2b_instruct_int4_en",
            "_en_5.5.1_3.0_1739495409030",
            "a_EN_5.5.1_3.0_1739495409030",
            "a_en_5.5.x_3.0_1739495409030",
            "a_en_5.5.1_3.0_17394",
            "a/b_en_5.5.1_3.0_1739495409030",
            "../a_en_5.5.1_3.0_1739495409030",
        ] {
            assert_eq!(PublishedName::parse(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in "\\PC{0,60}") {
            if let Some(name) = PublishedName::parse(&text) {
                prop_assert_eq!(name.to_string(), text.strip_suffix(".zip").unwrap_or(&text));
            }
            let _ = text.parse::<Version>();
        }

        #[test]
        fn names_go_round(
            name in "[a-z0-9][a-z0-9_.-]{0,30}", language in "[a-z]{2,3}",
            lib in prop::collection::vec(0u32..2000, 1..5), spark in prop::collection::vec(0u32..2000, 1..4),
            time_ms in 1_000_000_000u64..9_999_999_999_999_999,
        ) {
            let [lib_version, spark_version] = [lib, spark].map(|v| Version::new(v).expect("not empty"));
            let name = PublishedName { name, language, lib_version, spark_version, time_ms };
            prop_assert_eq!(PublishedName::parse(&name.file_name()), Some(name.clone()));
            prop_assert_eq!(PublishedName::parse(&name.to_string()), Some(name));
        }
    }
}
