#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod cache;
mod catalogue;
mod completeness;
mod digest;
mod error;
mod fetched;
mod fetcher;
mod http;
mod hub;
mod installed;
mod options;
mod progress;
mod proxy;
mod published;
mod receipt;
mod reference;
mod transfer;
mod zip_check;

pub use catalogue::{Catalogue, Entry, Query};
pub use error::{Error, Manual, Trouble};
pub use fetched::{Fetched, Source};
pub use fetcher::Fetcher;
pub use installed::{Installed, Place, installed};
pub use options::{FetchOptions, RetryPolicy, TimeOuts, hub_cache, models_dir};
pub use progress::Progress;
pub use published::{PublishedName, Version};
pub use reference::{HubRepository, ModelName, Reference};
