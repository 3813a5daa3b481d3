//! The OpenVINO models of a saved annotator: zips in files named `.xml`, each with an IR and its weights.

use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use crate::cache::FileList;
use crate::files::zip::{LIMITS, safe_parts};
use crate::files::zip_stream::{StreamError, for_each_entry};
use crate::files::{CopyError, FileTree};
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

/// Unpacks the models into `target` under their plain names, checking each against its side file on the way.
pub(super) fn unpack(
    tree: &mut dyn FileTree,
    models: &[Packed],
    target: &Path,
    list: &mut FileList,
) -> Result<(), Error> {
    let allowed = LIMITS.allowed_bytes(tree.stored_bytes());
    let mut left = allowed;
    for Packed { name, index } in models {
        let checksums = super::checksums(tree, *index)?;
        let mut pair = Pair { path: tree.location(*index), name, xml: None, bin: None };
        let done = {
            let reader = tree.read(*index)?;
            let reader: Box<dyn Read> = match &checksums {
                Some(checksums) => Box::new(checksums.verify(reader)),
                None => reader,
            };
            for_each_entry(BufReader::with_capacity(READ_BYTES, reader), |entry, content| {
                let file = pair.file(entry).map_err(Failure::Error)?;
                let path = target.join(&file);
                let copied = list.copy_from(content, left, target, &file);
                left -= copied.map_err(|error| match error {
                    CopyError::Read(e) => Failure::Read(e),
                    CopyError::Size(_) => Failure::Error(pair.refused(format!(
                        "{entry} would unpack to more than the {allowed} bytes allowed for the package's size"
                    ))),
                    CopyError::Write(source) => Failure::Error(Error::Cache { path, source }),
                })?;
                Ok(())
            })
        };
        done.map_err(|error| match error {
            StreamError::Read(e) | StreamError::Done(Failure::Read(e)) => super::read_error(tree, *index, e),
            StreamError::Damaged(at, reason) => pair.damaged(format!("at byte {at}: {reason}")),
            StreamError::Done(Failure::Error(error)) => error,
        })?;
        pair.check()?;
    }
    Ok(())
}

/// Bytes read at a time.
const READ_BYTES: usize = 1 << 20;

/// Why an entry was not copied.
enum Failure {
    Read(std::io::Error),
    Error(Error),
}

/// The IR and its weights in a packed model. Their base name is not reliable: Spark NLP puts a random prefix before it at
/// each save.
struct Pair<'a> {
    path: PathBuf,
    name: &'a str,
    xml: Option<String>,
    bin: Option<String>,
}

impl Pair<'_> {
    /// The plain name of an entry.
    fn file(&mut self, entry: &str) -> Result<String, Error> {
        if safe_parts(entry).is_none() {
            return Err(self.refused(format!("the entry {entry:?} leads out of the folder")));
        }
        let (base, extension) = entry.rsplit_once('.').unwrap_or((entry, ""));
        let place = match extension {
            "xml" => &mut self.xml,
            "bin" => &mut self.bin,
            _ => return Err(self.wrong(entry)),
        };
        match place.replace(base.to_owned()) {
            None => Ok(format!("{}.{extension}", self.name)),
            Some(_) => Err(self.wrong(entry)),
        }
    }

    fn check(&self) -> Result<(), Error> {
        match (&self.xml, &self.bin) {
            (Some(xml), Some(bin)) if xml == bin => Ok(()),
            (Some(xml), Some(bin)) => {
                Err(self.damaged(format!("{xml}.xml has no {xml}.bin beside it, but {bin}.bin")))
            }
            (Some(xml), None) => Err(self.wrong(&format!("{xml}.xml alone"))),
            (None, Some(bin)) => Err(self.wrong(&format!("{bin}.bin alone"))),
            (None, None) => Err(self.wrong("nothing")),
        }
    }

    fn wrong(&self, found: &str) -> Error {
        self.damaged(format!("it must hold one .xml and its .bin, it has {found}"))
    }

    fn damaged(&self, reason: String) -> Error {
        Error::DamagedZip { path: self.path.clone(), reason }
    }

    fn refused(&self, reason: String) -> Error {
        Error::UnsafeZip { path: self.path.clone(), reason }
    }
}
