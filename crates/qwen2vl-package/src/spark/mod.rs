//! An annotator that Spark NLP saved → an export folder, as the rest of this crate reads.
//!
//! A saved `Qwen2VLTransformer` has its parameters in `metadata/`, vocabulary, merges and token ids in `fields/` as Java
//! objects, and each OpenVINO model as a zip in a file named `.xml`. It has no `config.json`: dimensions are taken from
//! the IRs. Everything is read once and written in the form that Hugging Face and optimum-intel use; what Spark NLP
//! wrote about the model goes into `spark_nlp.json` beside it.

mod configs;
mod features;
mod models;
mod tokenizer;

use std::io::Read;
use std::path::Path;

use qwen2vl_spark_files::checksum::{Checksums, Verifier, side_file_name};
use qwen2vl_spark_files::ml_metadata::Metadata;

use crate::cache::FileList;
use crate::files::{FileTree, select};
use crate::provenance::{Pipeline, RECORD_FILE, Record, SparkProvenance};
use crate::{Error, export};

/// The annotator's class.
pub(crate) const ANNOTATOR_CLASS: &str = "com.johnsnowlabs.nlp.annotators.cv.Qwen2VLTransformer";
/// A saved pipeline's class.
pub(crate) const PIPELINE_CLASS: &str = "org.apache.spark.ml.PipelineModel";

/// Side files hold 4 bytes for each 512 of their file; twice that is allowed.
fn max_checksums_bytes(size: u64) -> u64 {
    size / 64 + 64
}

/// A saved annotator in a tree.
#[derive(Debug)]
pub(crate) struct Annotator {
    /// Its folder, empty or ending in `/`.
    pub folder: String,
    pub metadata: Metadata,
    /// The saved pipeline around it.
    pub pipeline: Option<Pipeline>,
}

/// Whether a file's name is that of a part that Spark wrote; names starting with `_` or `.` are for Hadoop itself.
pub(crate) fn is_part(name: &str) -> bool {
    name.starts_with("part-")
}

/// Writes a saved annotator as an export folder into `target`, an empty folder.
pub(crate) fn convert(
    tree: &mut dyn FileTree,
    annotator: &Annotator,
    target: &Path,
    list: &mut FileList,
) -> Result<(), Error> {
    let parts = check_complete(tree, annotator)?;
    models::unpack(tree, &parts.models, target, list)?;
    let mut notes = parts.notes;
    let features = features::read(tree, &parts.features, &mut notes)?;
    list.write(target, "tokenizer.json", |file| tokenizer::write(&features, file))?;
    configs::write(target, tree.path(), annotator, &features, list, &mut notes)?;
    let metadata = &annotator.metadata;
    let record = Record {
        provenance: SparkProvenance {
            class: metadata.class.clone(),
            uid: metadata.uid.clone(),
            spark_version: metadata.spark_version.clone(),
            timestamp: metadata.timestamp,
            pipeline: annotator.pipeline.clone(),
        },
        param_map: metadata.param_map.clone(),
        default_param_map: metadata.default_param_map.clone(),
        notes,
    };
    list.write_json(target, RECORD_FILE, &record)?;
    // What does not open must not stay in the cache.
    export::open(target, "", tree.path(), None).map(drop).map_err(|e| e.at(target, tree.path()))
}

/// The bytes that unpacking will take, about: those of the packed models.
pub(crate) fn unpacked_bytes(tree: &dyn FileTree, annotator: &Annotator) -> u64 {
    let of_annotator = tree.entries().iter().filter(|e| e.name.starts_with(&annotator.folder));
    of_annotator.fold(0, |sum, e| sum.saturating_add(e.size))
}

/// The files that make up an annotator's content, for telling it from others: metadata, features, models.
pub(crate) fn content_files(tree: &dyn FileTree, annotator: &Annotator) -> Vec<usize> {
    select(tree, |folder, file| {
        folder.strip_prefix(annotator.folder.as_str()).is_some_and(|folder| match folder {
            "" => file.starts_with("openvino_"),
            "metadata/" => is_part(file),
            folder => folder.starts_with("fields/") && is_part(file),
        })
    })
}

/// The indices of everything that is needed.
struct Parts {
    models: Vec<models::Packed>,
    features: Vec<(&'static str, Vec<usize>)>,
    notes: Vec<String>,
}

/// Finds all that an annotator needs, and names everything that is missing at once.
fn check_complete(tree: &dyn FileTree, annotator: &Annotator) -> Result<Parts, Error> {
    let folder = &annotator.folder;
    let (mut missing, mut notes) = (Vec::new(), Vec::new());
    let mut found_models = Vec::new();
    for name in models::NEEDED {
        match tree.find(&format!("{folder}{name}.xml")) {
            Some(index) => found_models.push(models::Packed { name, index }),
            None => missing.push(format!("{folder}{name}.xml")),
        }
    }
    for name in models::UNNEEDED {
        if tree.find(&format!("{folder}{name}.xml")).is_none() {
            notes.push(format!("{name}.xml is missing; Spark NLP needs it, this project does not"));
        }
    }
    let mut found_features = Vec::new();
    for feature in features::NEEDED {
        let feature_folder = format!("{folder}fields/{feature}/");
        let parts = select(tree, |folder, file| folder == feature_folder && is_part(file));
        if let Some(parquet) = parts.iter().find(|i| tree.entries()[**i].name.ends_with(".parquet")) {
            return Err(Error::DatasetFormat { path: tree.location(*parquet) });
        }
        match parts.is_empty() {
            true => missing.push(format!("{folder}fields/{feature}")),
            false => found_features.push((feature, parts)),
        }
    }
    if !missing.is_empty() {
        return Err(Error::Incomplete { path: tree.path().to_owned(), missing });
    }
    Ok(Parts { models: found_models, features: found_features, notes })
}

/// The checksums that Hadoop wrote beside a file, if they are there.
pub(crate) fn checksums(tree: &mut dyn FileTree, index: usize) -> Result<Option<Checksums>, Error> {
    let limit = max_checksums_bytes(tree.entries()[index].size);
    let (folder, name) = tree.entries()[index].split();
    let Some(side) = tree.find(&format!("{folder}{}", side_file_name(name))) else {
        return Ok(None);
    };
    let content = tree.read_small(side, limit)?;
    let parsed = Checksums::parse(&content);
    parsed.map(Some).map_err(|source| Error::SparkFile { path: tree.location(side), source })
}

/// The content of a small file, checked against its side file where there is one.
pub(crate) fn read_checked(tree: &mut dyn FileTree, index: usize, limit: u64) -> Result<Vec<u8>, Error> {
    let checksums = checksums(tree, index)?;
    let content = tree.read_small(index, limit)?;
    if let Some(checksums) = checksums {
        verify(&checksums, content.as_slice())
            .map_err(|source| Error::SparkFile { path: tree.location(index), source })?;
    }
    Ok(content)
}

/// The error for a failed read of a file that is checked and unpacked while it is read.
pub(crate) fn read_error(tree: &dyn FileTree, index: usize, error: std::io::Error) -> Error {
    let path = tree.location(index);
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<qwen2vl_spark_files::Error>());
    if inner.is_some() {
        return Error::SparkFile { path, source: qwen2vl_spark_files::Error::io(0, error) };
    }
    if error.raw_os_error().is_some() {
        return tree.read_error(index, error);
    }
    let reason = match error.kind() {
        std::io::ErrorKind::UnexpectedEof => "it ends too early".to_owned(),
        _ => error.to_string(),
    };
    Error::DamagedZip { path, reason }
}

/// Checks a file against its side file, if it has one.
fn verify_file(tree: &mut dyn FileTree, index: usize) -> Result<(), Error> {
    let Some(checksums) = checksums(tree, index)? else { return Ok(()) };
    let path = tree.location(index);
    let reader = tree.read(index)?;
    verify(&checksums, reader).map_err(|source| Error::SparkFile { path, source })
}

fn verify(checksums: &Checksums, mut reader: impl Read) -> Result<(), qwen2vl_spark_files::Error> {
    let mut verifier = Verifier::new(checksums);
    let mut buffer = vec![0; 256 << 10];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return verifier.finish(),
            Ok(n) => verifier.update(&buffer[..n])?,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(qwen2vl_spark_files::Error::io(verifier.offset(), e)),
        }
    }
}
