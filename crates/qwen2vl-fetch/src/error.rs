//! What can go wrong on the way to a model, and what a person can do about it.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// Errors of fetching: each names what was asked for, what is wrong and the way on by hand.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A text that names no model.
    #[error("{given:?} {problem}")]
    BadReference {
        /// The text.
        given: String,
        /// What is wrong and what is expected.
        problem: String,
    },
    /// A path at which nothing lies.
    #[error("{} does not exist", path.display())]
    NoSuchFile {
        /// The path.
        path: PathBuf,
    },
    /// A checksum that cannot be one.
    #[error("{given:?} is no {kind}; expected {digits} hexadecimal digits")]
    BadChecksum {
        /// MD5 or SHA-256.
        kind: &'static str,
        /// The text.
        given: String,
        /// How many digits it has.
        digits: usize,
    },
    /// A checksum where there is no single file to compare it with.
    #[error("{what} cannot be compared with a checksum: {why}; leave --md5 and --sha256 out")]
    ChecksumUnusable {
        /// The folder or repository.
        what: String,
        /// Why not.
        why: &'static str,
    },
    /// A setting that is no address.
    #[error("{given:?}, {setting}, is no address; expected http:// or https://")]
    BadAddress {
        /// The text.
        given: String,
        /// Where it comes from.
        setting: &'static str,
    },
    /// The catalogue has no such model.
    #[error("the catalogue {catalogue} has no {wanted}{}; `qwen2vl model list --remote` lists its Qwen2-VL models",
        .nearest.first().map(|_| format!("; near it: {}", nearest.join(", "))).unwrap_or_default())]
    UnknownName {
        /// The name, language and versions asked for.
        wanted: String,
        /// Where the catalogue is.
        catalogue: String,
        /// Names in it that are nearest.
        nearest: Vec<String>,
    },
    /// Neither in the cache nor, as the network is not to be used, to be fetched.
    #[error("{wanted} is not in {} and the network is not to be used (--offline){manual}", cache.display())]
    NotCached {
        /// The model.
        wanted: String,
        /// The cache folder.
        cache: PathBuf,
        /// The way on.
        manual: Manual,
    },
    /// The catalogue cannot be had, and no copy of it was kept.
    #[error("the catalogue {url} cannot be read: {trouble}{manual}")]
    Catalogue {
        /// Its address.
        url: String,
        /// Why.
        trouble: Trouble,
        /// The way on.
        manual: Manual,
    },
    /// A download that failed, for good or after all retries.
    #[error("cannot download {url}: {trouble}{manual}")]
    Download {
        /// The address.
        url: String,
        /// Why.
        trouble: Trouble,
        /// The way on.
        manual: Manual,
    },
    /// A repository whose files cannot be listed.
    #[error("cannot list the hub's repository {repository}: {trouble}{manual}")]
    Hub {
        /// `OWNER/NAME`, with its revision.
        repository: String,
        /// Why.
        trouble: Trouble,
        /// The way on.
        manual: Manual,
    },
    /// A repository without OpenVINO models.
    #[error(
        "the hub's repository {repository} holds no OpenVINO export (no {expected}): make one by `optimum-cli export \
         openvino -m {repository} --task image-text-to-text --weight-format int4 --group-size 128 FOLDER` and use \
         that folder"
    )]
    NoExport {
        /// `OWNER/NAME`.
        repository: String,
        /// A file that every export has.
        expected: &'static str,
    },
    /// What arrived, or lies there, is not what the checksum says.
    #[error("{}: its {kind} is {found}, not {expected}{manual}", path.display())]
    Mismatch {
        /// The file.
        path: PathBuf,
        /// MD5, SHA-256 or git's id.
        kind: &'static str,
        /// What it should be.
        expected: String,
        /// What it is.
        found: String,
        /// The way on.
        manual: Manual,
    },
    /// A model that is there without the zip that the checksum is of.
    #[error(
        "{} is there already, but what its zip's {kind} was is not known: remove the folder to fetch it anew, or \
         leave the checksum out", path.display()
    )]
    Unverifiable {
        /// The folder.
        path: PathBuf,
        /// MD5 or SHA-256.
        kind: &'static str,
    },
    /// A file that is no zip.
    #[error("{} is no zip: it begins with {begins:?}{manual}", path.display())]
    NotAZip {
        /// The file, or the address it came from.
        path: PathBuf,
        /// Its first bytes.
        begins: String,
        /// The way on.
        manual: Manual,
    },
    /// A zip without a model, or without all of one.
    #[error("{} holds no whole model: it lacks {}{manual}", path.display(), missing.join(", "))]
    NotAModel {
        /// The zip.
        path: PathBuf,
        /// What is missing.
        missing: Vec<String>,
        /// The way on.
        manual: Manual,
    },
    /// Too little room.
    #[error(
        "{} has {} MB free and {} MB are needed{}: free some space, or name another folder (--dir)",
        folder.display(), available_bytes / 1_000_000, needed_bytes.div_ceil(1_000_000),
        if *kept_bytes > 0 { format!("; {} MB are there and kept", kept_bytes / 1_000_000) } else { String::new() }
    )]
    NoSpace {
        /// The folder.
        folder: PathBuf,
        /// What is missing to the end, unpacking included.
        needed_bytes: u64,
        /// What is free.
        available_bytes: u64,
        /// What the next try can go on from.
        kept_bytes: u64,
    },
    /// A file or folder that cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// No folder for models is known.
    #[error("no home folder, so no place for models: name a folder (--dir)")]
    NoModelsFolder,
    /// A zip that cannot be unpacked, or a cache without a place.
    #[error(transparent)]
    Package(#[from] qwen2vl_package::Error),
}

/// What to do by hand when a machine cannot get at a file. Shown after the error, and empty if there is no such way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Manual(Option<Box<Way>>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Way {
    url: String,
    /// The file that it is; none for a repository, which becomes a folder.
    file: Option<String>,
}

impl Manual {
    pub(crate) fn none() -> Self {
        Self::default()
    }

    pub(crate) fn file(url: &str) -> Self {
        let path = url.split(['?', '#']).next().unwrap_or(url);
        let name = path.rsplit('/').next().filter(|n| n.ends_with(".zip")).unwrap_or("FILE.zip");
        Self(Some(Box::new(Way { url: url.to_owned(), file: Some(name.to_owned()) })))
    }

    pub(crate) fn folder(url: &str) -> Self {
        Self(Some(Box::new(Way { url: url.to_owned(), file: None })))
    }

    /// What to download elsewhere.
    pub fn url(&self) -> Option<&str> {
        self.0.as_ref().map(|way| way.url.as_str())
    }
}

impl fmt::Display for Manual {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_deref() {
            Some(Way { url, file: Some(file) }) => write!(
                f,
                "; by hand: download {url} where that works, copy it here, run `qwen2vl model fetch {file}`"
            ),
            Some(Way { url, file: None }) => {
                write!(f, "; by hand: download the files of {url} into a folder and use it by --model FOLDER")
            }
            None => Ok(()),
        }
    }
}

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Trouble {
    /// 403.
    #[error(
        "the server refuses it (403 Forbidden{}): a company's proxy or firewall rule, or a wrong bucket or path, \
         answers so", .code.as_ref().map(|c| format!(", {c}")).unwrap_or_default()
    )]
    Forbidden {
        /// The code in S3's answer, `AccessDenied` for example.
        code: Option<String>,
    },
    /// 401.
    #[error(
        "it needs a log-in (401 Unauthorized): it does not exist, or is private and needs a token (HF_TOKEN)"
    )]
    Unauthorized,
    /// 404.
    #[error("there is no such file (404 Not Found)")]
    NotFound,
    /// Any other status that is no success.
    #[error("the server answers {status}{}",
        .retry_after.map(|r| format!(" and asks to come back after {} s", r.as_secs())).unwrap_or_default())]
    Status {
        /// The status.
        status: u16,
        /// What its `Retry-After` says.
        retry_after: Option<Duration>,
    },
    /// A name that cannot be resolved.
    #[error("the host {host} is not found: no network, or no DNS; behind a proxy, set HTTPS_PROXY")]
    HostNotFound {
        /// The host.
        host: String,
    },
    /// No connection.
    #[error("no connection to {host}: {reason}; behind a proxy, set HTTPS_PROXY")]
    Connect {
        /// The host.
        host: String,
        /// The system's reason.
        reason: String,
    },
    /// Certificates and the like.
    #[error(
        "no secure connection to {host}: {reason}; where a company's proxy signs with a certificate of its own, name \
         it by SSL_CERT_FILE"
    )]
    Tls {
        /// The host.
        host: String,
        /// The reason.
        reason: String,
    },
    /// A proxy that cannot be used.
    #[error(
        "the proxy {proxy} does not help: {reason}; HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY name it"
    )]
    Proxy {
        /// Its address, without credentials.
        proxy: String,
        /// The reason.
        reason: String,
    },
    /// Nothing came for too long.
    #[error("nothing came for {} s", .after.as_secs_f64())]
    Stalled {
        /// How long was waited.
        after: Duration,
    },
    /// The connection ended in the middle.
    #[error("the connection ended after {received_bytes} bytes{}",
        .expected_bytes.map(|e| format!(" of {e}")).unwrap_or_default())]
    Cut {
        /// What came.
        received_bytes: u64,
        /// What was announced.
        expected_bytes: Option<u64>,
    },
    /// The file there is another one each time.
    #[error("the file changed on the server again and again while it was downloaded")]
    KeepsChanging,
    /// An answer against the rules.
    #[error("the server's answer makes no sense: {what}")]
    Nonsense {
        /// What is wrong with it.
        what: String,
    },
    /// Not to be asked.
    #[error("the network is not to be used (--offline)")]
    Offline,
}
