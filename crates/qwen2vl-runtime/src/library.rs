//! Where OpenVINO is: found and loaded at run time, so that nothing links against it.
//!
//! Search order: a path named by the caller or by `QWEN2VL_OPENVINO`; an installation (the variables and folders that
//! the `openvino-finder` crate knows: `OPENVINO_INSTALL_DIR`, `INTEL_OPENVINO_DIR`, `LD_LIBRARY_PATH`, the system's);
//! what the repository's set-up put into the per-user cache.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::Error;

/// The OpenVINO version that this crate is tested with; another one is a warning, below 2025.1 an error.
pub const TESTED_VERSION: &str = "2026.4.1";

/// Environment variable that names the library or a folder that holds it.
pub const ENV_LIBRARY: &str = "QWEN2VL_OPENVINO";

/// Folders below a named one in which the C library may lie: of the PyPI wheel, of an archive, of a system package.
const SUBFOLDERS: &[&str] = &[
    "",
    "libs",
    "openvino/libs",
    "runtime/lib/intel64",
    "runtime/lib/aarch64",
    "runtime/lib/arm64/Release",
    "runtime/bin/intel64/Release",
    "lib",
];

/// How a library was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LibrarySource {
    /// Named by the caller.
    Named,
    /// Named by [`ENV_LIBRARY`].
    Environment,
    /// Found by `openvino-finder`.
    Installed,
    /// In the per-user cache.
    Cache,
}

impl fmt::Display for LibrarySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Named => "named by the caller",
            Self::Environment => "named by QWEN2VL_OPENVINO",
            Self::Installed => "installed on this system",
            Self::Cache => "fetched into the cache",
        })
    }
}

/// A library that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LibraryLocation {
    /// The C library, `libopenvino_c.so…`.
    pub path: PathBuf,
    /// How it was found.
    pub source: LibrarySource,
}

/// What a loaded library says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LibraryInfo {
    /// Build number, as `2026.4.1-…`.
    pub version: String,
    /// Devices that it can use, as `CPU`, `GPU.0`.
    pub devices: Vec<String>,
}

impl LibraryInfo {
    /// Whether the release is the tested one.
    pub fn is_tested(&self) -> bool {
        self.version.split('-').next() == Some(TESTED_VERSION)
    }
}

/// Finds the library without loading it.
///
/// # Errors
///
/// [`Error::LibraryUnusable`] if a named path holds no library, [`Error::LibraryNotFound`] if nothing was found.
pub fn locate(named: Option<&Path>) -> Result<LibraryLocation, Error> {
    let environment = std::env::var_os(ENV_LIBRARY).filter(|v| !v.is_empty()).map(PathBuf::from);
    let named = named
        .map(|p| (p.to_owned(), LibrarySource::Named))
        .or_else(|| environment.map(|p| (p, LibrarySource::Environment)));
    if let Some((path, source)) = named {
        return match library_in(&path) {
            Some(path) => Ok(LibraryLocation { path, source }),
            None => Err(Error::LibraryUnusable {
                reason: format!("no {} in it ({source})", library_file_name()),
                path,
            }),
        };
    }
    if let Some(path) = openvino_finder::find("openvino_c", openvino_finder::Linking::Dynamic) {
        return Ok(LibraryLocation { path, source: LibrarySource::Installed });
    }
    let cached = cache_folder();
    if let Some(path) = cached.as_deref().and_then(library_in) {
        return Ok(LibraryLocation { path, source: LibrarySource::Cache });
    }
    let cached = cached.map_or_else(|| "(no home folder)".to_owned(), |p| p.display().to_string());
    Err(Error::LibraryNotFound {
        searched: format!("{ENV_LIBRARY}, the system's library folders and {cached}"),
    })
}

/// Loads the library (once per process) and asks it for version and devices.
///
/// # Errors
///
/// [`Error::LibraryUnusable`] if it cannot be opened or is older than 2025.1, [`Error::OpenVino`] if it does not start.
pub fn probe(location: &LibraryLocation) -> Result<LibraryInfo, Error> {
    load(location)?;
    let core = openvino::Core::new()
        .map_err(|e| Error::OpenVino { action: "start".to_owned(), message: e.to_string() })?;
    let devices = core
        .available_devices()
        .map_err(|e| Error::OpenVino { action: "list its devices".to_owned(), message: e.to_string() })?;
    Ok(LibraryInfo {
        version: openvino::version().build_number,
        devices: devices.iter().map(|d| d.as_ref().to_owned()).collect(),
    })
}

/// The build number of the loaded library.
pub(crate) fn version() -> String {
    openvino::version().build_number
}

/// Opens the library; a no-op when one is open already.
pub(crate) fn load(location: &LibraryLocation) -> Result<(), Error> {
    openvino_sys::library::load_from(location.path.clone())
        .map_err(|reason| Error::LibraryUnusable { path: location.path.clone(), reason })
}

/// The folder that the set-up fills: `openvino/<version>` below the per-user cache.
fn cache_folder() -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let root = variable("QWEN2VL_CACHE")
        .or_else(|| variable("XDG_CACHE_HOME").filter(|p| p.is_absolute()).map(|p| p.join("qwen2vl")))
        .or_else(|| std::env::home_dir().map(|p| p.join(".cache/qwen2vl")))?;
    Some(root.join("openvino").join(TESTED_VERSION))
}

fn library_file_name() -> String {
    format!("{}openvino_c{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX)
}

/// The library at or below `path`; of several versions in one folder the last by name.
fn library_in(path: &Path) -> Option<PathBuf> {
    if path.is_file() {
        return Some(path.to_owned());
    }
    let name = library_file_name();
    // macOS puts the version before the suffix, Linux after it.
    let stem = name.trim_end_matches(std::env::consts::DLL_SUFFIX).to_owned();
    SUBFOLDERS.iter().find_map(|sub| {
        let mut found: Vec<PathBuf> = std::fs::read_dir(path.join(sub))
            .ok()?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|p| {
                p.file_name().and_then(|n| n.to_str()).is_some_and(|n| {
                    n.strip_prefix(&stem)
                        .is_some_and(|rest| rest.starts_with('.') && n.contains(std::env::consts::DLL_SUFFIX))
                })
            })
            .collect();
        found.sort();
        found.pop()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_folder_without_the_library_is_an_error_that_names_it() {
        let error = locate(Some(Path::new("/nonexistent-folder"))).unwrap_err();
        assert!(error.to_string().contains("/nonexistent-folder"), "{error}");
    }

    #[test]
    fn versioned_names_are_found_and_others_are_not() {
        let dir = std::env::temp_dir().join(format!("qwen2vl-library-{}", std::process::id()));
        let libs = dir.join("openvino/libs");
        std::fs::create_dir_all(&libs).unwrap();
        let (prefix, suffix) = (std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
        std::fs::write(libs.join(format!("{prefix}openvino_core{suffix}")), "").unwrap();
        assert_eq!(library_in(&dir), None);
        let name = libs.join(format!("{prefix}openvino_c{suffix}.2641"));
        std::fs::write(&name, "").unwrap();
        assert_eq!(library_in(&dir), Some(name));
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn only_the_tested_release_counts_as_tested() {
        let info = |v: &str| LibraryInfo { version: v.to_owned(), devices: Vec::new() };
        assert!(info("2026.4.1-22222-abc").is_tested());
        assert!(!info("2026.4.10-1").is_tested());
        assert!(!info("2025.4.1-1").is_tested());
    }
}
