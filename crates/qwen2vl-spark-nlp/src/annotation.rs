//! Spark NLP's two annotation structs, with the names that Spark writes.
//!
//! What Spark NLP writes has empty metadata; here they say how the answer ended, or why there is none.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{Error, SparkImage, bytes};

/// Annotator type of answers.
pub const DOCUMENT: &str = "document";
/// Annotator type of images.
pub const IMAGE: &str = "image";

/// An image with its question, as `ImageAssembler` makes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AnnotationImage {
    /// Always [`IMAGE`].
    pub annotator_type: String,
    /// Where the image comes from.
    #[serde(default)]
    pub origin: String,
    /// Height in pixels.
    pub height: i32,
    /// Width in pixels.
    pub width: i32,
    /// Bytes of a pixel.
    pub n_channels: i32,
    /// OpenCV's number for the kind of pixel.
    pub mode: i32,
    /// Pixels, or the bytes of an image file.
    #[serde(with = "bytes", default)]
    pub result: Arc<[u8]>,
    /// `{"image": "0"}`.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// The question, or a prompt with its template; empty for the default one.
    #[serde(default)]
    pub text: String,
}

impl AnnotationImage {
    /// An image and what is asked about it.
    pub fn new(image: SparkImage, text: impl Into<String>) -> Self {
        Self {
            annotator_type: IMAGE.to_owned(),
            origin: image.origin,
            height: image.height,
            width: image.width,
            n_channels: image.n_channels,
            mode: image.mode,
            result: image.data,
            metadata: [("image".to_owned(), "0".to_owned())].into(),
            text: text.into(),
        }
    }

    /// A question without an image, as `LightPipeline` makes it: zeros and no bytes.
    pub fn of_text(text: impl Into<String>) -> Self {
        let [height, width, n_channels, mode] = [0; 4];
        Self::new(
            SparkImage { origin: String::new(), height, width, n_channels, mode, data: Arc::default() },
            text,
        )
    }

    /// Whether it is a question without an image.
    pub fn is_text_only(&self) -> bool {
        self.result.is_empty() && self.height == 0 && self.width == 0 && !self.text.trim().is_empty()
    }

    /// Its image.
    pub fn image(&self) -> SparkImage {
        SparkImage {
            origin: self.origin.clone(),
            height: self.height,
            width: self.width,
            n_channels: self.n_channels,
            mode: self.mode,
            data: Arc::clone(&self.result),
        }
    }
}

/// An answer, as `Qwen2VLTransformer` makes it, or the reason why there is none.
///
/// In `metadata`, where Spark NLP has nothing:
///
/// | key | value |
/// |---|---|
/// | `image` | which of the row's images was asked about, from 0 |
/// | `finish_reason` | `stop`, `length` or `cancelled` |
/// | `prompt_tokens`, `output_tokens` | numbers |
/// | `grid_thw` | `[[t,h,w]]` of each image |
/// | `time_ms` | an object: `decode`, `resize`, `vision`, `prefill`, `generate` |
/// | `model` | the model's name |
/// | `sequence` | which of several answers, from 0; left out of a single one |
/// | `score` | of a beam |
/// | `boxes` | boxes in the answer, in pixels, where it has any |
/// | `warnings` | a list, where something was put right |
/// | `error_kind`, `error` | of a row without an answer: [`Error::kind`], and what went wrong; then no others but `image` |
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Annotation {
    /// Always [`DOCUMENT`].
    pub annotator_type: String,
    /// Always 0.
    pub begin: i32,
    /// UTF-16 units of the answer minus 1; -1 of an empty one.
    pub end: i32,
    /// The answer.
    pub result: String,
    /// How it came about.
    pub metadata: BTreeMap<String, String>,
    /// Always empty.
    pub embeddings: Vec<f32>,
}

impl Annotation {
    /// A document of this text, with these metadata.
    pub fn document(result: impl Into<String>, metadata: BTreeMap<String, String>) -> Self {
        let result = result.into();
        let end = utf16_end(&result);
        Self { annotator_type: DOCUMENT.to_owned(), begin: 0, end, result, metadata, embeddings: Vec::new() }
    }

    /// The row of what could not be answered: no text, and why.
    pub fn failed(kind: &str, message: impl Into<String>) -> Self {
        let metadata =
            [("error_kind", kind.to_owned()), ("error", message.into()), ("image", "0".to_owned())];
        Self::document("", metadata.map(|(key, value)| (key.to_owned(), value)).into())
    }

    /// What went wrong: the kind and the message.
    pub fn error(&self) -> Option<(&str, &str)> {
        let get = |key| self.metadata.get(key).map(String::as_str);
        Some((get("error_kind")?, get("error")?))
    }

    /// All answers to a request, the first and its alternatives, numbered where there are several.
    pub fn sequences(mut annotation: qwen2vl_pipeline::Annotation) -> Vec<Self> {
        let alternatives = std::mem::take(&mut annotation.alternatives);
        let mut all = vec![Self::from(annotation)];
        for alternative in alternatives {
            let mut metadata = all[0].metadata.clone();
            // Those are of the first answer alone.
            metadata.remove("boxes");
            metadata.remove("score");
            metadata.insert("finish_reason".to_owned(), text(json!(alternative.finish_reason)));
            metadata.insert("output_tokens".to_owned(), alternative.token_ids.len().to_string());
            metadata.extend(alternative.score.map(|score| ("score".to_owned(), score.to_string())));
            all.push(Self::document(alternative.result, metadata));
        }
        if all.len() > 1 {
            for (index, annotation) in all.iter_mut().enumerate() {
                annotation.metadata.insert("sequence".to_owned(), index.to_string());
            }
        }
        all
    }

    /// Which of the row's images it is about.
    pub(crate) fn about_image(mut self, index: usize) -> Self {
        self.metadata.insert("image".to_owned(), index.to_string());
        self
    }
}

/// A value as metadata hold it.
fn text(value: serde_json::Value) -> String {
    match value {
        serde_json::Value::String(text) => text,
        other => other.to_string(),
    }
}

/// The last index of a text as Spark NLP counts: UTF-16 units from 0, so -1 for an empty text.
pub fn utf16_end(text: &str) -> i32 {
    i32::try_from(text.encode_utf16().count()).map_or(i32::MAX, |units| units - 1)
}

/// The first answer; [`Annotation::sequences`] has all.
impl From<qwen2vl_pipeline::Annotation> for Annotation {
    fn from(annotation: qwen2vl_pipeline::Annotation) -> Self {
        let grids: Vec<_> = annotation.media.iter().map(|m| m.grid_thw).collect();
        let mut metadata: BTreeMap<String, String> = [
            ("image", json!("0")),
            ("finish_reason", json!(annotation.finish_reason)),
            ("prompt_tokens", json!(annotation.prompt_tokens)),
            ("output_tokens", json!(annotation.token_ids.len())),
            ("grid_thw", json!(grids)),
            ("time_ms", json!(annotation.times)),
            ("model", json!(annotation.model)),
        ]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), text(value)))
        .collect();
        if let Some(boxes) = annotation.boxes.filter(|b| !b.boxes.is_empty()) {
            metadata.insert("boxes".to_owned(), json!(boxes.boxes).to_string());
        }
        metadata.extend(annotation.score.map(|score| ("score".to_owned(), score.to_string())));
        if !annotation.warnings.is_empty() {
            metadata.insert("warnings".to_owned(), json!(annotation.warnings).to_string());
        }
        Self::document(annotation.result, metadata)
    }
}

impl From<&qwen2vl_pipeline::Error> for Annotation {
    fn from(error: &qwen2vl_pipeline::Error) -> Self {
        Self::failed(error.kind(), error.to_string())
    }
}

impl From<&Error> for Annotation {
    fn from(error: &Error) -> Self {
        Self::failed(error.kind(), error.to_string())
    }
}

/// An answer or an annotation of its error: what a row becomes, whatever happened.
impl<E> From<Result<qwen2vl_pipeline::Annotation, E>> for Annotation
where
    for<'e> Self: From<&'e E>,
{
    fn from(result: Result<qwen2vl_pipeline::Annotation, E>) -> Self {
        match result {
            Ok(annotation) => annotation.into(),
            Err(error) => Self::from(&error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_counts_utf16_units() {
        for (text, end) in
            [("", -1), ("a", 0), ("ab\n", 2), ("é", 0), ("你好", 1), ("🙂", 1), ("e\u{301}", 1)]
        {
            assert_eq!(utf16_end(text), end, "{text:?}");
        }
    }

    #[test]
    fn an_error_is_an_annotation_without_text() {
        let annotation = Annotation::from(&Error::NullImage);
        assert_eq!((annotation.begin, annotation.end, annotation.result.as_str()), (0, -1, ""));
        let (kind, message) = annotation.error().unwrap();
        assert_eq!(kind, "image");
        assert!(message.contains("no image"), "{message}");
        let of_pipeline: Annotation = Err(qwen2vl_pipeline::Error::NoModel).into();
        assert_eq!(of_pipeline.error().unwrap().0, "model");
    }

    #[test]
    fn its_json_is_spark_s() {
        let json = serde_json::to_string(&Annotation::document("a cat", BTreeMap::new())).unwrap();
        let want = r#"{"annotatorType":"document","begin":0,"end":4,"result":"a cat","metadata":{},"embeddings":[]}"#;
        assert_eq!(json, want);
    }
}
