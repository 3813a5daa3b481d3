//! Compiled models on disk: what OpenVINO made of a graph, without weights.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use sha2::{Digest, Sha256};

use crate::build::short;
use crate::{CompileOptions, Model};

/// Bytes of the checksum at the end of a file.
const CHECKSUM: usize = 32;

/// Where one compiled model is kept.
pub(crate) struct Kept {
    path: PathBuf,
}

impl Kept {
    /// Named by all that it depends on: the graph, the file of weights (its size and time), the options, the shim with its
    /// OpenVINO, and the processor. `None` where that cannot be read.
    pub(crate) fn new(options: &CompileOptions<'_>, shim: &Path) -> Option<Self> {
        let folder = options.kept_in?;
        let mut hash = Sha256::new();
        let mut add = |bytes: &[u8]| {
            hash.update(bytes.len().to_le_bytes());
            hash.update(bytes);
        };
        add(&fs::read(options.xml).ok()?);
        let weights = fs::metadata(options.weights).ok()?;
        let changed = weights.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
        add(fs::canonicalize(options.weights).ok()?.as_os_str().as_encoded_bytes());
        add(&weights.len().to_le_bytes());
        add(&changed.as_nanos().to_le_bytes());
        add(shim.file_name().map(OsStr::as_encoded_bytes)?);
        add(options.device.as_bytes());
        options.properties.iter().for_each(|(key, value)| add(format!("{key}={value}").as_bytes()));
        add(&[u8::from(options.paged), u8::from(options.unmasked)]);
        add(&processor());
        let key = short(hash);
        let name = Path::new(options.xml).file_stem()?.to_str()?;
        Some(Self { path: folder.join(format!("{name}-{key}.blob")) })
    }

    /// What was kept, if it is whole.
    pub(crate) fn read(&self) -> Option<Vec<u8>> {
        let mut blob = fs::read(&self.path).ok()?;
        let checksum = blob.split_off(blob.len().checked_sub(CHECKSUM)?);
        (Sha256::digest(&blob)[..] == checksum[..]).then_some(blob)
    }

    /// Keeps a model where that can be written; other processes see all of it or nothing.
    pub(crate) fn write(&self, model: &Model) {
        // What is not kept is compiled again.
        let _ = self.try_write(|path| model.export(path).map_err(io::Error::other));
    }

    fn try_write(&self, export: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;
        let partial = tempfile::Builder::new().prefix(".compiled-").tempfile_in(folder)?;
        export(partial.path())?;
        let checksum = Sha256::digest(fs::read(partial.path())?);
        File::options().append(true).open(partial.path())?.write_all(&checksum)?;
        partial.persist(&self.path)?;
        Ok(())
    }
}

/// What tells apart processors that a model is compiled for.
#[cfg(target_arch = "x86_64")]
fn processor() -> Vec<u8> {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    // Vendor; family, model and features; further features. Not what differs from core to core.
    let (vendor, features) = (__cpuid(0), __cpuid(1));
    let further = [0, 1].map(|part| __cpuid_count(7, part));
    let mut words = vec![vendor.ebx, vendor.ecx, vendor.edx, features.eax, features.ecx, features.edx];
    words.extend(further.iter().flat_map(|part| [part.eax, part.ebx, part.ecx, part.edx]));
    words.into_iter().flat_map(u32::to_le_bytes).collect()
}

#[cfg(not(target_arch = "x86_64"))]
fn processor() -> Vec<u8> {
    std::env::consts::ARCH.as_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_whole_comes_back_and_what_is_not_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let kept = Kept { path: dir.path().join("sub/model-1.blob") };
        assert!(kept.read().is_none());
        kept.try_write(|path| fs::write(path, b"compiled")).unwrap();
        assert_eq!(kept.read().unwrap(), b"compiled");
        // Nothing but the model itself is left.
        assert_eq!(fs::read_dir(dir.path().join("sub")).unwrap().count(), 1);
        let whole = fs::read(&kept.path).unwrap();
        for damaged in [&whole[..whole.len() - 1], &whole[1..], b"", &whole[..CHECKSUM]] {
            fs::write(&kept.path, damaged).unwrap();
            assert!(kept.read().is_none(), "{damaged:?}");
        }
        kept.try_write(|_| Err(io::Error::other("full"))).unwrap_err();
        assert_eq!(fs::read_dir(dir.path().join("sub")).unwrap().count(), 1);
    }

    #[test]
    fn another_graph_weights_or_options_are_another_model() {
        let dir = tempfile::tempdir().unwrap();
        let (xml, weights) = (dir.path().join("m.xml"), dir.path().join("m.bin"));
        fs::write(&xml, "graph").unwrap();
        fs::write(&weights, "weights").unwrap();
        let properties = [("A", "1".to_owned())];
        let options = CompileOptions {
            xml: xml.to_str().unwrap(),
            weights: weights.to_str().unwrap(),
            device: "CPU",
            properties: &properties,
            paged: false,
            unmasked: false,
            kernels: None,
            kept_in: Some(dir.path()),
        };
        let path = |options: &CompileOptions<'_>| Kept::new(options, Path::new("shim.so")).unwrap().path;
        let first = path(&options);
        assert_eq!(path(&options), first);
        let mut all = vec![
            first,
            path(&CompileOptions { paged: true, ..options.clone() }),
            path(&CompileOptions { unmasked: true, ..options.clone() }),
            path(&CompileOptions { properties: &[], ..options.clone() }),
            Kept::new(&options, Path::new("other.so")).unwrap().path,
        ];
        fs::write(&weights, "longer weights").unwrap();
        all.push(path(&options));
        fs::write(&xml, "other graph").unwrap();
        all.push(path(&options));
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 7);
        fs::remove_file(&xml).unwrap();
        assert!(Kept::new(&options, Path::new("shim.so")).is_none());
    }
}
