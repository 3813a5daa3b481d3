//! What a user may name a model by.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::published::{PublishedName, is_language, is_name};
use crate::{Error, digest};

/// A model's name as a user gives it, told apart by its form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    /// The address of a zip.
    Url(String),
    /// A repository on the hub.
    Hub(HubRepository),
    /// A zip or folder that lies here.
    Path(PathBuf),
    /// A name to look up in the catalogue.
    Name(ModelName),
    /// The full name of a published file, for which no catalogue is needed.
    Published(PublishedName),
}

/// A name in the catalogue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelName {
    /// For example `qwen2_vl_2b_instruct_int4`.
    pub name: String,
    /// What came after the `@`.
    pub language: Option<String>,
}

/// A repository on the hub, at a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubRepository {
    /// `OWNER/NAME`.
    pub id: String,
    /// A branch, tag or commit; `main` if none is given.
    pub revision: Option<String>,
}

impl Reference {
    /// Tells what `text` names: an http(s) address; `hf:OWNER/REPO[@REVISION]`; a path that exists; `OWNER/REPO`; a
    /// full published file name; a name in the catalogue, `NAME[@LANG]`. The first that fits is taken.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchFile`] for what can only be a path, [`Error::BadReference`] for what can be nothing.
    pub fn parse(text: &str) -> Result<Self, Error> {
        if is_url(text) {
            return Ok(Self::Url(text.to_owned()));
        }
        if let Some(repository) = text.strip_prefix("hf:") {
            return HubRepository::parse(repository).map(Self::Hub).ok_or_else(|| {
                bad(text, "is no repository; expected hf:OWNER/REPO or hf:OWNER/REPO@REVISION")
            });
        }
        let path = Path::new(text);
        if path.exists() {
            return Ok(Self::Path(path.to_owned()));
        }
        if let Some(repository) = HubRepository::parse(text).filter(|_| !text.ends_with(".zip")) {
            return Ok(Self::Hub(repository));
        }
        if let Some(published) = PublishedName::parse(text) {
            return Ok(Self::Published(published));
        }
        let looks_like_a_path = text.contains(['/', '\\']) || text.ends_with(".zip") || text.starts_with('.');
        if looks_like_a_path {
            return Err(Error::NoSuchFile { path: path.to_owned() });
        }
        ModelName::parse(text).map(Self::Name).ok_or_else(|| {
            bad(text, "names no model; expected a name, a URL, OWNER/REPO, or the path of a zip or folder")
        })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(url) => f.write_str(url),
            Self::Hub(repository) => write!(f, "hf:{repository}"),
            Self::Path(path) => path.display().fmt(f),
            Self::Name(name) => name.fmt(f),
            Self::Published(name) => name.fmt(f),
        }
    }
}

impl ModelName {
    fn parse(text: &str) -> Option<Self> {
        let (name, language) = match text.split_once('@') {
            Some((name, language)) => (name, Some(language)),
            None => (text, None),
        };
        let fits = is_name(name) && language.is_none_or(is_language);
        fits.then(|| Self { name: name.to_owned(), language: language.map(str::to_owned) })
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.language {
            Some(language) => write!(f, "{}@{language}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

impl HubRepository {
    fn parse(text: &str) -> Option<Self> {
        let (id, revision) = match text.split_once('@') {
            Some((id, revision)) => (id, Some(revision)),
            None => (text, None),
        };
        let (owner, name) = id.split_once('/')?;
        let fits = is_name(owner) && is_name(name) && revision.is_none_or(is_revision);
        fits.then(|| Self { id: id.to_owned(), revision: revision.map(str::to_owned) })
    }

    /// The revision to ask for.
    pub fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or("main")
    }
}

impl fmt::Display for HubRepository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.revision {
            Some(revision) => write!(f, "{}@{revision}", self.id),
            None => f.write_str(&self.id),
        }
    }
}

/// Branches may hold slashes (`refs/pr/1`), but nothing that leads out of a folder.
fn is_revision(text: &str) -> bool {
    text.len() <= 200 && text.split('/').all(is_name)
}

fn is_url(text: &str) -> bool {
    let scheme = |scheme: &str| text.get(..scheme.len()).is_some_and(|s| s.eq_ignore_ascii_case(scheme));
    scheme("http://") || scheme("https://")
}

fn bad(given: &str, problem: &str) -> Error {
    Error::BadReference { given: given.to_owned(), problem: problem.to_owned() }
}

/// The folder in the cache for a zip from `url`, and so its file: the published name, which is Spark NLP's; any other
/// file's name with a digest of the address, since many servers have a `model.zip`.
pub(crate) fn folder_for_url(url: &str) -> String {
    let path = url.split(['?', '#']).next().unwrap_or(url);
    let file =
        path.split_once("://").map_or(path, |(_, rest)| rest).rsplit_once('/').map_or("", |(_, file)| file);
    match PublishedName::parse(file) {
        Some(published) => published.to_string(),
        None => keyed(file, url.as_bytes()),
    }
}

/// The folder in the cache for a zip that lies elsewhere; `sha256` is its content's.
pub(crate) fn folder_for_file(path: &Path, sha256: &str) -> String {
    let file = path.file_name().map(|f| f.to_string_lossy().into_owned()).unwrap_or_default();
    match PublishedName::parse(&file) {
        Some(published) => published.to_string(),
        None => keyed(&file, sha256.as_bytes()),
    }
}

fn keyed(file: &str, key: &[u8]) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '_' };
    let stem: String = file.strip_suffix(".zip").unwrap_or(file).chars().map(safe).take(80).collect();
    let stem = stem.trim_start_matches(['.', '-']);
    let digits = digest::short(key);
    if stem.is_empty() { format!("model-{digits}") } else { format!("{stem}-{digits}") }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FULL: &str = "qwen2_vl_2b_instruct_int4_en_5.5.1_3.0_1739495409030";

    #[test]
    fn each_form_is_told_by_its_looks() {
        let kind = |text: &str| match Reference::parse(text) {
            Ok(Reference::Url(_)) => "url",
            Ok(Reference::Hub(_)) => "hub",
            Ok(Reference::Path(_)) => "path",
            Ok(Reference::Name(_)) => "name",
            Ok(Reference::Published(_)) => "published",
            Err(Error::NoSuchFile { .. }) => "no file",
            Err(_) => "bad",
        };
        let cases = [
            ("https://example.org/a.zip", "url"),
            ("HTTP://example.org/a.zip", "url"),
            ("hf:Org/repo", "hub"),
            ("hf:Org/repo@refs/pr/1", "hub"),
            ("Org/repo", "hub"),
            ("Org/repo@v1.0", "hub"),
            ("hf:repo", "bad"),
            ("hf:Org/../x", "bad"),
            ("hf:Org/repo@../x", "bad"),
            ("src", "path"),
            ("./src/lib.rs", "path"),
            ("qwen2_vl_2b_instruct_int4", "name"),
            ("qwen2_vl_2b_instruct_int4@en", "name"),
            ("qwen2_vl_2b_instruct_int4@English", "bad"),
            (FULL, "published"),
            ("missing.zip", "no file"),
            ("./missing", "no file"),
            ("a/b/c", "no file"),
            ("downloads/missing.zip", "no file"),
            ("", "bad"),
            ("two words", "bad"),
        ];
        for (text, want) in cases {
            assert_eq!(kind(text), want, "{text}");
        }
        assert_eq!(kind(&format!("{FULL}.zip")), "published");
    }

    #[test]
    fn folders_are_published_names_or_keyed_ones() {
        assert_eq!(folder_for_url(&format!("https://mirror.example/x/{FULL}.zip?sig=a/b")), FULL);
        let [a, b] = ["a", "b"].map(|host| folder_for_url(&format!("https://{host}.example/model.zip")));
        assert!(a.starts_with("model-") && b.starts_with("model-") && a != b, "{a} {b}");
        assert!(folder_for_url("https://host.example").starts_with("model-"));
        assert!(folder_for_url("https://host.example/..%2f..%2fetc.zip").starts_with("_2f.._2fetc-"));
        assert_eq!(folder_for_file(Path::new(&format!("/x/{FULL}.zip")), "00"), FULL);
        assert_ne!(
            folder_for_file(Path::new("demo.zip"), "00"),
            folder_for_file(Path::new("demo.zip"), "01")
        );
    }

    proptest! {
        #[test]
        fn any_text_is_told_without_panic_and_folders_stay_in_the_cache(text in "\\PC{0,60}") {
            let _ = Reference::parse(&text);
            let folder = folder_for_url(&text);
            prop_assert!(is_name(&folder), "{}", folder);
        }

        #[test]
        fn what_is_shown_is_read_back(name in "[a-z][a-z0-9_]{20,30}", language in prop::option::of("[a-z]{2,3}")) {
            let name = Reference::Name(ModelName { name, language });
            prop_assert_eq!(Reference::parse(&name.to_string()).ok(), Some(name));
        }
    }
}
