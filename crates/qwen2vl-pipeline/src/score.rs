//! Scoring labels: how probable each of some given answers to a request is, without generating any.
//!
//! The arithmetic is the runtime's (`qwen2vl_runtime::score`); here labels are texts.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use qwen2vl_runtime::{CancelToken, MemoryPlan, ScoreOptions, available_memory_bytes, score};
use qwen2vl_tokenizer::Tokenizer;
use qwen2vl_types::{GridThw, TokenId};
use serde::Serialize;

use crate::annotation::cached;
use crate::processor::fits_into;
use crate::{Annotator, Error, ImageInput, MediaInfo, Prepared, Request, RowError, Times};

/// The most labels that are run through the model at once, if there is memory for so many.
const MOST_ROWS: usize = 32;

/// Labels to choose among, each an answer as the model would write it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labels {
    texts: Vec<String>,
    token_ids: Vec<Vec<TokenId>>,
}

/// A label and how probable it is.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ScoredLabel {
    /// The label.
    pub label: String,
    /// Natural logarithm of the probability that the model answers exactly this, and ends there; by its own distribution,
    /// whatever temperature or penalties.
    pub logprob: f32,
    /// The probability among the labels: they sum up to 1.
    pub probability: f32,
}

/// Scores of labels for one request.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Scores {
    /// All labels, the most probable first.
    pub labels: Vec<ScoredLabel>,
    /// Tokens of the prompt, media included.
    pub prompt_tokens: usize,
    /// Images, then videos, as the model saw them.
    pub media: Vec<MediaInfo>,
    /// Images and videos whose embeddings were known: the vision cache had them.
    pub cached_vision: usize,
    /// What was put right in the request, as a missing placeholder.
    pub warnings: Vec<String>,
    /// Where the time went; `generate` is that of the labels.
    pub times: Times,
    /// Name of the model.
    pub model: String,
}

impl Labels {
    /// Reads labels; the order does not matter.
    ///
    /// # Errors
    ///
    /// [`qwen2vl_runtime::Error::InvalidOption`] for an empty list, an empty label, and labels that are the same or have
    /// the same tokens. One label may begin another.
    pub fn new<T: AsRef<str>>(tokenizer: &Tokenizer, labels: &[T]) -> Result<Self, Error> {
        let refuse = |value: String, allowed: &'static str| {
            Err(qwen2vl_runtime::Error::InvalidOption { name: "labels", value, allowed: allowed.into() }
                .into())
        };
        if labels.is_empty() {
            return refuse("an empty list".to_owned(), "one label or more");
        }
        let texts: Vec<String> = labels.iter().map(|label| label.as_ref().to_owned()).collect();
        let token_ids = texts.iter().map(|text| tokenizer.encode(text)).collect::<Result<Vec<_>, _>>()?;
        let mut sorted: Vec<usize> = (0..texts.len()).collect();
        sorted.sort_by_key(|index| &token_ids[*index]);
        if token_ids[sorted[0]].is_empty() {
            return refuse(format!("{:?}", texts[sorted[0]]), "labels of one character or more");
        }
        if let Some(pair) = sorted.windows(2).find(|pair| token_ids[pair[0]] == token_ids[pair[1]]) {
            let [a, b] = [&texts[pair[0]], &texts[pair[1]]];
            let value = if a == b { format!("{a:?} twice") } else { format!("{a:?} and {b:?}, one text") };
            return refuse(value, "labels that differ");
        }
        Ok(Self { texts, token_ids })
    }

    /// The labels.
    pub fn texts(&self) -> &[String] {
        &self.texts
    }

    fn longest(&self) -> usize {
        self.token_ids.iter().map(Vec::len).max().unwrap_or(0)
    }
}

impl Annotator {
    /// Says how probable each of the labels is as the answer to a question about an image.
    ///
    /// The prompt is run once, and of the labels' tokens each that several begin with. With the end of a label counted,
    /// one that begins another ("cat", "cats") is told apart from it.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), qwen2vl_pipeline::Error> {
    /// let annotator = qwen2vl_pipeline::Annotator::builder().model("qwen2-vl-2b-int4").build()?;
    /// let scores = annotator.score("photo.jpg", "Cat or dog? Answer in one word.", &["cat", "dog"])?;
    /// println!("{} {:.3}", scores.labels[0].label, scores.labels[0].probability);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Labels::new`] and [`Annotator::run`], and [`qwen2vl_runtime::Error::LabelTooLong`].
    pub fn score<T: AsRef<str>>(
        &self,
        image: impl Into<ImageInput>,
        prompt: &str,
        labels: &[T],
    ) -> Result<Scores, Error> {
        let labels = Labels::new(self.processor.tokenizer(), labels)?;
        let scores =
            self.score_request(&Request::question(prompt).image(image), &labels, &CancelToken::new())?;
        Ok(scores.expect("nothing cancels it"))
    }

    /// Scores labels as the answer to a request; `None` when cancelled. Of the request's options only those of its images
    /// and prompt count, and `stop_token_ids`, of which any may follow a label.
    ///
    /// # Errors
    ///
    /// As [`Annotator::score`].
    pub fn score_request(
        &self,
        request: &Request,
        labels: &Labels,
        cancel: &CancelToken,
    ) -> Result<Option<Scores>, Error> {
        let prepared = self.prepare_cached(request)?;
        self.score_prepared(request, &prepared, labels, cancel)
    }

    /// Scores labels for many requests, as [`Annotator::run_all`] answers them. A cancelled one is not handed over.
    pub fn score_all(
        &self,
        requests: impl IntoIterator<Item = Result<Request, Error>, IntoIter: Send>,
        labels: &Labels,
        cancel: &CancelToken,
        mut on_result: impl FnMut(usize, Result<Scores, Error>) -> ControlFlow<()>,
    ) {
        let score =
            |request: &Request, prepared: &Prepared| self.score_prepared(request, prepared, labels, cancel);
        self.prepare_ahead(requests, cancel, score, |index, result| match result.transpose() {
            Some(result) => on_result(index, result),
            None => ControlFlow::Break(()),
        });
    }

    fn score_prepared(
        &self,
        request: &Request,
        prepared: &Prepared,
        labels: &Labels,
        cancel: &CancelToken,
    ) -> Result<Option<Scores>, Error> {
        let package = self.processor.package();
        let config = request.options.or(&self.defaults).generation(&package.generation);
        let plan = self.memory_plan(prepared, labels.longest());
        let max_rows = rows_that_fit(&plan, labels.texts.len(), available_memory_bytes())?;
        let options = ScoreOptions {
            stop_token_ids: &config.stop_token_ids,
            context_tokens: package.model.max_position_embeddings,
            max_rows,
        };
        let embeddings = self.encode(prepared, cancel)?;
        if cancel.is_cancelled() {
            return Ok(None);
        }
        let mut session = self.engine.session()?;
        let prompt = self.prompt(&prepared.encoded, 0, &embeddings);
        let Some(scores) = score(session.as_mut(), &prompt, &labels.token_ids, &options, cancel)? else {
            return Ok(None);
        };
        let scored = labels.texts.iter().zip(&scores.scores).map(|(label, score)| ScoredLabel {
            label: label.clone(),
            logprob: score.logprob,
            probability: score.probability,
        });
        let mut sorted: Vec<ScoredLabel> = scored.collect();
        sorted.sort_by(|a, b| b.logprob.total_cmp(&a.logprob));
        Ok(Some(Scores {
            labels: sorted,
            prompt_tokens: prepared.encoded.input_ids.len(),
            media: prepared.media.clone(),
            cached_vision: embeddings.known,
            warnings: prepared.warnings.clone(),
            times: Times {
                decode: prepared.decode,
                resize: prepared.resize,
                vision: embeddings.time,
                prefill: scores.prefill,
                generate: scores.labels,
            },
            model: package.name.clone(),
        }))
    }
}

/// How many of the labels' rows fit into the free memory.
fn rows_that_fit(plan: &MemoryPlan, labels: usize, available: Option<u64>) -> Result<usize, Error> {
    let mut rows = labels.clamp(1, MOST_ROWS);
    while rows > 1 && fits_into(available, plan.with_rows(rows).request_bytes()).is_err() {
        rows /= 2;
    }
    fits_into(available, plan.with_rows(rows).request_bytes())?;
    Ok(rows)
}

/// One row of bulk output: the scores of labels, or an error.
///
/// Serialized as `{"input", "prompt", "result", "probability", "labels", "prompt_tokens", "grid_thw", "time_ms", "cached", "model",
/// "error"}`, `labels` as `[{"label", "logprob", "probability"}, …]`, the most probable first; fields that an error leaves
/// open are `null`. Before `"error"` come `"warnings"` if something was put right.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ScoreRow {
    /// The input as it was named.
    pub input: serde_json::Value,
    /// The question.
    pub prompt: String,
    /// The most probable label.
    pub result: Option<String>,
    /// Its probability among the labels.
    pub probability: Option<f32>,
    /// All labels, the most probable first.
    pub labels: Option<Vec<ScoredLabel>>,
    /// Tokens of the prompt, media included.
    pub prompt_tokens: Option<usize>,
    /// Patch grids of images, then videos, each `[t, h, w]`.
    pub grid_thw: Option<Vec<GridThw>>,
    /// Where the time went, in milliseconds.
    pub time_ms: Option<Times>,
    /// What was not computed because it was known, as in [`crate::ResultRow`].
    pub cached: BTreeMap<String, serde_json::Value>,
    /// Name of the model.
    pub model: String,
    /// What was put right in the request.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// What went wrong.
    pub error: Option<RowError>,
}

impl ScoreRow {
    /// The row of a request that was named `input`.
    pub fn new(
        input: impl Into<serde_json::Value>,
        prompt: impl Into<String>,
        model: impl Into<String>,
        result: Result<Scores, Error>,
    ) -> Self {
        let mut row = Self {
            input: input.into(),
            prompt: prompt.into(),
            result: None,
            probability: None,
            labels: None,
            prompt_tokens: None,
            grid_thw: None,
            time_ms: None,
            cached: BTreeMap::new(),
            model: model.into(),
            warnings: Vec::new(),
            error: None,
        };
        match result {
            Ok(scores) => {
                row.result = scores.labels.first().map(|best| best.label.clone());
                row.probability = scores.labels.first().map(|best| best.probability);
                row.labels = Some(scores.labels);
                row.prompt_tokens = Some(scores.prompt_tokens);
                row.grid_thw = Some(scores.media.iter().map(|m| m.grid_thw).collect());
                row.time_ms = Some(scores.times);
                row.cached = cached(0, scores.cached_vision);
                row.warnings = scores.warnings;
            }
            Err(error) => row.error = Some(RowError::from(&error)),
        }
        row
    }
}

#[cfg(test)]
mod tests {
    use qwen2vl_runtime::Phase;

    use super::*;

    #[test]
    fn labels_take_fewer_rows_where_memory_is_short() {
        let work = |work| Phase { weights: 2000, work };
        let (vision, language) = (work(10), work(90));
        let plan = MemoryPlan { base_bytes: 1000, vision, language, row_bytes: 100, in_turn: false };
        for (labels, available, want) in [
            (20, None, Some(20)),
            (1000, None, Some(32)),
            (1000, Some(3200), Some(32)),
            (1000, Some(3199), Some(16)),
            (3, Some(199), Some(1)),
            (3, Some(99), None),
        ] {
            let got = rows_that_fit(&plan, labels, available);
            assert_eq!(got.as_ref().ok(), want.as_ref(), "{labels} {available:?} {got:?}");
        }
    }

    #[test]
    fn rows_have_the_documented_fields_in_order() {
        let labels = [("cat", -0.5, 0.75), ("dog", -1.5, 0.25)];
        let scored = labels.map(|(label, logprob, probability)| ScoredLabel {
            label: label.to_owned(),
            logprob,
            probability,
        });
        let scores = Scores {
            labels: scored.to_vec(),
            prompt_tokens: 30,
            media: Vec::new(),
            cached_vision: 1,
            warnings: Vec::new(),
            times: Times::default(),
            model: "demo".to_owned(),
        };
        let row = serde_json::to_string(&ScoreRow::new("cat.png", "What?", "demo", Ok(scores))).unwrap();
        assert_eq!(
            row,
            "{\"input\":\"cat.png\",\"prompt\":\"What?\",\"result\":\"cat\",\"probability\":0.75,\"labels\":[\
             {\"label\":\"cat\",\"logprob\":-0.5,\"probability\":0.75},\
             {\"label\":\"dog\",\"logprob\":-1.5,\"probability\":0.25}],\"prompt_tokens\":30,\"grid_thw\":[],\
             \"time_ms\":{\"decode\":0.0,\"resize\":0.0,\"vision\":0.0,\"prefill\":0.0,\"generate\":0.0},\
             \"cached\":{\"vision\":1},\"model\":\"demo\",\"error\":null}"
        );
        let row = serde_json::to_value(ScoreRow::new("x", "", "demo", Err(Error::NoModel))).unwrap();
        assert_eq!((&row["result"], &row["error"]["kind"]), (&serde_json::Value::Null, &"model".into()));
    }
}
