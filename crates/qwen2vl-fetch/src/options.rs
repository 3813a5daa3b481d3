//! How to fetch: folders, addresses, patience.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::{Error, Version};

/// Where Spark NLP's models are published.
const BASE_URL: &str = "https://s3.amazonaws.com/auxdata.johnsnowlabs.com/public/models";
const HUB_ENDPOINT: &str = "https://huggingface.co";

/// How a [`Fetcher`](crate::Fetcher) works. [`FetchOptions::from_env`] fills it in; any field may then be changed.
#[derive(Debug, Clone)]
pub struct FetchOptions {
    /// Where models lie: Spark NLP's cache.
    pub models_dir: PathBuf,
    /// Where the catalogue's copy and the notes about fetched zips are kept.
    pub state_dir: PathBuf,
    /// What catalogue and published zips lie below.
    pub base_url: String,
    /// The hub.
    pub hub_endpoint: String,
    /// The hub's cache.
    pub hub_cache: PathBuf,
    /// For private repositories on the hub.
    pub hub_token: Option<String>,
    /// Use what is there, ask no server.
    pub offline: bool,
    /// What the zip's SHA-256 has to be.
    pub sha256: Option<String>,
    /// What the zip's MD5 has to be; the catalogue's is used if it has one.
    pub md5: Option<String>,
    /// The language of names without one; any, if none is given.
    pub language: Option<String>,
    /// The Spark NLP that a model has to suit; any, if none is given.
    pub lib_version: Option<Version>,
    /// The Spark that a model has to suit; any, if none is given.
    pub spark_version: Option<Version>,
    /// Which engine's models are preferred among equals.
    pub engine: Option<String>,
    /// How often to try.
    pub retry: RetryPolicy,
    /// How long to wait for a server.
    pub time_outs: TimeOuts,
}

/// How often a failed request is tried again, and after what time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Tries in a row that bring nothing new; one that brings bytes starts the count again.
    pub attempts: usize,
    /// Before the second try; it doubles with each, and some chance is added.
    pub first_wait: Duration,
    /// No wait is longer, a server's `Retry-After` included.
    pub longest_wait: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        let [first_wait, longest_wait] = [1, 120].map(Duration::from_secs);
        Self { attempts: 6, first_wait, longest_wait }
    }
}

/// How long to wait for a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeOuts {
    /// For a connection, encryption included.
    pub connect: Duration,
    /// For an answer to begin.
    pub response: Duration,
    /// For the next bytes of a body.
    pub read: Duration,
}

impl Default for TimeOuts {
    fn default() -> Self {
        let [connect, response, read] = [20, 60, 60].map(Duration::from_secs);
        Self { connect, response, read }
    }
}

impl FetchOptions {
    /// Spark NLP's folder and addresses, the hub's settings (`HF_ENDPOINT`, `HF_HOME`, `HF_HUB_CACHE`, `HF_TOKEN`,
    /// `HF_HUB_OFFLINE`), this project's cache (`QWEN2VL_CACHE`).
    ///
    /// # Errors
    ///
    /// [`Error::NoModelsFolder`] or a package error if no home folder is known.
    pub fn from_env() -> Result<Self, Error> {
        let hub_cache = hub_cache().ok_or(Error::NoModelsFolder)?;
        let hub_token = variable("HF_TOKEN").or_else(|| kept_token(&hub_cache));
        let truthy = |v: String| matches!(v.to_ascii_lowercase().as_str(), "1" | "true" | "yes" | "on");
        Ok(Self {
            models_dir: models_dir()?,
            state_dir: qwen2vl_package::cache_root()?.join("fetch"),
            base_url: BASE_URL.to_owned(),
            hub_endpoint: variable("HF_ENDPOINT").unwrap_or_else(|| HUB_ENDPOINT.to_owned()),
            hub_cache,
            hub_token,
            offline: variable("HF_HUB_OFFLINE").is_some_and(truthy),
            sha256: None,
            md5: None,
            language: None,
            lib_version: None,
            spark_version: None,
            engine: Some("openvino".to_owned()),
            retry: RetryPolicy::default(),
            time_outs: TimeOuts::default(),
        })
    }
}

/// Spark NLP's cache, `~/cache_pretrained`.
///
/// # Errors
///
/// [`Error::NoModelsFolder`] if no home folder is known.
pub fn models_dir() -> Result<PathBuf, Error> {
    home().map(|home| home.join("cache_pretrained")).ok_or(Error::NoModelsFolder)
}

/// The hub's cache, where its Python library has it as well: `HF_HUB_CACHE`, else `hub` below `HF_HOME`, below
/// `$XDG_CACHE_HOME/huggingface` or below `~/.cache/huggingface`. `None` if no home folder is known.
pub fn hub_cache() -> Option<PathBuf> {
    let path = |name: &str| variable(name).map(PathBuf::from);
    path("HF_HUB_CACHE")
        .or_else(|| path("HF_HOME").map(|p| p.join("hub")))
        .or_else(|| path("XDG_CACHE_HOME").map(|p| p.join("huggingface/hub")))
        .or_else(|| home().map(|p| p.join(".cache/huggingface/hub")))
}

/// What the hub's log-in command left beside the cache.
fn kept_token(hub_cache: &Path) -> Option<String> {
    let path = variable("HF_TOKEN_PATH").map_or_else(|| hub_cache.with_file_name("token"), PathBuf::from);
    let token = std::fs::read_to_string(path).ok()?.trim().to_owned();
    let plain = !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic());
    plain.then_some(token)
}

fn home() -> Option<PathBuf> {
    std::env::home_dir().filter(|p| !p.as_os_str().is_empty())
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|v| !v.trim().is_empty())
}
