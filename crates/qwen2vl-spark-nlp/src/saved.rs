//! `load` of what Spark saved: an assembler, and a pipeline of both stages.
//!
//! The assembler's metadata are read here; the annotator is a model package and is opened as one.

use std::path::{Path, PathBuf};

use qwen2vl_spark_files::ml_metadata::Metadata;

use crate::{Error, ImageAssembler, PipelineModel, Qwen2VLTransformer};

/// The end of the assembler's class name.
const ASSEMBLER: &str = ".ImageAssembler";
/// Metadata are a few KiB.
const MAX_BYTES: u64 = 4 << 20;

impl ImageAssembler {
    /// An assembler that Spark NLP saved.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] and [`Error::SavedStage`].
    pub fn load(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let metadata = metadata(path)?;
        if !metadata.class.ends_with(ASSEMBLER) {
            let reason = format!("it is a {}, expected is an ImageAssembler", metadata.class);
            return Err(Error::SavedStage { path: path.to_owned(), reason });
        }
        let set = |assembler: Self, name: &str, set: fn(Self, String) -> Self| match metadata
            .param(name)
            .and_then(|(value, _)| value.as_str())
        {
            Some(column) => set(assembler, column.to_owned()),
            None => assembler,
        };
        let assembler = set(Self::new(), "inputCol", Self::set_input_col);
        let assembler = set(assembler, "outputCol", Self::set_output_col);
        Ok(set(assembler, "textCol", Self::set_text_col))
    }
}

impl PipelineModel {
    /// A pipeline that Spark saved, or a zip of one. An annotator alone gets an assembler with the defaults, and so does
    /// one in a zip, whose other stages are not read.
    ///
    /// # Errors
    ///
    /// As [`Qwen2VLTransformer::load`] and [`ImageAssembler::load`].
    pub fn load(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let transformer = Qwen2VLTransformer::load(path)?;
        let assembler = match saved_assembler(path)? {
            Some(stage) => ImageAssembler::load(stage)?,
            None => ImageAssembler::new()
                .set_output_col(transformer.get_input_cols().into_iter().next().unwrap_or_default()),
        };
        Ok(Self::new(assembler, transformer))
    }
}

/// The folder of the pipeline's assembler.
fn saved_assembler(pipeline: &Path) -> Result<Option<PathBuf>, Error> {
    let stages = pipeline.join("stages");
    if !stages.is_dir() {
        return Ok(None);
    }
    let error = |source| Error::Io { path: stages.clone(), source };
    for entry in std::fs::read_dir(&stages).map_err(error)? {
        let stage = entry.map_err(error)?.path();
        if stage.is_dir() && metadata(&stage)?.class.ends_with(ASSEMBLER) {
            return Ok(Some(stage));
        }
    }
    Ok(None)
}

/// A saved stage's metadata: the first part file that holds anything.
fn metadata(stage: &Path) -> Result<Metadata, Error> {
    let folder = stage.join("metadata");
    let error = |source| Error::Io { path: folder.clone(), source };
    let mut parts = Vec::new();
    for entry in std::fs::read_dir(&folder).map_err(error)? {
        let entry = entry.map_err(error)?;
        let bytes = entry.metadata().map_err(error)?.len();
        if entry.file_name().to_string_lossy().starts_with("part-") && bytes > 0 {
            parts.push((entry.path(), bytes));
        }
    }
    parts.sort();
    let unusable = |reason: String| Error::SavedStage { path: stage.to_owned(), reason };
    let Some((part, bytes)) = parts.into_iter().next() else {
        return Err(unusable("its folder metadata has no part file".to_owned()));
    };
    if bytes > MAX_BYTES {
        return Err(unusable(format!("its metadata have {bytes} bytes, more than the limit of {MAX_BYTES}")));
    }
    let content = std::fs::read(&part).map_err(|source| Error::Io { path: part.clone(), source })?;
    Metadata::parse(&content).map_err(|e| unusable(format!("its metadata cannot be read: {e}")))
}
