//! From a reference to a folder that holds the model.

use std::path::{Path, PathBuf};

use crate::cache::{self, Slot};
use crate::catalogue::kept;
use crate::http::Client;
use crate::progress::{Progress, Tell};
use crate::receipt::{self, Receipt};
use crate::reference::{folder_for_file, folder_for_url};
use crate::transfer::{self, Transfer};
use crate::zip_check::{Checked, Expected, check_room, check_zip, is_bad_zip};
use crate::{
    Catalogue, Error, FetchOptions, Fetched, Manual, ModelName, PublishedName, Query, Reference, Source,
    Trouble, Version, completeness, digest, hub,
};

/// The published 2B, for the way by hand when there is no catalogue to ask.
const KNOWN_FILES: &[&str] = &["qwen2_vl_2b_instruct_int4_en_5.5.1_3.0_1739495409030.zip"];

/// Fetches models.
pub struct Fetcher {
    options: FetchOptions,
    client: Client,
}

/// A zip to get.
struct Zip<'a> {
    slot: Slot,
    url: String,
    /// The catalogue's.
    md5: Option<&'a str>,
    source: Source,
}

impl Fetcher {
    /// A fetcher that works as `options` say.
    ///
    /// # Errors
    ///
    /// [`Error::BadAddress`] and [`Error::BadChecksum`] for options that cannot be.
    pub fn new(mut options: FetchOptions) -> Result<Self, Error> {
        for (setting, given) in
            [("the base address", &mut options.base_url), ("the hub's", &mut options.hub_endpoint)]
        {
            if !given.starts_with("http://") && !given.starts_with("https://") {
                return Err(Error::BadAddress { given: given.clone(), setting });
            }
            given.truncate(given.trim_end_matches('/').len());
        }
        let checked = |kind, digits, given: &Option<String>| {
            given.as_deref().map(|given| digest::checked(kind, digits, given)).transpose()
        };
        options.sha256 = checked("SHA-256", 64, &options.sha256)?;
        options.md5 = checked("MD5", 32, &options.md5)?;
        let client = Client::new(&options);
        Ok(Self { options, client })
    }

    /// Makes sure that a model is there, and tells `progress` what is done for it.
    ///
    /// What is in the cache already is found without any network.
    ///
    /// # Errors
    ///
    /// See [`Error`]. What was downloaded by then stays, and the next call goes on from it; nothing half-done looks
    /// like a model.
    pub fn fetch(
        &self,
        reference: &Reference,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Fetched, Error> {
        match reference {
            Reference::Path(path) if path.is_dir() => self.use_folder(path),
            Reference::Path(path) => self.unpack_file(path, progress),
            Reference::Url(url) => {
                let slot = self.slot(&folder_for_url(url));
                self.fetch_zip(&Zip { slot, url: url.clone(), md5: None, source: Source::Url }, progress)
            }
            Reference::Published(name) => {
                self.fetch_published(&name.to_string(), &name.file_name(), None, progress)
            }
            Reference::Name(name) => self.fetch_name(name, progress),
            Reference::Hub(repository) => {
                self.refuse_checksums(&repository.to_string(), "it is many files, each checked on its own")?;
                hub::fetch(&self.client, &self.options, repository, progress)
            }
        }
    }

    /// A model that is there: what [`Fetcher::fetch`] would find without doing anything.
    pub fn find(&self, reference: &Reference) -> Option<PathBuf> {
        match reference {
            Reference::Path(path) => Some(path.clone()),
            Reference::Url(url) => self.slot(&folder_for_url(url)).whole(),
            Reference::Published(name) => self.slot(&name.to_string()).whole(),
            Reference::Name(name) => self.cached(name).iter().find_map(|n| self.slot(n).whole()),
            Reference::Hub(repository) => hub::cached(&self.options.hub_cache, repository),
        }
    }

    /// The catalogue as it is now, or its copy.
    ///
    /// # Errors
    ///
    /// [`Error::Catalogue`] if neither can be had.
    pub fn catalogue(&self, progress: &mut dyn FnMut(Progress<'_>)) -> Result<Catalogue, Error> {
        self.read_catalogue(&Manual::none(), progress)
    }

    fn read_catalogue(&self, manual: &Manual, tell: Tell<'_>) -> Result<Catalogue, Error> {
        kept::catalogue(&self.client, &self.catalogue_url(), &self.options.state_dir, manual, tell)
    }

    fn catalogue_url(&self) -> String {
        format!("{}/metadata.json", self.options.base_url)
    }

    fn slot(&self, name: &str) -> Slot {
        Slot::new(&self.options.models_dir, name)
    }

    fn use_folder(&self, path: &Path) -> Result<Fetched, Error> {
        self.refuse_checksums(&path.display().to_string(), "it is a folder")?;
        let path = std::fs::canonicalize(path).map_err(|e| cache::io_error(path, e))?;
        let found = self.there(path.clone(), Source::Folder);
        Ok(Fetched { origin: Some(path.display().to_string()), ..found })
    }

    fn refuse_checksums(&self, what: &str, why: &'static str) -> Result<(), Error> {
        if self.options.sha256.is_some() || self.options.md5.is_some() {
            return Err(Error::ChecksumUnusable { what: what.to_owned(), why });
        }
        Ok(())
    }

    fn fetch_name(&self, name: &ModelName, tell: Tell<'_>) -> Result<Fetched, Error> {
        // A zip that lies in the cache is unpacked, an incomplete folder is passed over.
        for cached in self.cached(name) {
            let slot = self.slot(&cached);
            if slot.whole().is_some() || slot.zip().is_file() {
                return self.fetch_published(&cached, &format!("{cached}.zip"), None, tell);
            }
        }
        let known = KNOWN_FILES.iter().find(|f| PublishedName::parse(f).is_some_and(|p| p.name == name.name));
        let manual =
            known.map(|f| Manual::file(&format!("{}/{f}", self.options.base_url))).unwrap_or_default();
        let query = self.query(name);
        let catalogue = match self.read_catalogue(&manual, tell) {
            Err(Error::Catalogue { trouble: Trouble::Offline, manual, .. }) => {
                let cache = self.options.models_dir.clone();
                return Err(Error::NotCached { wanted: name.to_string(), cache, manual });
            }
            catalogue => catalogue?,
        };
        let Some(entry) = catalogue.resolve(&query) else {
            let nearest = catalogue.nearest(&name.name);
            return Err(Error::UnknownName {
                wanted: shown(&query),
                catalogue: self.catalogue_url(),
                nearest,
            });
        };
        self.fetch_published(&entry.key(), &entry.file_name(), entry.md5.as_deref(), tell)
    }

    fn fetch_published(
        &self,
        key: &str,
        file: &str,
        md5: Option<&str>,
        tell: Tell<'_>,
    ) -> Result<Fetched, Error> {
        let url = format!("{}/{file}", self.options.base_url);
        self.fetch_zip(&Zip { slot: self.slot(key), url, md5, source: Source::Published }, tell)
    }

    fn query(&self, name: &ModelName) -> Query {
        Query {
            name: name.name.clone(),
            language: name.language.clone().or_else(|| self.options.language.clone()),
            lib_version: self.options.lib_version.clone(),
            spark_version: self.options.spark_version.clone(),
            engine: self.options.engine.clone(),
        }
    }

    /// Full names of that model in the cache, folders and zips, the latest first.
    fn cached(&self, name: &ModelName) -> Vec<String> {
        let query = self.query(name);
        let accepts =
            |ours: &Option<Version>, found: &Version| ours.as_ref().is_none_or(|v| v.accepts(found));
        let entries = std::fs::read_dir(&self.options.models_dir).into_iter().flatten().flatten();
        let names = entries.filter_map(|e| PublishedName::parse(&e.file_name().to_string_lossy()));
        let mut fitting: Vec<PublishedName> = names
            .filter(|n| n.name == query.name && query.language.as_ref().is_none_or(|l| *l == n.language))
            .filter(|n| {
                accepts(&query.lib_version, &n.lib_version) && accepts(&query.spark_version, &n.spark_version)
            })
            .collect();
        fitting.sort_by_key(|n| std::cmp::Reverse(n.time_ms));
        fitting.dedup();
        fitting.iter().map(ToString::to_string).collect()
    }

    fn fetch_zip(&self, zip: &Zip<'_>, tell: Tell<'_>) -> Result<Fetched, Error> {
        if let Some(folder) = zip.slot.whole() {
            return self.already(folder, zip.source);
        }
        let cached_zip = zip.slot.zip();
        if self.client.is_offline() && !cached_zip.is_file() && !zip.slot.partial().is_file() {
            let cache = self.options.models_dir.clone();
            let wanted = zip.slot.name().to_owned();
            return Err(Error::NotCached { wanted, cache, manual: Manual::file(&zip.url) });
        }
        let _lock = zip.slot.lock(tell)?;
        if let Some(folder) = zip.slot.whole() {
            return self.already(folder, zip.source);
        }
        self.tell_of_incomplete(&zip.slot, tell);
        let expected = self.expected(zip.md5);
        if cached_zip.is_file() {
            match self.use_zip(&zip.slot, &cached_zip, &zip.url, &expected, tell) {
                Ok(checked) => return Ok(self.done(zip, checked, &expected, None)),
                Err(error) if is_bad_zip(&error) && !self.client.is_offline() => {
                    tell(Progress::Note(format!(
                        "the zip in the cache is of no use ({error}): fetched anew"
                    )));
                }
                Err(error) => return Err(error),
            }
        }
        self.download(zip, &expected, tell)
    }

    fn download(&self, zip: &Zip<'_>, expected: &Expected, tell: Tell<'_>) -> Result<Fetched, Error> {
        let partial = zip.slot.partial();
        let label = format!("{}.zip", zip.slot.name());
        let transfer = Transfer {
            url: &zip.url,
            headers: Vec::new(),
            partial: &partial,
            label: &label,
            expected_bytes: None,
            unpacked_beside: true,
            manual: Manual::file(&zip.url),
        };
        let mut tried_anew = false;
        loop {
            let done = transfer::download(&self.client, &transfer, tell)?;
            let whole = zip.slot.zip();
            match self.use_partial(&zip.slot, &partial, &whole, &zip.url, expected, tell) {
                Ok(checked) => return Ok(self.done(zip, checked, expected, Some(done))),
                Err(error) if is_bad_zip(&error) => {
                    transfer::discard(&partial);
                    std::fs::remove_file(&whole).ok();
                    // What an earlier try left may be what is bad.
                    if done.resumed_from_bytes == 0 || tried_anew {
                        return Err(error);
                    }
                    tried_anew = true;
                    tell(Progress::Note(format!("{error}: starting over")));
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// A download that is whole gets its name only when it has passed.
    fn use_partial(
        &self,
        slot: &Slot,
        partial: &Path,
        whole: &Path,
        url: &str,
        expected: &Expected,
        tell: Tell<'_>,
    ) -> Result<Checked, Error> {
        let checked = check_zip(partial, Manual::file(url), expected, tell)?;
        std::fs::rename(partial, whole).map_err(|e| cache::io_error(whole, e))?;
        transfer::discard(partial);
        cache::sync_folder(&self.options.models_dir);
        slot.unpack(whole, tell)?;
        std::fs::remove_file(whole).ok();
        Ok(checked)
    }

    /// A zip that another program left in the cache, as Spark NLP does.
    fn use_zip(
        &self,
        slot: &Slot,
        zip: &Path,
        url: &str,
        expected: &Expected,
        tell: Tell<'_>,
    ) -> Result<Checked, Error> {
        tell(Progress::Note(format!("{} lies in the cache and is unpacked", zip.display())));
        let checked = check_zip(zip, Manual::file(url), expected, tell)?;
        slot.unpack(zip, tell)?;
        std::fs::remove_file(zip).ok();
        Ok(checked)
    }

    fn unpack_file(&self, path: &Path, tell: Tell<'_>) -> Result<Fetched, Error> {
        let expected = self.expected(None);
        if let Some(name) = path.file_name().and_then(|n| PublishedName::parse(&n.to_string_lossy()))
            && expected.sha256.is_none()
            && expected.md5.is_none()
            && let Some(folder) = self.slot(&name.to_string()).whole()
        {
            return self.already(folder, Source::File);
        }
        let checked = check_zip(path, Manual::none(), &expected, tell)?;
        let slot = self.slot(&folder_for_file(path, &checked.sums.sha256));
        if let Some(folder) = slot.whole() {
            return Ok(self.there(folder, Source::File).passed(&expected));
        }
        let _lock = slot.lock(tell)?;
        if let Some(folder) = slot.whole() {
            return Ok(self.there(folder, Source::File).passed(&expected));
        }
        self.tell_of_incomplete(&slot, tell);
        check_room(&self.options.models_dir, checked.bytes)?;
        slot.unpack(path, tell)?;
        let origin = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned()).display().to_string();
        let zip = Zip { slot, url: origin, md5: None, source: Source::File };
        Ok(self.done(&zip, checked, &expected, None))
    }

    fn expected(&self, catalogue_md5: Option<&str>) -> Expected {
        // Whatever else stands in the catalogue is no checksum, and the user's is preferred to it.
        let listed = catalogue_md5.and_then(|md5| digest::checked("MD5", 32, md5).ok());
        Expected { sha256: self.options.sha256.clone(), md5: self.options.md5.clone().or(listed) }
    }

    fn tell_of_incomplete(&self, slot: &Slot, tell: Tell<'_>) {
        let folder = slot.folder();
        if folder.exists() {
            let missing = completeness::missing(&folder);
            let first = missing.first().map_or("nothing now", String::as_str);
            tell(Progress::Note(format!(
                "{} was left half-unpacked (it lacks {first}{}) and will be replaced",
                folder.display(),
                if missing.len() > 1 { format!(" and {} more", missing.len() - 1) } else { String::new() }
            )));
        }
    }

    fn done(
        &self,
        zip: &Zip<'_>,
        checked: Checked,
        expected: &Expected,
        done: Option<transfer::Done>,
    ) -> Fetched {
        let folder = zip.slot.folder();
        let receipt = Receipt {
            folder: folder.clone(),
            origin: zip.url.clone(),
            zip_bytes: checked.bytes,
            sha256: checked.sums.sha256,
            md5: checked.sums.md5,
        };
        receipt.write(&self.options.state_dir);
        let found = self.there(folder, zip.source);
        let fetched = Fetched {
            already_there: false,
            downloaded_bytes: done.map(|d| d.bytes),
            resumed_from_bytes: done.map_or(0, |d| d.resumed_from_bytes),
            sha256: Some(receipt.sha256),
            origin: Some(receipt.origin),
            ..found
        };
        fetched.passed(expected)
    }

    /// A folder that was there; checksums of a zip that is gone are those noted when it was fetched.
    fn already(&self, folder: PathBuf, source: Source) -> Result<Fetched, Error> {
        let receipt = Receipt::read(&self.options.state_dir, &folder);
        let md5_checked = receipt::check(receipt.as_ref(), &folder, "MD5", self.options.md5.as_deref())?;
        let sha256_checked =
            receipt::check(receipt.as_ref(), &folder, "SHA-256", self.options.sha256.as_deref())?;
        Ok(Fetched { md5_checked, sha256_checked, ..self.there(folder, source) })
    }

    fn there(&self, path: PathBuf, source: Source) -> Fetched {
        Fetched::there(path, source, &self.options.state_dir)
    }
}

fn shown(query: &Query) -> String {
    let mut text = query.name.clone();
    for (what, value) in [
        ("language", query.language.clone()),
        ("Spark NLP", query.lib_version.as_ref().map(ToString::to_string)),
        ("Spark", query.spark_version.as_ref().map(ToString::to_string)),
    ] {
        if let Some(value) = value {
            text.push_str(&format!(", {what} {value}"));
        }
    }
    text
}
