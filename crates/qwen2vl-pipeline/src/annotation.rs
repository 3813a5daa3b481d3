//! What comes back: an annotation, and the row that bulk output is made of.

use std::collections::BTreeMap;
use std::time::Duration;

use qwen2vl_preprocess::ImageSize;
use qwen2vl_runtime::FinishReason;
use qwen2vl_types::{GridThw, TokenId};
use serde::{Serialize, Serializer};

use crate::{AnswerBox, AnswerBoxes, Error, MalformedBox, TokenLogprobs};

/// One image or video as the model saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MediaInfo {
    /// The file's path, or which image or video of the request it is.
    pub input: String,
    /// Whether it is a video.
    pub is_video: bool,
    /// Size after the EXIF turn.
    pub size: ImageSize,
    /// Size after `smart_resize`.
    pub resized: ImageSize,
    /// Patch grid.
    pub grid_thw: GridThw,
    /// Merged tokens in the prompt.
    pub tokens: usize,
}

/// Where the time of a request went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Times {
    /// Reading and decoding image files.
    #[serde(serialize_with = "milliseconds")]
    pub decode: Duration,
    /// Resizing, normalizing, cutting into patches.
    #[serde(serialize_with = "milliseconds")]
    pub resize: Duration,
    /// The vision tower.
    #[serde(serialize_with = "milliseconds")]
    pub vision: Duration,
    /// The prompt's pass through the language model.
    #[serde(serialize_with = "milliseconds")]
    pub prefill: Duration,
    /// The answer's tokens after the first logits.
    #[serde(serialize_with = "milliseconds")]
    pub generate: Duration,
}

/// Milliseconds with one digit after the point.
fn milliseconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((duration.as_secs_f64() * 10_000.0).round() / 10.0)
}

/// The answer to one request.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Annotation {
    /// The answer.
    pub result: String,
    /// Its tokens, without the stop token. After a stop string they spell its beginning too, which `result` lacks.
    pub token_ids: Vec<TokenId>,
    /// Log-probabilities of these tokens, if the request asks for them.
    pub logprobs: Option<Vec<TokenLogprobs>>,
    /// Score of a beam, see [`qwen2vl_runtime::Generation::score`]; `None` without beam search.
    pub score: Option<f32>,
    /// The other answers, where several were asked for; beams with the best first.
    pub alternatives: Vec<Alternative>,
    /// Boxes in the answer; `None` where it has none, unless [`crate::BoxForms::Any`] was asked for.
    pub boxes: Option<AnswerBoxes>,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// Where a format was asked for: whether the model ended the answer itself. If not, it was closed because tokens ran
    /// low and still has the format, unless it was cancelled.
    pub complete: Option<bool>,
    /// Tokens of the prompt, media included.
    pub prompt_tokens: usize,
    /// Of these, tokens that were not computed: a conversation held them already, or an earlier request began with them.
    pub cached_tokens: usize,
    /// Images and videos whose embeddings were known: the vision cache had them. Of a conversation, those of the last turn.
    pub cached_vision: usize,
    /// Images, then videos, as the model saw them; in a conversation those of all turns.
    pub media: Vec<MediaInfo>,
    /// What was put right in the request, as a missing placeholder.
    pub warnings: Vec<String>,
    /// Where the time went.
    pub times: Times,
    /// Name of the model.
    pub model: String,
}

/// One of several answers to a request, beside the first.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Alternative {
    /// The answer.
    pub result: String,
    /// Its tokens, without the stop token.
    pub token_ids: Vec<TokenId>,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// Score of a beam; left out without beam search.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score: Option<f32>,
    /// Log-probabilities of its tokens; left out where nobody asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logprobs: Option<Vec<TokenLogprobs>>,
}

/// One row of bulk output: an answer or an error, never neither.
///
/// Serialized as `{"input", "prompt", "result", "finish_reason", "prompt_tokens", "output_tokens", "grid_thw",
/// "time_ms", "cached", "model", "error"}`; fields that an error leaves open are `null`. Before `"error"` come, where
/// asked for, `"complete"` for a format, `"logprobs"`, for beams `"score"`, for several answers `"alternatives"`, and where the answer has boxes or all forms of boxes are asked for, `"boxes"`, and
/// `"malformed_boxes"` if there are any; and `"warnings"` if something was put right.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ResultRow {
    /// The input as it was named.
    pub input: serde_json::Value,
    /// The question.
    pub prompt: String,
    /// The answer.
    pub result: Option<String>,
    /// Why it ended: `stop`, `length` or `cancelled`.
    pub finish_reason: Option<FinishReason>,
    /// Tokens of the prompt, media included.
    pub prompt_tokens: Option<usize>,
    /// Tokens of the answer.
    pub output_tokens: Option<usize>,
    /// Patch grids of images, then videos, each `[t, h, w]`.
    pub grid_thw: Option<Vec<GridThw>>,
    /// Where the time went, in milliseconds.
    pub time_ms: Option<Times>,
    /// What was not computed because it was known: `tokens` of the prompt, and of images and videos those in `vision`;
    /// what is 0 is left out.
    pub cached: BTreeMap<String, serde_json::Value>,
    /// Name of the model.
    pub model: String,
    /// Whether the model ended the answer itself; left out where no format was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub complete: Option<bool>,
    /// Log-probabilities of the answer's tokens; left out where nobody asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logprobs: Option<Vec<TokenLogprobs>>,
    /// Score of a beam; left out without beam search.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score: Option<f32>,
    /// The other answers, where several were asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub alternatives: Vec<Alternative>,
    /// Boxes in pixels of the original images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boxes: Option<Vec<AnswerBox>>,
    /// What was meant as a box and is none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub malformed_boxes: Vec<MalformedBox>,
    /// What was put right in the request.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// What went wrong.
    pub error: Option<RowError>,
}

/// The error of a row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RowError {
    /// Stable name, see [`Error::kind`].
    pub kind: String,
    /// What went wrong and what to do.
    pub message: String,
}

impl RowError {
    /// An error of this kind, see [`Error::kind`].
    pub fn new(kind: impl Into<String>, message: impl Into<String>) -> Self {
        Self { kind: kind.into(), message: message.into() }
    }
}

impl From<&Error> for RowError {
    fn from(error: &Error) -> Self {
        Self::new(error.kind(), error.to_string())
    }
}

impl ResultRow {
    /// The row of an input for which there is no answer.
    pub fn failed(
        input: impl Into<serde_json::Value>,
        prompt: impl Into<String>,
        model: impl Into<String>,
        error: RowError,
    ) -> Self {
        Self {
            input: input.into(),
            prompt: prompt.into(),
            result: None,
            finish_reason: None,
            prompt_tokens: None,
            output_tokens: None,
            grid_thw: None,
            time_ms: None,
            cached: BTreeMap::new(),
            model: model.into(),
            complete: None,
            logprobs: None,
            score: None,
            alternatives: Vec::new(),
            boxes: None,
            malformed_boxes: Vec::new(),
            warnings: Vec::new(),
            error: Some(error),
        }
    }

    /// The row of a request that was named `input`.
    pub fn new(
        input: impl Into<serde_json::Value>,
        prompt: impl Into<String>,
        model: impl Into<String>,
        result: Result<Annotation, Error>,
    ) -> Self {
        match result {
            Ok(annotation) => Self {
                boxes: annotation.boxes.as_ref().map(|b| b.boxes.clone()),
                malformed_boxes: annotation.boxes.map(|b| b.malformed).unwrap_or_default(),
                input: input.into(),
                prompt: prompt.into(),
                finish_reason: Some(annotation.finish_reason),
                prompt_tokens: Some(annotation.prompt_tokens),
                output_tokens: Some(annotation.token_ids.len()),
                grid_thw: Some(annotation.media.iter().map(|m| m.grid_thw).collect()),
                time_ms: Some(annotation.times),
                result: Some(annotation.result),
                warnings: annotation.warnings,
                cached: cached(annotation.cached_tokens, annotation.cached_vision),
                model: model.into(),
                complete: annotation.complete,
                logprobs: annotation.logprobs,
                score: annotation.score,
                alternatives: annotation.alternatives,
                error: None,
            },
            Err(error) => Self::failed(input, prompt, model, RowError::from(&error)),
        }
    }
}

/// What was known of a request.
pub(crate) fn cached(tokens: usize, vision: usize) -> BTreeMap<String, serde_json::Value> {
    let counts = [("tokens", tokens), ("vision", vision)].into_iter();
    counts.filter(|(_, n)| *n > 0).map(|(name, n)| (name.to_owned(), n.into())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_have_the_documented_fields_in_order() {
        let annotation = Annotation {
            result: "a cat".to_owned(),
            token_ids: vec![1, 2],
            logprobs: None,
            score: None,
            alternatives: Vec::new(),
            boxes: None,
            finish_reason: FinishReason::Stop,
            complete: None,
            prompt_tokens: 30,
            cached_tokens: 0,
            cached_vision: 2,
            warnings: Vec::new(),
            media: vec![MediaInfo {
                input: "cat.png".to_owned(),
                is_video: false,
                size: ImageSize { height: 50, width: 60 },
                resized: ImageSize { height: 56, width: 56 },
                grid_thw: GridThw { t: 1, h: 4, w: 4 },
                tokens: 4,
            }],
            times: Times { decode: Duration::from_micros(1234), ..Times::default() },
            model: "demo".to_owned(),
        };
        let row = serde_json::to_string(&ResultRow::new("cat.png", "What?", "demo", Ok(annotation))).unwrap();
        assert_eq!(
            row,
            "{\"input\":\"cat.png\",\"prompt\":\"What?\",\"result\":\"a cat\",\"finish_reason\":\"stop\",\
             \"prompt_tokens\":30,\"output_tokens\":2,\"grid_thw\":[[1,4,4]],\"time_ms\":{\"decode\":1.2,\
             \"resize\":0.0,\"vision\":0.0,\"prefill\":0.0,\"generate\":0.0},\"cached\":{\"vision\":2},\"model\":\"demo\",\
             \"error\":null}"
        );
    }

    #[test]
    fn an_error_row_keeps_input_and_prompt() {
        let row = ResultRow::new("cat.png", "What?", "demo", Err(Error::NoModel));
        let row = serde_json::to_value(&row).unwrap();
        assert_eq!(row["input"], "cat.png");
        assert_eq!(row["result"], serde_json::Value::Null);
        assert_eq!(row["error"]["kind"], "model");
        assert!(row["error"]["message"].as_str().unwrap().starts_with("no model"));
    }
}
