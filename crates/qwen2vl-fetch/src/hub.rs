//! An OpenVINO export from a repository on the hub, into the cache that the hub's Python library has as well.
//!
//! Names and places in that cache come from the `hf-hub` crate, the bytes do not: its 0.5 goes on with a file without
//! looking at the answer's status, range or version, compares no length or hash at the end, and waits for a silent server
//! without end; its 1.0 brings an asynchronous runtime and a second HTTP stack.
//!
//! Every file is checked: large ones by the SHA-256 that the hub lists, others by git's id. A file gets its place in
//! the snapshot only then, and the branch points to the snapshot only when it is whole.

use std::path::{Path, PathBuf};

use hf_hub::{Cache, CacheRepo, Repo, RepoType};
use serde::Deserialize;

use crate::cache;
use crate::fetched::folder_bytes;
use crate::http::{Again, Client, Failure};
use crate::progress::{Progress, Tell};
use crate::transfer::{self, Transfer};
use crate::{
    Error, FetchOptions, Fetched, HubRepository, Manual, Source, Trouble, completeness, digest, published,
};

/// A file that every export has.
const LANGUAGE_MODEL: &str = "openvino_language_model.xml";
/// Models of the export that this project has no use for: it has its own tokenizer.
const UNUSED: &[&str] = &["openvino_tokenizer", "openvino_detokenizer"];
/// A list of a repository's files.
const LIST_LIMIT_BYTES: u64 = 32 << 20;
/// What an export is made of, apart from weights in other formats.
const EXTENSIONS: &[&str] = &["json", "txt", "jinja"];

/// What the hub says about a repository.
#[derive(Debug, Deserialize)]
struct Listing {
    /// The commit.
    sha: String,
    siblings: Vec<RemoteFile>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RemoteFile {
    #[serde(rename = "rfilename")]
    name: String,
    size: Option<u64>,
    blob_id: Option<String>,
    lfs: Option<Lfs>,
}

#[derive(Debug, Clone, Deserialize)]
struct Lfs {
    sha256: String,
    size: u64,
}

impl RemoteFile {
    /// The name in the cache, which is also the checksum: SHA-256 of large files, git's id of others.
    fn blob(&self) -> Option<&str> {
        let blob = self.lfs.as_ref().map(|lfs| lfs.sha256.as_str()).or(self.blob_id.as_deref())?;
        (matches!(blob.len(), 40 | 64) && blob.bytes().all(|b| b.is_ascii_hexdigit())).then_some(blob)
    }

    fn bytes(&self) -> Option<u64> {
        self.lfs.as_ref().map(|lfs| lfs.size).or(self.size)
    }

    /// Whether it is a part of an export at the top of the repository.
    fn is_wanted(&self) -> bool {
        let name = self.name.as_str();
        let (stem, extension) = name.rsplit_once('.').unwrap_or((name, ""));
        let ir = name.starts_with("openvino_") && matches!(extension, "xml" | "bin");
        let text = EXTENSIONS.contains(&extension)
            && !stem.ends_with(".safetensors.index")
            && !stem.ends_with(".safetensors");
        published::is_name(name) && (ir || text) && !UNUSED.iter().any(|unused| name.starts_with(unused))
    }
}

/// The places of a repository in the cache: `blobs/<hash>`, `snapshots/<commit>/<file>`, `refs/<revision>`.
struct Place {
    cache: CacheRepo,
    root: PathBuf,
    reference: PathBuf,
    revision: String,
}

impl Place {
    fn new(hub_cache: &Path, repository: &HubRepository) -> Self {
        let revision = repository.revision().to_owned();
        let repo = Repo::with_revision(repository.id.clone(), RepoType::Model, revision.clone());
        let root = hub_cache.join(repo.folder_name());
        let cache = Cache::new(hub_cache.to_owned()).repo(repo);
        Self { cache, reference: root.join("refs").join(&revision), root, revision }
    }

    fn snapshot(&self, commit: &str) -> PathBuf {
        self.cache.pointer_path(commit)
    }

    /// The snapshot of the revision, if it is there and whole.
    fn whole(&self) -> Option<PathBuf> {
        let commit = std::fs::read_to_string(&self.reference).unwrap_or_else(|_| self.revision.clone());
        let snapshot = published::is_name(commit.trim()).then(|| self.snapshot(commit.trim()))?;
        let configured = ["config.json", "tokenizer.json"].iter().all(|name| snapshot.join(name).is_file());
        (configured && completeness::missing(&snapshot).is_empty()).then_some(snapshot)
    }
}

/// The snapshot of a repository that is in the cache.
pub(crate) fn cached(hub_cache: &Path, repository: &HubRepository) -> Option<PathBuf> {
    Place::new(hub_cache, repository).whole()
}

/// Fetches a repository's export, or finds it in the cache.
pub(crate) fn fetch(
    client: &Client,
    options: &FetchOptions,
    repository: &HubRepository,
    tell: Tell<'_>,
) -> Result<Fetched, Error> {
    let place = Place::new(&options.hub_cache, repository);
    if let Some(snapshot) = place.whole() {
        return Ok(fetched(repository, options, snapshot, None));
    }
    let manual =
        Manual::folder(&format!("{}/{}/tree/{}", options.hub_endpoint, repository.id, repository.revision()));
    if client.is_offline() {
        let (wanted, cache) = (repository.to_string(), options.hub_cache.clone());
        return Err(Error::NotCached { wanted, cache, manual });
    }
    std::fs::create_dir_all(&place.root).map_err(|e| cache::io_error(&place.root, e))?;
    let _lock = cache::lock(&place.root.join(".qwen2vl.lock"), tell)?;
    if let Some(snapshot) = place.whole() {
        return Ok(fetched(repository, options, snapshot, None));
    }
    let listing = list(client, options, repository, &manual, tell)?;
    let wanted: Vec<&RemoteFile> = listing.siblings.iter().filter(|f| f.is_wanted()).collect();
    if !wanted.iter().any(|f| f.name == LANGUAGE_MODEL) {
        return Err(Error::NoExport { repository: repository.id.clone(), expected: LANGUAGE_MODEL });
    }
    let snapshot = place.snapshot(&listing.sha);
    let mut total = transfer::Done { bytes: 0, resumed_from_bytes: 0 };
    for file in wanted {
        let done =
            Download { client, options, repository, place: &place, commit: &listing.sha, manual: &manual }
                .get(file, tell)?;
        total.bytes += done.bytes;
        total.resumed_from_bytes += done.resumed_from_bytes;
    }
    let missing = completeness::missing(&snapshot);
    if !missing.is_empty() {
        return Err(Error::NotAModel { path: snapshot, missing, manual });
    }
    let referred = cache::write_whole(&place.reference, listing.sha.as_bytes());
    referred.map_err(|e| cache::io_error(&place.reference, e))?;
    Ok(fetched(repository, options, snapshot, Some(total)))
}

fn fetched(
    repository: &HubRepository,
    options: &FetchOptions,
    snapshot: PathBuf,
    done: Option<transfer::Done>,
) -> Fetched {
    Fetched {
        bytes: folder_bytes(&snapshot),
        path: snapshot,
        name: repository.id.clone(),
        source: Source::Hub,
        origin: Some(format!("{}/{}", options.hub_endpoint, repository.id)),
        already_there: done.is_none(),
        downloaded_bytes: done.map(|d| d.bytes),
        resumed_from_bytes: done.map_or(0, |d| d.resumed_from_bytes),
        sha256: None,
        sha256_checked: false,
        md5_checked: false,
    }
}

fn authorization(options: &FetchOptions) -> Vec<(&'static str, String)> {
    options.hub_token.iter().map(|token| ("Authorization", format!("Bearer {token}"))).collect()
}

fn list(
    client: &Client,
    options: &FetchOptions,
    repository: &HubRepository,
    manual: &Manual,
    tell: Tell<'_>,
) -> Result<Listing, Error> {
    let revision = repository.revision().replace('/', "%2F");
    let url = format!("{}/api/models/{}/revision/{revision}?blobs=true", options.hub_endpoint, repository.id);
    let mut patience = client.patience();
    loop {
        let failure = match ask(client, &url, options) {
            Ok(listing) => return Ok(listing),
            Err(failure) => failure,
        };
        patience.wait(failure, tell).map_err(|trouble| Error::Hub {
            repository: repository.to_string(),
            trouble,
            manual: manual.clone(),
        })?;
    }
}

fn ask(client: &Client, url: &str, options: &FetchOptions) -> Result<Listing, Failure> {
    let mut body = client.get(url, &authorization(options))?.into_body();
    let text = body.with_config().limit(LIST_LIMIT_BYTES).read_to_vec();
    let text =
        text.map_err(|e| Failure { trouble: client.trouble_in_body(e, 0, None), again: Again::Yes })?;
    let nonsense = |what: String| Failure { trouble: Trouble::Nonsense { what }, again: Again::No };
    let listing: Listing =
        serde_json::from_slice(&text).map_err(|e| nonsense(format!("no list of files: {e}")))?;
    if !published::is_name(&listing.sha) {
        return Err(nonsense(format!("{:?} is no commit", listing.sha)));
    }
    Ok(listing)
}

/// One file of a repository.
struct Download<'a> {
    client: &'a Client,
    options: &'a FetchOptions,
    repository: &'a HubRepository,
    place: &'a Place,
    commit: &'a str,
    manual: &'a Manual,
}

impl Download<'_> {
    fn get(&self, file: &RemoteFile, tell: Tell<'_>) -> Result<transfer::Done, Error> {
        let Some(blob) = file.blob() else {
            let trouble = Trouble::Nonsense { what: format!("no hash of {}", file.name) };
            let (repository, manual) = (self.repository.to_string(), self.manual.clone());
            return Err(Error::Hub { repository, trouble, manual });
        };
        let blobs = self.place.root.join("blobs");
        std::fs::create_dir_all(&blobs).map_err(|e| cache::io_error(&blobs, e))?;
        let path = blobs.join(blob);
        let mut done = transfer::Done { bytes: 0, resumed_from_bytes: 0 };
        let there = std::fs::metadata(&path).ok().map(|m| m.len());
        if there.is_none() || (file.bytes().is_some() && there != file.bytes()) {
            done = self.download(file, blob, &path, tell)?;
        }
        let pointer = self.place.snapshot(self.commit).join(&file.name);
        point(&path, &Path::new("../../blobs").join(blob), &pointer)
            .map_err(|e| cache::io_error(&pointer, e))?;
        Ok(done)
    }

    fn download(
        &self,
        file: &RemoteFile,
        blob: &str,
        path: &Path,
        tell: Tell<'_>,
    ) -> Result<transfer::Done, Error> {
        let url = format!(
            "{}/{}/resolve/{}/{}",
            self.options.hub_endpoint, self.repository.id, self.commit, file.name
        );
        let partial = path.with_file_name(format!("{blob}.qwen2vl.partial"));
        let transfer = Transfer {
            url: &url,
            headers: authorization(self.options),
            partial: &partial,
            label: &file.name,
            expected_bytes: file.bytes(),
            unpacked_beside: false,
            manual: self.manual.clone(),
        };
        let mut tried_anew = false;
        loop {
            let done = transfer::download(self.client, &transfer, tell)?;
            tell(Progress::Checking);
            let failed = |e| cache::io_error(&partial, e);
            let (kind, found) = match &file.lfs {
                Some(_) => ("SHA-256", digest::sums(&partial, false).map_err(failed)?.sha256),
                None => ("git id", digest::git_blob(&partial).map_err(failed)?),
            };
            if found.eq_ignore_ascii_case(blob) {
                std::fs::rename(&partial, path).map_err(failed)?;
                transfer::discard(&partial);
                return Ok(done);
            }
            transfer::discard(&partial);
            let manual = self.manual.clone();
            let error =
                Error::Mismatch { path: url.clone().into(), kind, expected: blob.to_owned(), found, manual };
            if done.resumed_from_bytes == 0 || tried_anew {
                return Err(error);
            }
            tried_anew = true;
            tell(Progress::Note(format!("{error}: starting over")));
        }
    }
}

/// Puts a file into a snapshot: a link as the Python library makes it, a hard link or copy where there are none.
fn point(blob: &Path, relative: &Path, pointer: &Path) -> std::io::Result<()> {
    if pointer.exists() {
        return Ok(());
    }
    if let Some(folder) = pointer.parent() {
        std::fs::create_dir_all(folder)?;
    }
    // A link to a blob that is gone.
    std::fs::remove_file(pointer).ok();
    link(relative, pointer)
        .or_else(|_| std::fs::hard_link(blob, pointer))
        .or_else(|_| std::fs::copy(blob, pointer).map(|_| ()))
}

#[cfg(unix)]
fn link(to: &Path, at: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(to, at)
}

#[cfg(windows)]
fn link(to: &Path, at: &Path) -> std::io::Result<()> {
    std::os::windows::fs::symlink_file(to, at)
}

#[cfg(not(any(unix, windows)))]
fn link(_: &Path, _: &Path) -> std::io::Result<()> {
    Err(std::io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_exports_own_files_are_wanted() {
        let wanted = |name: &str| {
            RemoteFile { name: name.to_owned(), size: None, blob_id: None, lfs: None }.is_wanted()
        };
        for name in [
            LANGUAGE_MODEL,
            "openvino_language_model.bin",
            "openvino_vision_embeddings_merger_model.xml",
            "config.json",
            "tokenizer.json",
            "chat_template.jinja",
            "merges.txt",
        ] {
            assert!(wanted(name), "{name}");
        }
        for name in [
            "model.safetensors",
            "model.safetensors.index.json",
            "pytorch_model.bin",
            "openvino_tokenizer.xml",
            "openvino_detokenizer.bin",
            "README.md",
            ".gitattributes",
            "onnx/config.json",
            "../config.json",
            "..\\config.json",
        ] {
            assert!(!wanted(name), "{name}");
        }
    }
}
