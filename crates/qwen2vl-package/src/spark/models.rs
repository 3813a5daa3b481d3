//! The OpenVINO models of a saved annotator: zips in files named `.xml`, each with an IR and its weights.

use std::path::Path;

use crate::cache::FileList;
use crate::files::FileTree;
use crate::files::zip::{Archive, LIMITS};
use crate::{Error, export};

/// The models that this project runs.
pub(super) const NEEDED: [&str; 4] = export::IRS;
/// Shape arithmetic that is code here.
pub(super) const UNNEEDED: [&str; 3] =
    ["openvino_patch_reshape_model", "openvino_rotary_embeddings_model", "openvino_multimodal_merge_model"];

/// A packed model.
pub(super) struct Packed {
    pub name: &'static str,
    /// Index of its file.
    pub index: usize,
}

/// Unpacks the models into `target` under their plain names.
pub(super) fn unpack(
    tree: &mut dyn FileTree,
    models: &[Packed],
    target: &Path,
    list: &mut FileList,
) -> Result<(), Error> {
    let mut budget = LIMITS.allowed_bytes(tree.stored_bytes());
    for Packed { name, index } in models {
        let path = tree.location(*index);
        let mut zip = Archive::open(&path, tree.read_seek(*index, target)?)?;
        let (xml, bin) = ir_pair(&zip)?;
        let total = zip.entries()[xml].size.saturating_add(zip.entries()[bin].size);
        budget = budget.checked_sub(total).ok_or_else(|| Error::UnsafeZip {
            path: path.clone(),
            reason: format!("it would unpack to {total} bytes, more than are allowed for the package's size"),
        })?;
        for (entry, extension) in [(xml, "xml"), (bin, "bin")] {
            list.copy(&mut zip, entry, target, &format!("{name}.{extension}"))?;
        }
    }
    Ok(())
}

/// The IR and its weights. Their base name is not reliable: Spark NLP puts a random prefix before it at each save.
fn ir_pair(zip: &dyn FileTree) -> Result<(usize, usize), Error> {
    let names = || zip.entries().iter().map(|e| e.name.as_str());
    let wrong = |reason: String| Error::DamagedZip { path: zip.path().to_owned(), reason };
    let mut xml = zip.entries().iter().enumerate().filter(|(_, e)| e.name.ends_with(".xml"));
    let (Some((xml, entry)), None) = (xml.next(), xml.next()) else {
        let found = names().collect::<Vec<_>>().join(", ");
        return Err(wrong(format!("it must hold one .xml and its .bin, it has: {found}")));
    };
    let bin = format!("{}.bin", entry.name.strip_suffix(".xml").unwrap_or(&entry.name));
    let bin = zip.find(&bin).ok_or_else(|| wrong(format!("{} has no {bin} beside it", entry.name)))?;
    Ok((xml, bin))
}
