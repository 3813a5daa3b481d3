//! What a folder or zip holds, told by its content: an OpenVINO export, or an annotator that Spark NLP saved.
//!
//! Names alone do not tell: `openvino_language_model.xml` is an IR in an export and a zip in a saved annotator.

use std::collections::BTreeMap;
use std::io::Read;

use qwen2vl_spark_files::ml_metadata::Metadata;

use crate::Error;
use crate::files::zip::is_zip;
use crate::files::{Entry, FileTree};
use crate::provenance::Pipeline;
use crate::spark::Annotator;
use crate::{export, spark};

/// Metadata of one stage is some kilobytes.
const MAX_METADATA_BYTES: u64 = 4 << 20;

/// What was found, and where.
#[derive(Debug)]
pub(crate) enum Layout {
    /// IRs as they are.
    Export {
        /// Their folder, empty or ending in `/`.
        folder: String,
    },
    /// A saved annotator, alone or as a stage of a pipeline.
    Annotator(Box<Annotator>),
}

/// Finds the one model in a tree.
pub(crate) fn detect(tree: &mut dyn FileTree) -> Result<Layout, Error> {
    let mut stages = read_metadata(tree)?;
    let annotators: Vec<String> =
        stages.iter().filter(|(_, m)| m.class == spark::ANNOTATOR_CLASS).map(|(f, _)| f.clone()).collect();
    let (exports, packed) = ir_folders(tree)?;
    let mut found: Vec<&String> = annotators.iter().chain(&exports).collect();
    found.sort();
    found.dedup();
    if found.len() > 1 {
        let folders = found.into_iter().cloned().collect();
        return Err(Error::SeveralModels { path: tree.path().to_owned(), folders });
    }
    if let Some(folder) = exports.first() {
        return Ok(Layout::Export { folder: folder.clone() });
    }
    if let Some(folder) = annotators.into_iter().next() {
        let pipeline = pipeline_around(&folder, &stages);
        let metadata = stages.remove(&folder).expect("it was found there");
        return Ok(Layout::Annotator(Box::new(Annotator { folder, metadata, pipeline })));
    }
    Err(nothing_found(tree, &stages, packed))
}

/// The metadata of everything that Spark saved, by folder.
fn read_metadata(tree: &mut dyn FileTree) -> Result<BTreeMap<String, Metadata>, Error> {
    let mut parts: BTreeMap<String, usize> = BTreeMap::new();
    for (index, entry) in tree.entries().iter().enumerate() {
        let (folder, name) = entry.split();
        let Some(owner) = folder.strip_suffix("metadata/").filter(|o| o.is_empty() || o.ends_with('/'))
        else {
            continue;
        };
        // Spark writes one part; with empty ones beside it, the first with content counts.
        if spark::is_part(name) && entry.size > 0 && !is_shadow(entry) {
            let first = parts.entry(owner.to_owned()).or_insert(index);
            if tree.entries()[*first].name > entry.name {
                *first = index;
            }
        }
    }
    let mut stages = BTreeMap::new();
    for (folder, index) in parts {
        let content = spark::read_checked(tree, index, MAX_METADATA_BYTES)?;
        let metadata = Metadata::parse(&content)
            .map_err(|source| Error::SparkFile { path: tree.location(index), source })?;
        stages.insert(folder, metadata);
    }
    Ok(stages)
}

/// Folders that hold IRs, and a folder that holds packed ones.
fn ir_folders(tree: &mut dyn FileTree) -> Result<(Vec<String>, Option<String>), Error> {
    let markers: Vec<usize> = (0..tree.entries().len())
        .filter(|i| !is_shadow(&tree.entries()[*i]) && export::is_marker(tree.entries()[*i].split().1))
        .collect();
    let (mut folders, mut packed) = (Vec::new(), None);
    for index in markers {
        let folder = tree.entries()[index].split().0.to_owned();
        let mut start = Vec::new();
        let read = tree.read(index)?.take(4).read_to_end(&mut start);
        read.map_err(|e| tree.read_error(index, e))?;
        if is_zip(&start) {
            packed = Some(folder);
        } else if !folders.contains(&folder) {
            folders.push(folder);
        }
    }
    Ok((folders, packed))
}

/// The innermost pipeline of which `folder` is a stage.
fn pipeline_around(folder: &str, stages: &BTreeMap<String, Metadata>) -> Option<Pipeline> {
    let (around, metadata) = stages
        .iter()
        .filter(|(around, m)| {
            m.class == spark::PIPELINE_CLASS
                && folder.strip_prefix(around.as_str()).is_some_and(|rest| rest.starts_with("stages/"))
        })
        .max_by_key(|(around, _)| around.len())?;
    let stage_folder = format!("{around}stages/");
    let mut classes: Vec<(usize, String)> = stages
        .iter()
        .filter_map(|(folder, m)| {
            let stage = folder.strip_prefix(&stage_folder)?.strip_suffix('/').filter(|s| !s.contains('/'))?;
            let number = stage.split('_').next()?.parse().ok()?;
            Some((number, m.class.clone()))
        })
        .collect();
    classes.sort();
    Some(Pipeline {
        uid: metadata.uid.clone(),
        stages: classes.into_iter().map(|(_, class)| class).collect(),
    })
}

fn nothing_found(tree: &dyn FileTree, stages: &BTreeMap<String, Metadata>, packed: Option<String>) -> Error {
    let path = tree.path().to_owned();
    if !stages.is_empty() {
        let mut found: Vec<String> = stages.values().map(|m| m.class.clone()).collect();
        found.sort();
        found.dedup();
        return Error::WrongClass { path, found, expected: spark::ANNOTATOR_CLASS };
    }
    if let Some(folder) = packed {
        return Error::Incomplete { path, missing: vec![format!("{folder}metadata/part-00000")] };
    }
    let names: Vec<&str> = tree.entries().iter().map(|e| e.split().1).collect();
    match export::check_names(&path, &names) {
        Err(error) => error,
        Ok(()) => Error::NotAPackage { path },
    }
}

/// macOS puts a shadow of every file below this folder.
fn is_shadow(entry: &Entry) -> bool {
    entry.name.starts_with("__MACOSX/")
}
