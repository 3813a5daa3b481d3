//! Makes OpenVINO available: uses the one that is there, else fetches the pinned wheel once.
//!
//! What the cache's folder holds is whole: the wheel is unpacked beside it and renamed at the end, under a lock.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::openvino::{self, TESTED_VERSION};
use crate::{pip, wheel};

const PARTIAL_PREFIX: &str = ".partial-";

/// Returns the library that programs will find.
///
/// # Errors
///
/// If none is there and none can be fetched.
pub fn run() -> Result<PathBuf> {
    let (path, source) = match openvino::existing()? {
        Some(found) => found,
        None => (fetch(&openvino::cache_folder()?, pip::download, pins())?, "fetched into the cache"),
    };
    eprintln!("OpenVINO: {} ({source})", path.display());
    if let Some(release) = openvino::release(&path).filter(|r| r != TESTED_VERSION) {
        eprintln!("note: it is release {release}; tested with {TESTED_VERSION}");
    }
    Ok(path)
}

fn pins() -> Option<&'static [(&'static str, &'static str)]> {
    let platform = (std::env::consts::OS, std::env::consts::ARCH);
    (platform == wheel::PINNED_PLATFORM).then_some(wheel::PINNED)
}

/// Fills `folder` from the wheel that `download` puts into the folder it is given, unless another process was faster.
fn fetch(
    folder: &Path,
    download: impl FnOnce(&Path) -> Result<PathBuf>,
    pins: Option<&[(&str, &str)]>,
) -> Result<PathBuf> {
    let parent = folder.parent().context("the cache's folder has no parent")?;
    let unwritable =
        || format!("cannot write to {}; name another folder with QWEN2VL_CACHE", parent.display());
    fs::create_dir_all(parent).with_context(unwritable)?;
    let _lock = lock(&parent.join(".lock")).with_context(unwritable)?;
    if let Some(path) = openvino::fetched_in(folder) {
        return Ok(path);
    }
    remove_partial(parent)?;
    let partial =
        tempfile::Builder::new().prefix(PARTIAL_PREFIX).tempdir_in(parent).with_context(unwritable)?;
    let (downloads, unpacked) = (partial.path().join("downloads"), partial.path().join("unpacked"));
    fs::create_dir(&downloads).with_context(unwritable)?;
    eprintln!("OpenVINO is not installed: fetching openvino=={TESTED_VERSION} with pip (60 MB, once) ...");
    let path = download(&downloads)?;
    match pins {
        Some(pins) => wheel::verify(&path, pins)?,
        None => {
            eprintln!(
                "note: no hash is pinned for this platform; only the wheel's own checksums are checked"
            );
        }
    }
    let n_files = wheel::unpack(&path, &unpacked)?;
    ensure!(
        openvino::fetched_in(&unpacked).is_some(),
        "{} holds no OpenVINO C library, or no headers",
        path.display()
    );
    eprintln!("checked and unpacked {n_files} files");
    // A folder without library or headers is of no use to anyone.
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot replace {}", folder.display()))?;
    }
    fs::rename(&unpacked, folder).with_context(|| format!("cannot create {}", folder.display()))?;
    openvino::fetched_in(folder).context("the unpacked library is gone")
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
