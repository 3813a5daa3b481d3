//! The folders below the cache root: what is in them, and emptying those that fill themselves again.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use qwen2vl_package::{remove_unpacked, unpacked_packages};
use serde::Serialize;

use crate::vision_cache::{self, disk};

/// A folder below the cache root, see [`crate::cache_root`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CacheFolder {
    /// What the vision tower made of images and videos; entries are these.
    Vision,
    /// Models that OpenVINO compiled, and what is built for it; entries are files.
    Compiled,
    /// Unpacked zips and converted annotators; entries are these.
    Packages,
    /// OpenVINO itself, which the set-up fetched; entries are versions.
    Openvino,
    /// Notes on fetched models; entries are files.
    Fetch,
}

/// What is in a folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CacheUsage {
    /// The folder, which need not exist.
    pub path: PathBuf,
    /// Number of entries.
    pub entries: usize,
    /// Bytes of all files in it.
    pub bytes: u64,
}

/// What was removed from a folder.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Cleared {
    /// Number of entries.
    pub entries: usize,
    /// Bytes of all files.
    pub bytes: u64,
    /// What could not be removed.
    pub failed: Vec<(PathBuf, io::Error)>,
}

impl CacheFolder {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Vision, Self::Compiled, Self::Packages, Self::Openvino, Self::Fetch];

    /// Its name, which is that of the folder.
    pub fn name(self) -> &'static str {
        match self {
            Self::Vision => vision_cache::FOLDER,
            Self::Compiled => "compiled",
            Self::Packages => "packages",
            Self::Openvino => "openvino",
            Self::Fetch => "fetch",
        }
    }

    /// Looks at what is in it. What cannot be looked at counts as nothing.
    pub fn usage(self, cache_root: &Path) -> CacheUsage {
        let path = cache_root.join(self.name());
        let entries = match self {
            Self::Vision => disk::list(&path).iter().filter(|entry| !entry.is_partial).count(),
            Self::Packages => unpacked_packages(cache_root).len(),
            Self::Openvino => children(&path).filter(|path| path.is_dir()).count(),
            Self::Compiled | Self::Fetch => size(&path).0,
        };
        CacheUsage { entries, bytes: size(&path).1, path }
    }

    /// Removes its entries, and no other file. Other processes may use embeddings and compiled models meanwhile, packages
    /// only where nobody is opening one. What the set-up and fetching put there stays: [`CacheFolder::Openvino`] and
    /// [`CacheFolder::Fetch`] lose nothing.
    pub fn clear(self, cache_root: &Path) -> Cleared {
        let path = cache_root.join(self.name());
        let mut cleared = Cleared::default();
        match self {
            Self::Vision => clear_vision(&path, &mut cleared),
            Self::Compiled => {
                for file in children(&path).filter(|path| path.is_file() && is_compiled(path)) {
                    cleared.remove(&file, true);
                }
            }
            Self::Packages => {
                for folder in unpacked_packages(cache_root) {
                    let bytes = size(&folder).1;
                    cleared.count(&folder, remove_unpacked(&folder), true, bytes);
                }
            }
            Self::Openvino | Self::Fetch => {}
        }
        cleared
    }
}

impl Cleared {
    fn remove(&mut self, file: &Path, is_entry: bool) {
        let bytes = std::fs::metadata(file).map_or(0, |metadata| metadata.len());
        self.count(file, std::fs::remove_file(file), is_entry, bytes);
    }

    fn count(&mut self, path: &Path, removed: io::Result<()>, is_entry: bool, bytes: u64) {
        match removed {
            Ok(()) => {
                self.entries += usize::from(is_entry);
                self.bytes += bytes;
            }
            // Another was faster.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => self.failed.push((path.to_owned(), error)),
        }
    }
}

fn clear_vision(path: &Path, cleared: &mut Cleared) {
    for entry in disk::list(path) {
        cleared.remove(&entry.path, !entry.is_partial);
    }
    let notes = path.join(vision_cache::NOTES);
    for note in children(&notes).filter(|path| path.extension().is_some_and(|e| e == "json")) {
        cleared.remove(&note, false);
    }
    // Those with something left in them stay.
    for folder in disk::shards(path).chain([notes, path.to_owned()]) {
        std::fs::remove_dir(folder).ok();
    }
}

/// What OpenVINO and the engine write into the folder of compiled models.
fn is_compiled(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    [".blob", ".cl_cache"].iter().any(|end| name.ends_with(end))
        || ["language_model-", "qwen2vl_shim-", ".compiled-"].iter().any(|start| name.starts_with(start))
}

fn children(folder: &Path) -> impl Iterator<Item = PathBuf> {
    std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path())
}

/// Number and bytes of all files below a folder; links are not followed.
fn size(folder: &Path) -> (usize, u64) {
    children(folder).fold((0, 0), |(n, bytes), path| match std::fs::symlink_metadata(&path) {
        Ok(metadata) if metadata.is_dir() => {
            let below = size(&path);
            (n + below.0, bytes + below.1)
        }
        Ok(metadata) if metadata.is_file() => (n + 1, bytes + metadata.len()),
        _ => (n, bytes),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clearing_removes_what_is_the_caches_own_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let digits = "0".repeat(64);
        let own = [
            format!("vision/00/{digits}.q2v"),
            "vision/models/0123456789abcdef.json".to_owned(),
            "compiled/123.blob".to_owned(),
            "compiled/language_model-12.xml".to_owned(),
            "compiled/qwen2vl_shim-12.so".to_owned(),
            "compiled/.compiled-12".to_owned(),
            "packages/demo-0123/model.xml".to_owned(),
            "packages/demo-0123/.unpacked.json".to_owned(),
        ];
        let others = [
            "vision/notes.txt",
            "vision/00/short.q2v",
            "compiled/notes.txt",
            "compiled/sub/x.blob",
            "packages/mine/model.xml",
            "openvino/2026.4.1/libs/libopenvino_c.so",
            "fetch/fetched/a.json",
            "photo.jpg",
        ];
        for name in own.iter().map(String::as_str).chain(others) {
            let path = root.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, [0; 100]).unwrap();
        }
        let usage: Vec<_> =
            CacheFolder::ALL.map(|f| f.usage(root)).iter().map(|u| (u.entries, u.bytes)).collect();
        assert_eq!(usage, [(1, 400), (6, 600), (1, 300), (1, 100), (1, 100)]);
        let cleared: Vec<_> = CacheFolder::ALL
            .map(|f| f.clear(root))
            .iter()
            .map(|c| (c.entries, c.bytes, c.failed.len()))
            .collect();
        assert_eq!(cleared, [(1, 200, 0), (4, 400, 0), (1, 200, 0), (0, 0, 0), (0, 0, 0)]);
        for name in &own {
            assert!(!root.join(name).exists(), "{name} is still there");
        }
        for name in others {
            assert!(root.join(name).exists(), "{name} is gone");
        }
        assert!(!root.join("vision/models").exists() && !root.join("packages/demo-0123").exists());
        for folder in CacheFolder::ALL {
            assert_eq!(folder.clear(root).entries, 0);
            assert_eq!(folder.clear(&root.join("nowhere")).entries, 0);
            assert_eq!(folder.usage(&root.join("nowhere")).bytes, 0);
        }
    }
}
