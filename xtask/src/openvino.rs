//! Where OpenVINO is: the rules of `qwen2vl-runtime` (its module `library`), which this crate may not depend on.
//! `cargo xtask tidy` checks that the two name one version.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::wheel::Wheel;

/// The OpenVINO version that is fetched and tested with.
pub const TESTED_VERSION: &str = "2026.4.1";

/// Names the library or a folder that holds it.
pub const ENV_LIBRARY: &str = "QWEN2VL_OPENVINO";

/// Variables that lead to an installation; see `openvino-finder`.
pub const ENV_INSTALLATIONS: &[&str] =
    &["OPENVINO_BUILD_DIR", "OPENVINO_INSTALL_DIR", "INTEL_OPENVINO_DIR", "LD_LIBRARY_PATH"];

/// The wheel that is fetched. The libraries in all of them are the same to the byte.
pub const WHEEL: Wheel = Wheel {
    title: "OpenVINO",
    requirement: "openvino==2026.4.1",
    pins: &[
        ("cp310-cp310", "47dcccbab40a23aed1dc4af7c43a9c813cc61f684d66498e1627d407d5f2770b"),
        ("cp311-cp311", "2d22b1da03f7caf74df30e9f6417d0ab2f637e4a38e08e1dcd294d2c37407aaf"),
        ("cp312-cp312", "6b4375c17ddcac83a5180349e2e2bb811185c261066e2a920659892d58ef0e3b"),
        ("cp313-cp313", "a9b637846c579d7b81b17b6585e0c7b1947574e8d13cf83d7307ce50cd2c352e"),
        ("cp314-cp314", "3631dd889dccf3d5087775948590a6609a662f90c24a9cf85bb4dfa0cdd7fd2f"),
        ("cp314-cp314t", "645e8788370b1037cc21d19078f2f235478292e23938b00ab4fe0d2614a5f7d0"),
    ],
    wanted: &["openvino/libs/", "openvino/include/"],
    programs: &[],
    remedy: "install OpenVINO and name its folder with QWEN2VL_OPENVINO",
};

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

/// The library that is there without a set-up, and how it was found.
///
/// # Errors
///
/// If [`ENV_LIBRARY`] is set and no library is there.
pub fn existing() -> Result<Option<(PathBuf, &'static str)>> {
    if let Some(named) = variable(ENV_LIBRARY) {
        return match library_in(&named) {
            Some(path) => Ok(Some((path, "named by QWEN2VL_OPENVINO"))),
            None => bail!(
                "{ENV_LIBRARY} is {}, where no {} is; correct or unset it",
                named.display(),
                library_file_name()
            ),
        };
    }
    if let Some(path) = openvino_finder::find("openvino_c", openvino_finder::Linking::Dynamic) {
        return Ok(Some((path, "installed on this system")));
    }
    Ok(fetched_in(&cache_folder()?).map(|path| (path, "fetched into the cache")))
}

/// A header without which the paged engine is not built.
pub const HEADER: &str = "openvino/include/openvino/pass/sdpa_to_paged_attention.hpp";

/// The library of a folder that a set-up has filled, if it has the headers as well.
pub fn fetched_in(folder: &Path) -> Option<PathBuf> {
    library_in(folder).filter(|_| folder.join(HEADER).is_file())
}

/// The folder that the set-up fills: `openvino/<version>` below the per-user cache.
///
/// # Errors
///
/// If there is no home folder and no variable names another.
pub fn cache_folder() -> Result<PathBuf> {
    Ok(cache_root()?.join("openvino").join(TESTED_VERSION))
}

/// The root of the per-user cache.
///
/// # Errors
///
/// If there is no home folder and no variable names another.
pub fn cache_root() -> Result<PathBuf> {
    let root = variable("QWEN2VL_CACHE")
        .or_else(|| variable("XDG_CACHE_HOME").filter(|p| p.is_absolute()).map(|p| p.join("qwen2vl")))
        .or_else(|| std::env::home_dir().map(|p| p.join(".cache/qwen2vl")))
        .context("there is no home folder; name a folder for the cache with QWEN2VL_CACHE")?;
    Ok(std::path::absolute(root)?)
}

fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from)
}

fn library_file_name() -> String {
    format!("{}openvino_c{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX)
}

/// The library at or below `path`; of several versions in one folder the last by name.
pub fn library_in(path: &Path) -> Option<PathBuf> {
    if path.is_file() {
        return Some(path.to_owned());
    }
    let name = library_file_name();
    // macOS puts the version before the suffix, Linux after it.
    let suffix = std::env::consts::DLL_SUFFIX;
    let stem = name.trim_end_matches(suffix);
    let is_library = |p: &PathBuf| {
        p.file_name().and_then(|n| n.to_str()).is_some_and(|n| {
            n.strip_prefix(stem).is_some_and(|rest| rest.starts_with('.') && rest.contains(suffix))
        })
    };
    SUBFOLDERS.iter().find_map(|sub| {
        let entries = std::fs::read_dir(path.join(sub)).ok()?;
        entries.filter_map(|entry| Some(entry.ok()?.path())).filter(is_library).max()
    })
}

/// The release that a Linux library's file name tells: `libopenvino_c.so.2641` is `2026.4.1`.
pub fn release(library: &Path) -> Option<String> {
    let target = library.canonicalize().ok()?;
    release_of_name(target.file_name()?.to_str()?)
}

fn release_of_name(name: &str) -> Option<String> {
    let digits = name.rsplit_once(".so.")?.1;
    let all_digits = digits.bytes().all(|b| b.is_ascii_digit());
    (all_digits && digits.len() == 4)
        .then(|| format!("20{}.{}.{}", &digits[..2], &digits[2..3], &digits[3..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_release_is_read_from_the_file_name() {
        let cases = [
            ("libopenvino_c.so.2641", Some("2026.4.1")),
            ("libopenvino_c.so.2510", Some("2025.1.0")),
            ("libopenvino_c.so", None),
            ("libopenvino_c.so.1", None),
            ("libopenvino_c.so.2x41", None),
        ];
        for (name, want) in cases {
            assert_eq!(release_of_name(name).as_deref(), want, "{name}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_library_is_found_in_an_unpacked_wheel_only() {
        let dir = tempfile::tempdir().unwrap();
        let libs = dir.path().join("openvino/libs");
        std::fs::create_dir_all(&libs).unwrap();
        std::fs::write(libs.join("libopenvino.so.2641"), "").unwrap();
        assert_eq!(library_in(dir.path()), None);
        for version in ["2620", "2641"] {
            std::fs::write(libs.join(format!("libopenvino_c.so.{version}")), "").unwrap();
        }
        assert_eq!(library_in(dir.path()), Some(libs.join("libopenvino_c.so.2641")));
    }
}
