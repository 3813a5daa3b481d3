//! Where ffmpeg and ffprobe are.

use std::env;
use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::Error;
use crate::process::{Limits, Process};

/// The environment variable that names ffmpeg's file or its folder.
pub const FFMPEG_VARIABLE: &str = "QWEN2VL_FFMPEG";

/// How long a program may take to say its version.
const VERSION_LIMIT: Duration = Duration::from_secs(20);

/// Who said where ffmpeg is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProgramSource {
    /// The caller.
    Given,
    /// [`FFMPEG_VARIABLE`].
    Variable,
    /// `PATH`.
    Path,
    /// Neither, so the caller's folder for that case was taken.
    Fallback,
}

impl fmt::Display for ProgramSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Given => "as given",
            Self::Variable => "by QWEN2VL_FFMPEG",
            Self::Path => "on PATH",
            Self::Fallback => "fetched by the set-up",
        })
    }
}

/// The two programs that read videos, found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ffmpeg {
    ffmpeg: PathBuf,
    ffprobe: PathBuf,
    source: ProgramSource,
    version: String,
}

impl Ffmpeg {
    /// Looks for ffmpeg and the ffprobe beside it: at `given` if there is one, else where [`FFMPEG_VARIABLE`] says, else
    /// on `PATH`. A file is ffmpeg itself, a folder holds both. Runs it once to learn its version.
    ///
    /// # Errors
    ///
    /// [`Error::NoFfmpeg`], and [`Error::Start`] or [`Error::Failed`] for one that does not run.
    pub fn find(given: Option<&Path>) -> Result<Self, Error> {
        Self::find_or(given, None)
    }

    /// As [`Ffmpeg::find`]; what is neither given, named nor on `PATH` is taken from the folder `fallback`, if both
    /// programs are there.
    ///
    /// # Errors
    ///
    /// As [`Ffmpeg::find`].
    pub fn find_or(given: Option<&Path>, fallback: Option<&Path>) -> Result<Self, Error> {
        let named = env::var_os(FFMPEG_VARIABLE).filter(|v| !v.is_empty()).map(PathBuf::from);
        let search_path = env::var_os("PATH").unwrap_or_default();
        let (ffmpeg, ffprobe, source) = match (given, named) {
            (Some(path), _) => at(path, &search_path, ProgramSource::Given)?,
            (None, Some(path)) => at(&path, &search_path, ProgramSource::Variable)?,
            (None, None) => {
                let found = on_path("ffmpeg", &search_path)
                    .and_then(|ffmpeg| Ok((ffmpeg, on_path("ffprobe", &search_path)?, ProgramSource::Path)));
                let fallback = || at(fallback?, &search_path, ProgramSource::Fallback).ok();
                found.or_else(|error| fallback().ok_or(error))?
            }
        };
        let version = version(&ffmpeg)?;
        Ok(Self { ffmpeg, ffprobe, source, version })
    }

    /// The file of ffmpeg.
    pub fn path(&self) -> &Path {
        &self.ffmpeg
    }

    /// Who said where it is.
    pub fn source(&self) -> ProgramSource {
        self.source
    }

    /// As it names its version, for example `5.1.9-0+deb12u1`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// ffmpeg, set to say only errors and to read nothing from us.
    pub(crate) fn ffmpeg(&self) -> Command {
        let mut command = quiet(&self.ffmpeg);
        command.arg("-nostdin");
        command
    }

    /// ffprobe, set to say only errors.
    pub(crate) fn ffprobe(&self) -> Command {
        quiet(&self.ffprobe)
    }

    /// The option that gives frames out as they come: renamed in 5.1, the old name went later.
    pub(crate) fn passthrough(&self) -> [&'static str; 2] {
        let mut numbers = self.version.trim_start_matches('n').split(['.', '-']).map(str::parse::<u32>);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(major)), _) if major < 5 => ["-vsync", "passthrough"],
            (Some(Ok(5)), Some(Ok(0))) => ["-vsync", "passthrough"],
            _ => ["-fps_mode", "passthrough"],
        }
    }
}

fn quiet(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.args(["-hide_banner", "-v", "error"]).env("AV_LOG_FORCE_NOCOLOR", "1").env_remove("FFREPORT");
    // Static builds crash where they convert a broadcast's station name with the C library's own tables; nothing of what is
    // read here needs them.
    command.env("GCONV_PATH", "/nonexistent");
    command.stdin(Stdio::null());
    command
}

fn at(
    path: &Path,
    search_path: &OsStr,
    source: ProgramSource,
) -> Result<(PathBuf, PathBuf, ProgramSource), Error> {
    let missing = |program| Error::NoFfmpeg { program, place: format!("at {}", path.display()) };
    if path.is_dir() {
        let inside = |program| Some(path.join(file_name(program))).filter(|file| file.is_file());
        return match (inside("ffmpeg"), inside("ffprobe")) {
            (Some(ffmpeg), Some(ffprobe)) => Ok((ffmpeg, ffprobe, source)),
            (None, _) => Err(missing("ffmpeg")),
            (_, None) => Err(missing("ffprobe")),
        };
    }
    if !path.is_file() {
        return Err(missing("ffmpeg"));
    }
    let beside = path.with_file_name(file_name("ffprobe"));
    let ffprobe = if beside.is_file() { beside } else { on_path("ffprobe", search_path)? };
    Ok((path.to_owned(), ffprobe, source))
}

fn on_path(program: &'static str, search_path: &OsStr) -> Result<PathBuf, Error> {
    env::split_paths(search_path)
        .map(|folder| folder.join(file_name(program)))
        .find(|file| file.is_file())
        .ok_or(Error::NoFfmpeg { program, place: "on PATH".to_owned() })
}

fn file_name(program: &str) -> String {
    format!("{program}{}", env::consts::EXE_SUFFIX)
}

/// The third word of `ffmpeg version 5.1.9-0+deb12u1 Copyright …`.
fn version(ffmpeg: &Path) -> Result<String, Error> {
    let mut command = Command::new(ffmpeg);
    command.arg("-version").stdin(Stdio::null());
    let mut process =
        Process::start("ffmpeg", command, 4096, Limits { stall: VERSION_LIMIT, cancelled: None }, |_| true)?;
    let mut text = Vec::new();
    while let Some(block) = process.next()? {
        if text.is_empty() {
            text = block;
        }
    }
    let said = String::from_utf8_lossy(&text);
    let version = said.strip_prefix("ffmpeg version ").and_then(|rest| rest.split_whitespace().next());
    version.map(str::to_owned).ok_or_else(|| Error::Failed {
        program: "ffmpeg",
        reason: format!("{} does not say a version of ffmpeg", ffmpeg.display()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_version(version: &str) -> Ffmpeg {
        Ffmpeg {
            ffmpeg: PathBuf::new(),
            ffprobe: PathBuf::new(),
            source: ProgramSource::Path,
            version: version.to_owned(),
        }
    }

    #[test]
    fn the_option_of_each_version() {
        for (version, option) in [
            ("4.4.2-0ubuntu0.22.04.1", "-vsync"),
            ("5.0.1", "-vsync"),
            ("n4.3", "-vsync"),
            ("5.1.9-0+deb12u1", "-fps_mode"),
            ("7.1", "-fps_mode"),
            ("n8.0", "-fps_mode"),
            ("N-118000-gabcdef", "-fps_mode"),
            ("2024-11-03-git-df00705e00-full_build-www.gyan.dev", "-fps_mode"),
        ] {
            assert_eq!(of_version(version).passthrough()[0], option, "{version}");
        }
    }

    #[test]
    fn what_is_missing_is_named_with_the_place_and_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().display().to_string();
        let missing = [
            at(folder.path(), OsStr::new(""), ProgramSource::Given).unwrap_err(),
            at(&folder.path().join("none"), OsStr::new(""), ProgramSource::Given).unwrap_err(),
            on_path("ffmpeg", folder.path().as_os_str()).unwrap_err(),
        ];
        for (error, place) in missing.iter().zip([place.as_str(), &place, "PATH"]) {
            let text = error.to_string();
            for part in ["`ffmpeg`", place, "apt-get install ffmpeg", FFMPEG_VARIABLE] {
                assert!(text.contains(part), "{text}: {part}");
            }
        }
        std::fs::write(folder.path().join(file_name("ffmpeg")), "").unwrap();
        let error = at(folder.path(), OsStr::new(""), ProgramSource::Given).unwrap_err();
        assert!(error.to_string().contains("`ffprobe`"), "{error}");
    }
}
