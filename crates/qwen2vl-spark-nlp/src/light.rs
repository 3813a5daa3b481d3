//! `LightPipeline`: a path and a question in, annotations out, without a frame.
//!
//! Follows Spark NLP's class: an empty path or text is none, the default question is asked without a text, and a path
//! that leads to no file gives an empty map. A file that is no image has an annotation with the error, where Spark NLP
//! fails.

use std::collections::BTreeMap;
use std::path::Path;

use qwen2vl_preprocess::{DecodeOptions, decode_image};

use crate::{Annotation, AnnotationImage, Cell, DataFrame, DataType, Error, PipelineModel, SparkImage};

/// What a column holds for one image.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum LightCell {
    /// The image and what was asked.
    Images(Vec<AnnotationImage>),
    /// The answers.
    Annotations(Vec<Annotation>),
}

impl LightCell {
    /// The answers, if it holds any.
    pub fn annotations(&self) -> &[Annotation] {
        if let Self::Annotations(annotations) = self { annotations } else { &[] }
    }

    /// The images, if it holds any.
    pub fn images(&self) -> &[AnnotationImage] {
        if let Self::Images(images) = self { images } else { &[] }
    }
}

/// The columns of one image, by their names; empty where its path led to no file.
pub type LightRow = BTreeMap<String, LightCell>;

/// A fitted pipeline for single images.
#[derive(Debug, Clone)]
pub struct LightPipeline {
    model: PipelineModel,
}

impl LightPipeline {
    /// Of a fitted pipeline.
    pub fn new(model: PipelineModel) -> Self {
        Self { model }
    }

    /// Annotates one image. Without a text the default question is asked; with a text and an empty path, the text alone.
    ///
    /// # Errors
    ///
    /// Of parameters, and without a usable OpenVINO; what is wrong with the image is in its annotation.
    pub fn full_annotate_image<'t>(
        &self,
        path: impl AsRef<Path>,
        text: impl Into<Option<&'t str>>,
    ) -> Result<LightRow, Error> {
        let rows = self.rows(&[(path.as_ref(), text.into().unwrap_or_default())])?;
        Ok(rows.into_iter().next().unwrap_or_default())
    }

    /// Annotates images, each with its text, or all with the default question if there are no texts.
    ///
    /// # Errors
    ///
    /// [`Error::Lengths`] if there are more or fewer texts than paths, and as [`LightPipeline::full_annotate_image`].
    pub fn full_annotate_images(
        &self,
        paths: &[impl AsRef<Path>],
        texts: &[impl AsRef<str>],
    ) -> Result<Vec<LightRow>, Error> {
        if !texts.is_empty() && texts.len() != paths.len() {
            return Err(Error::Lengths { paths: paths.len(), texts: texts.len() });
        }
        let text = |i: usize| texts.get(i).map_or("", AsRef::as_ref);
        let asked: Vec<_> = paths.iter().enumerate().map(|(i, path)| (path.as_ref(), text(i))).collect();
        self.rows(&asked)
    }

    /// As [`LightPipeline::full_annotate_image`], the texts alone: `""` for an image.
    ///
    /// # Errors
    ///
    /// As [`LightPipeline::full_annotate_image`].
    pub fn annotate<'t>(
        &self,
        path: impl AsRef<Path>,
        text: impl Into<Option<&'t str>>,
    ) -> Result<BTreeMap<String, Vec<String>>, Error> {
        let texts = |cell: LightCell| match cell {
            LightCell::Images(images) => vec![String::new(); images.len()],
            LightCell::Annotations(annotations) => annotations.into_iter().map(|a| a.result).collect(),
        };
        let row = self.full_annotate_image(path, text)?;
        Ok(row.into_iter().map(|(name, cell)| (name, texts(cell))).collect())
    }

    fn rows(&self, asked: &[(&Path, &str)]) -> Result<Vec<LightRow>, Error> {
        let transformer = self.model.transformer();
        let resolved = transformer.resolved()?;
        let images: Vec<Option<AnnotationImage>> =
            asked.iter().map(|(path, text)| image(path, text)).collect();
        let mut rows = vec![LightRow::new(); asked.len()];
        for (row, image) in rows.iter_mut().zip(&images) {
            let cell = image.iter().cloned().collect();
            if image.is_some() {
                row.insert(self.model.assembler().get_output_col().to_owned(), LightCell::Images(cell));
            }
        }
        if resolved.lazy {
            return Ok(rows);
        }
        let there = images.iter().flatten().map(|image| Cell::AnnotationImages(vec![Some(image.clone())]));
        let name = &resolved.input_col;
        let frame = DataFrame::default().with_column(name, DataType::AnnotationImages, there.collect())?;
        let answered = transformer.transform(&frame)?;
        let mut answers = answered.annotations(&resolved.output_col)?.into_iter();
        for (row, _) in rows.iter_mut().zip(&images).filter(|(_, image)| image.is_some()) {
            let answer = answers.next().unwrap_or_default().to_vec();
            row.insert(resolved.output_col.clone(), LightCell::Annotations(answer));
        }
        Ok(rows)
    }
}

/// The image of a path, decoded if it can be, with empty metadata as Spark NLP has it here; `None` without a file.
fn image(path: &Path, text: &str) -> Option<AnnotationImage> {
    let origin = path.display().to_string();
    let image = if origin.is_empty() && !text.trim().is_empty() {
        AnnotationImage::of_text(text)
    } else if path.is_file() {
        AnnotationImage::new(read(path, origin), text)
    } else {
        return None;
    };
    Some(AnnotationImage { metadata: BTreeMap::new(), ..image })
}

/// What cannot be decoded stays as it is: its annotation tells why.
fn read(path: &Path, origin: String) -> SparkImage {
    let Ok(bytes) = std::fs::read(path) else { return SparkImage::invalid(origin) };
    match decode_image(&bytes, &DecodeOptions::default()) {
        Ok(image) => SparkImage::from_rgb(origin, &image),
        Err(_) => SparkImage::encoded(origin, bytes),
    }
}
