//! The one form in which every model package reaches the layers above.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use qwen2vl_preprocess::PreprocessOptions;
use qwen2vl_runtime::{GenerationConfig, ModelConfig, ModelFiles};
use sha2::{Digest, Sha256};

use crate::cache::{Cache, FileList, Identity, hex, sync_folder};
use crate::files::FileTree;
use crate::files::bytes::Bytes;
use crate::files::folder::Folder;
use crate::files::zip::Archive;
use crate::layout::{Layout, detect};
use crate::parameters::Parameter;
use crate::provenance::Provenance;
use crate::spark::Annotator;
use crate::{Error, export, spark};

/// A validated model: where its files are, and what its configs say.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelPackage {
    /// The folder's name, or the zip's without its extension.
    pub name: String,
    /// The folder that the files are in; for a zip or a saved annotator, the one in the cache.
    pub root: PathBuf,
    /// The four OpenVINO IRs.
    pub files: ModelFiles,
    /// The model's dimensions.
    pub model: ModelConfig,
    /// The model's own defaults for generating.
    pub generation: GenerationConfig,
    /// Texts that end an answer, beside its stop tokens.
    pub stop_strings: Vec<String>,
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
    /// Where it comes from.
    pub provenance: Provenance,
    /// The parameters that a saved annotator carries, those that were set first; empty for an export.
    pub parameters: Vec<Parameter>,
    /// What is odd about it, though it can be used.
    pub notes: Vec<String>,
}

impl ModelPackage {
    /// Opens whatever holds a model: an OpenVINO export folder, a folder that Spark NLP saved or cached (an annotator,
    /// or a pipeline with one), or a zip of any of these.
    ///
    /// An export folder is used in place. A zip or a saved annotator is unpacked below `cache_root` once; opening it
    /// again costs a few file look-ups.
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
        let cache = Cache::new(cache_root);
        let package = if metadata.is_dir() {
            open_folder(path, &canonical, &cache)
        } else if metadata.is_file() {
            open_zip(path, &canonical, &cache)
        } else {
            Err(Error::NotAPackage { path: path.to_owned() })
        }?;
        package.warn_of_unused_parameters();
        Ok(package)
    }

    /// Opens a zip that is in memory, as [`ModelPackage::open`] does; `name` becomes the package's name.
    ///
    /// # Errors
    ///
    /// As [`ModelPackage::open`].
    pub fn open_zip_bytes(name: &str, bytes: &[u8], cache_root: &Path) -> Result<Self, Error> {
        let path = Path::new(name);
        let cache = Cache::new(cache_root);
        let sha256 = hex(&Sha256::digest(bytes));
        let root = match cache.find(name, &sha256) {
            Some(root) => root,
            None => {
                let bytes = Bytes::Memory(bytes);
                let mut archive = Archive::open(path, bytes.window())?;
                let layout = detect(&mut archive)?;
                unpack(&mut archive, &layout, &cache, name, &sha256)?
            }
        };
        export::open(&root, name, path, Some(sha256))
    }

    /// Says which parameters someone set that have no effect, where that may surprise.
    fn warn_of_unused_parameters(&self) {
        for parameter in self.parameters.iter().filter(|p| p.explicit && p.is_missed()) {
            tracing::warn!(
                "{}: the parameter {} = {} is not used: {}",
                self.name,
                parameter.name,
                parameter.value,
                parameter.effect
            );
        }
    }
}

/// An export in place, or a saved annotator by way of the cache.
fn open_folder(path: &Path, canonical: &Path, cache: &Cache) -> Result<ModelPackage, Error> {
    let name = file_text(canonical.file_name());
    if export::is_at(path) {
        return export::open(path, &name, path, None);
    }
    let mut folder = Folder::list(path)?;
    let annotator = match detect(&mut folder)? {
        Layout::Export { folder: below } => return export::open(&path.join(below), &name, path, None),
        Layout::Annotator(annotator) => annotator,
    };
    let files = spark::content_files(&folder, &annotator);
    let identity = Identity::of_files(canonical, &folder, &files);
    if let Some((root, sha256)) = cache.find_by_identity(&identity, &name) {
        return export::open(&root, &name, path, Some(sha256));
    }
    let sha256 = sha256_of_files(&mut folder, &files)?;
    let root = unpack_annotator(&mut folder, &annotator, cache, &name, &sha256)?;
    let now = Folder::list(path)?;
    if Identity::of_files(canonical, &now, &spark::content_files(&now, &annotator)) != identity {
        cache.remove(&root);
        return Err(Error::Changed { path: path.to_owned() });
    }
    cache.remember(&identity, &sha256);
    export::open(&root, &name, path, Some(sha256))
}

fn open_zip(path: &Path, canonical: &Path, cache: &Cache) -> Result<ModelPackage, Error> {
    let read = |source| Error::Read { path: path.to_owned(), source };
    let name = file_text(path.file_stem());
    let file = File::open(path).map_err(read)?;
    let identity = Identity::of_file(canonical, &file).map_err(read)?;
    if let Some((root, sha256)) = cache.find_by_identity(&identity, &name) {
        return export::open(&root, &name, path, Some(sha256));
    }
    let bytes = Bytes::of_file(file).map_err(read)?;
    let mut archive = Archive::open(path, bytes.window())?;
    let layout = detect(&mut archive)?;
    let sha256 = sha256_of(bytes.window()).map_err(read)?;
    let root = unpack(&mut archive, &layout, cache, &name, &sha256)?;
    let file = File::open(path).map_err(read)?;
    if Identity::of_file(canonical, &file).map_err(read)? != identity {
        cache.remove(&root);
        return Err(Error::Changed { path: path.to_owned() });
    }
    cache.remember(&identity, &sha256);
    export::open(&root, &name, path, Some(sha256))
}

/// Unpacks what a zip holds into the cache; the folder.
fn unpack(
    archive: &mut dyn FileTree,
    layout: &Layout,
    cache: &Cache,
    name: &str,
    sha256: &str,
) -> Result<PathBuf, Error> {
    let folder = match layout {
        Layout::Annotator(annotator) => return unpack_annotator(archive, annotator, cache, name, sha256),
        Layout::Export { folder } => folder,
    };
    let files: Vec<(usize, String)> = archive
        .entries()
        .iter()
        .enumerate()
        .filter_map(|(i, e)| {
            Some((i, e.name.strip_prefix(folder.as_str()).filter(|n| export::belongs(n))?.to_owned()))
        })
        .collect();
    export::check_names(archive.path(), &files.iter().map(|(_, name)| name.as_str()).collect::<Vec<_>>())?;
    let total = files.iter().fold(0u64, |sum, (i, _)| sum.saturating_add(archive.entries()[*i].size));
    cache.get_or_unpack(name, sha256, total, |target, list| {
        files.iter().try_for_each(|(index, name)| list.copy(archive, *index, target, name))
    })
}

fn unpack_annotator(
    tree: &mut dyn FileTree,
    annotator: &Annotator,
    cache: &Cache,
    name: &str,
    sha256: &str,
) -> Result<PathBuf, Error> {
    let total = spark::unpacked_bytes(tree, annotator);
    cache.get_or_unpack(name, sha256, total, |target, list| spark::convert(tree, annotator, target, list))
}

/// Writes every file of a zip into `target`, an existing empty folder. Names, links, sizes, ratios and checksums are
/// checked, files are synced, and a single folder around everything is taken off.
///
/// # Errors
///
/// See [`Error`]; files that were written before an error stay in `target`.
pub fn unpack_zip(zip: &Path, target: &Path) -> Result<(), Error> {
    let read = |source| Error::Read { path: zip.to_owned(), source };
    let bytes = File::open(zip).and_then(Bytes::of_file).map_err(read)?;
    let mut archive = Archive::open(zip, bytes.window())?;
    let mut list = FileList::new("");
    let names: Vec<String> = archive.entries().iter().map(|e| e.name.clone()).collect();
    let top = names.first().and_then(|name| name.find('/').map(|slash| name[..=slash].to_owned()));
    let top = top.filter(|top| names.iter().all(|name| name.starts_with(top))).unwrap_or_default();
    for (index, name) in names.iter().enumerate() {
        list.copy(&mut archive, index, target, &name[top.len()..])?;
    }
    list.finish()?;
    sync_folder(target);
    Ok(())
}

fn sha256_of(mut reader: impl Read) -> std::io::Result<String> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(hex(&hasher.finalize())),
            Ok(n) => hasher.update(&buffer[..n]),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// One hash of files' names and contents.
fn sha256_of_files(folder: &mut Folder, files: &[usize]) -> Result<String, Error> {
    let mut hasher = Sha256::new();
    for index in files {
        let content = sha256_of(folder.read(*index)?);
        let content = content.map_err(|e| folder.read_error(*index, e))?;
        hasher.update(format!("{}\0{content}\n", folder.entries()[*index].name));
    }
    Ok(hex(&hasher.finalize()))
}

/// A part of a path as a name; `model` for a path without one, as `/`.
fn file_text(part: Option<&std::ffi::OsStr>) -> String {
    part.map_or_else(|| "model".to_owned(), |part| part.to_string_lossy().into_owned())
}
