//! The one form in which every model package reaches the layers above.

use std::fs::File;
use std::io::{Cursor, ErrorKind};
use std::path::{Path, PathBuf};

use qwen2vl_preprocess::PreprocessOptions;
use qwen2vl_runtime::{GenerationConfig, ModelConfig, ModelFiles};

use crate::Error;
use crate::cache::{Cache, FileIdentity};
use crate::source::{export, zip};

/// A validated model: where its files are, and what its configs say.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelPackage {
    /// The folder's name, or the zip's without its extension.
    pub name: String,
    /// The folder that the files are in; for a zip, the one in the cache.
    pub root: PathBuf,
    /// The four OpenVINO IRs.
    pub files: ModelFiles,
    /// The model's dimensions.
    pub model: ModelConfig,
    /// The model's own defaults for generating.
    pub generation: GenerationConfig,
    /// Preprocessing of images.
    pub preprocess: PreprocessOptions,
    /// Preprocessing of videos.
    pub video_preprocess: PreprocessOptions,
    /// The tokenizer.
    pub tokenizer_json: PathBuf,
    /// The source of the chat template.
    pub chat_template: String,
    /// Bytes of the four files of weights.
    pub weight_bytes: u64,
}

impl ModelPackage {
    /// Opens an OpenVINO export folder, or a zip of one, with or without a folder inside.
    ///
    /// A zip is unpacked below `cache_root` once; opening it again costs a few file look-ups.
    ///
    /// # Errors
    ///
    /// See [`Error`]; nothing half-written is left behind.
    pub fn open(path: &Path, cache_root: &Path) -> Result<Self, Error> {
        let read = |source| Error::Read { path: path.to_owned(), source };
        let metadata = match std::fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Err(Error::NotFound { path: path.to_owned() });
            }
            Err(e) => return Err(read(e)),
        };
        let canonical = std::fs::canonicalize(path).map_err(read)?;
        if metadata.is_dir() {
            return export::open(path, &file_text(canonical.file_name()));
        }
        if !metadata.is_file() {
            return Err(Error::NotAPackage { path: path.to_owned() });
        }
        let name = file_text(path.file_stem());
        let file = File::open(path).map_err(read)?;
        let identity = FileIdentity::of(&canonical, &file).map_err(read)?;
        let cache = Cache::new(cache_root);
        if let Some(root) = cache.find_by_identity(&identity, &name) {
            return export::open(&root, &name);
        }
        let archive = zip::Archive::open(path, &file)?;
        let sha256 = zip::sha256(path, &file)?;
        let root =
            cache.get_or_unpack(&name, &sha256, archive.total_bytes(), |target| archive.unpack(target))?;
        if FileIdentity::of(&canonical, &file).map_err(read)? != identity {
            cache.remove(&root);
            return Err(Error::Changed { path: path.to_owned() });
        }
        cache.remember(&identity, &sha256);
        export::open(&root, &name)
    }

    /// Opens a zip that is in memory, as [`ModelPackage::open`] does; `name` becomes the package's name.
    ///
    /// # Errors
    ///
    /// As [`ModelPackage::open`].
    pub fn open_zip_bytes(name: &str, bytes: &[u8], cache_root: &Path) -> Result<Self, Error> {
        let path = Path::new(name);
        let cache = Cache::new(cache_root);
        let sha256 = zip::sha256(path, Cursor::new(bytes))?;
        let root = match cache.find(name, &sha256) {
            Some(root) => root,
            None => {
                let archive = zip::Archive::open(path, Cursor::new(bytes))?;
                cache.get_or_unpack(name, &sha256, archive.total_bytes(), |target| archive.unpack(target))?
            }
        };
        export::open(&root, name)
    }
}

/// A part of a path as a name; `model` for a path without one, as `/`.
fn file_text(part: Option<&std::ffi::OsStr>) -> String {
    part.map_or_else(|| "model".to_owned(), |part| part.to_string_lossy().into_owned())
}
