//! Compiles shim.cpp against the headers that lie beside an OpenVINO library; once for each of them.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};

use crate::Error;

const SOURCES: [(&str, &str); 11] = [
    ("shim.cpp", include_str!("shim.cpp")),
    ("products.hpp", include_str!("products.hpp")),
    ("weights.hpp", include_str!("weights.hpp")),
    ("patterns.hpp", include_str!("patterns.hpp")),
    ("convolution.hpp", include_str!("convolution.hpp")),
    ("attention.hpp", include_str!("attention.hpp")),
    ("source.hpp", include_str!("source.hpp")),
    ("paged_attention.hpp", include_str!("paged_attention.hpp")),
    ("chain_op.hpp", include_str!("chain_op.hpp")),
    ("chain.hpp", include_str!("chain.hpp")),
    ("kernels.hpp", include_str!("kernels.hpp")),
];

/// Where the headers lie, seen from the library's folder: a wheel, an archive, a system package.
const INCLUDE: &[&str] = &["../include", "../../include", "../../../include", "../../../runtime/include"];

/// The variable that names the C++ compiler, as everywhere.
const ENV_COMPILER: &str = "CXX";

/// The shim for the OpenVINO whose C library is `openvino_c`, built into `folder` where it is not there yet.
pub(crate) fn built(openvino_c: &Path, folder: &Path) -> Result<PathBuf, Error> {
    let library = main_library(openvino_c)?;
    let target = folder.join(format!("qwen2vl_shim-{}{}", key(&library), std::env::consts::DLL_SUFFIX));
    if target.is_file() {
        return Ok(target);
    }
    let include = include_folder(&library)?;
    std::fs::create_dir_all(folder)
        .map_err(|e| Error::Build { reason: format!("cannot write to {}: {e}", folder.display()) })?;
    let work = tempfile::Builder::new()
        .prefix(".shim-")
        .tempdir_in(folder)
        .map_err(|e| Error::Build { reason: format!("cannot write to {}: {e}", folder.display()) })?;
    let (source, output) = (work.path().join("shim.cpp"), work.path().join("shim"));
    for (name, text) in SOURCES {
        let file = work.path().join(name);
        std::fs::write(&file, text)
            .map_err(|e| Error::Build { reason: format!("cannot write {}: {e}", file.display()) })?;
    }
    compile(&source, &include, &library, &output)?;
    // Other processes see all of it or nothing.
    std::fs::rename(&output, &target)
        .map_err(|e| Error::Build { reason: format!("cannot write {}: {e}", target.display()) })?;
    Ok(target)
}

fn compile(source: &Path, include: &Path, library: &Path, output: &Path) -> Result<(), Error> {
    let named = std::env::var_os(ENV_COMPILER).filter(|v| !v.is_empty());
    let compilers: Vec<OsString> = match named {
        Some(named) => vec![named],
        None => ["c++", "g++", "clang++"].map(OsString::from).to_vec(),
    };
    let mut missing = Vec::new();
    for compiler in compilers {
        let result = Command::new(&compiler)
            .args(["-std=c++17", "-O2", "-fPIC", "-shared", "-fvisibility=hidden", "-w"])
            .arg("-I")
            .arg(include)
            .arg(source)
            .arg(library)
            .arg("-o")
            .arg(output)
            .output();
        match result {
            Ok(done) if done.status.success() => return Ok(()),
            Ok(done) => {
                let stderr = String::from_utf8_lossy(&done.stderr);
                let line = stderr.lines().find(|l| l.contains("error")).unwrap_or("it failed without a word");
                return Err(Error::Build { reason: format!("{}: {line}", compiler.display()) });
            }
            Err(error) => missing.push(format!("{}: {error}", compiler.display())),
        }
    }
    Err(Error::Build {
        reason: format!("no C++ compiler ({}); install one or name it by {ENV_COMPILER}", missing.join(", ")),
    })
}

/// `libopenvino` beside `libopenvino_c`.
fn main_library(openvino_c: &Path) -> Result<PathBuf, Error> {
    let file = openvino_c.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    let library = openvino_c.with_file_name(file.replacen("openvino_c", "openvino", 1));
    if library.is_file() && library != openvino_c {
        return Ok(library);
    }
    Err(Error::Build {
        reason: format!("there is no C++ library of OpenVINO beside {}", openvino_c.display()),
    })
}

fn include_folder(library: &Path) -> Result<PathBuf, Error> {
    let folder = library.parent().unwrap_or(Path::new("."));
    let found = INCLUDE
        .iter()
        .map(|sub| folder.join(sub))
        .find(|dir| dir.join("openvino/pass/sdpa_to_paged_attention.hpp").is_file());
    found.ok_or_else(|| Error::Build {
        reason: format!(
            "the OpenVINO at {} has no C++ headers; `cargo xtask setup` fetches one that has",
            library.display()
        ),
    })
}

/// Another source or another OpenVINO is another shim.
fn key(library: &Path) -> String {
    let mut hash = Sha256::new();
    SOURCES.iter().for_each(|(_, text)| hash.update(text));
    hash.update(library.as_os_str().as_encoded_bytes());
    if let Ok(metadata) = std::fs::metadata(library) {
        hash.update(metadata.len().to_le_bytes());
    }
    short(hash)
}

/// What files are named by: the first 8 bytes of a hash.
pub(crate) fn short(hash: Sha256) -> String {
    hash.finalize().iter().take(8).map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let c = dir.path().join("libs/libopenvino_c.so.2641");
        std::fs::create_dir_all(c.parent().unwrap()).unwrap();
        std::fs::write(&c, "").unwrap();
        let error = built(&c, dir.path()).unwrap_err().to_string();
        assert!(error.contains("no C++ library of OpenVINO beside"), "{error}");
        std::fs::write(c.with_file_name("libopenvino.so.2641"), "").unwrap();
        let error = built(&c, dir.path()).unwrap_err().to_string();
        assert!(error.contains("has no C++ headers"), "{error}");
        let header = dir.path().join("include/openvino/pass");
        std::fs::create_dir_all(&header).unwrap();
        std::fs::write(header.join("sdpa_to_paged_attention.hpp"), "").unwrap();
        // What cannot be compiled leaves nothing behind.
        let shims = dir.path().join("shims");
        let error = built(&c, &shims).unwrap_err().to_string();
        assert!(error.contains("cannot be built"), "{error}");
        assert_eq!(std::fs::read_dir(&shims).unwrap().count(), 0);
    }
}
