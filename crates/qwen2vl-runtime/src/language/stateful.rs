//! Prefill and decode on the stateful IR: inputs as optimum-intel's `OVModelForVisualCausalLM` sets them.

use std::path::{Path, PathBuf};

use qwen2vl_types::TokenId;
use sha2::{Digest, Sha256};

use super::embedder;
use super::last_logits::last_logits_only;
use crate::native::{Compiled, Element, Native, Port, Request};
use crate::plan::piece_tokens;
use crate::{
    CancelToken, EngineOptions, Error, LanguageSession, ModelConfig, ModelFiles, Prompt, VisionEmbeddings,
};

/// The language model with OpenVINO's own state, and the model that embeds tokens.
pub(crate) struct StatefulLanguageModel {
    text_embeddings: Compiled,
    language_model: Compiled,
    config: ModelConfig,
    prefill_chunk_tokens: usize,
}

impl StatefulLanguageModel {
    pub(crate) fn load(
        native: &mut Native,
        files: &ModelFiles,
        config: &ModelConfig,
        options: &EngineOptions,
    ) -> Result<Self, Error> {
        let hidden = Some(config.text.hidden_size);
        let text_embeddings = embedder::compile(native, files, config)?;
        let weights = files.language_model.with_extension("bin");
        let adapted = adapted_graph(&files.language_model, &weights, options.cache_dir.as_deref());
        let graph = adapted.as_deref().unwrap_or(&files.language_model);
        let language_model = native.compile("language_model", graph, &weights, |signature| {
            signature.expect_inputs(&[
                (Port::Named("inputs_embeds"), Element::F32, &[None, None, hidden]),
                (Port::Named("attention_mask"), Element::I64, &[None, None]),
                (Port::Named("position_ids"), Element::I64, &[Some(3), None, None]),
                (Port::Named("beam_idx"), Element::I32, &[None]),
            ])?;
            signature.expect_output(Port::Named("logits"), &[None, None, Some(config.vocab_size)])
        })?;
        Ok(Self {
            text_embeddings,
            language_model,
            config: config.clone(),
            prefill_chunk_tokens: options.prefill_chunk_tokens,
        })
    }

    /// A conversation with an empty KV cache.
    pub(crate) fn session(&self) -> Result<StatefulSession<'_>, Error> {
        Ok(StatefulSession {
            model: self,
            text_embeddings: self.text_embeddings.request()?,
            language_model: self.language_model.request()?,
            cache: CacheSlots::default(),
            logits: Vec::new(),
        })
    }
}

/// Writes the graph that computes only the last logits; `None`, and a word in the log, where that cannot be done: the
/// answer is the same, the prefill costs more.
fn adapted_graph(xml_path: &Path, weights: &Path, cache_dir: Option<&Path>) -> Option<PathBuf> {
    let Some(cache_dir) = cache_dir else {
        tracing::debug!(
            "logits of all positions are computed: there is no cache folder for the adapted graph"
        );
        return None;
    };
    let skip = |reason: String| {
        tracing::warn!(
            "{}: logits of all positions are computed, which costs time and memory: {reason}",
            xml_path.display()
        );
        None
    };
    let xml = match std::fs::read_to_string(xml_path) {
        Ok(xml) => xml,
        Err(error) => return skip(error.to_string()),
    };
    let adapted = match last_logits_only(&xml, weights) {
        Ok(adapted) => adapted,
        Err(reason) => return skip(reason),
    };
    let hash: String =
        Sha256::digest(adapted.as_bytes()).iter().take(8).map(|b| format!("{b:02x}")).collect();
    let target = cache_dir.join(format!("language_model-{hash}.xml"));
    if std::fs::metadata(&target).is_ok_and(|m| m.len() == adapted.len() as u64) {
        return Some(target);
    }
    let partial = cache_dir.join(format!("language_model-{hash}.partial-{}", std::process::id()));
    let written = std::fs::create_dir_all(cache_dir)
        .and_then(|()| std::fs::write(&partial, &adapted))
        .and_then(|()| std::fs::rename(&partial, &target));
    match written {
        Ok(()) => Some(target),
        Err(error) => {
            std::fs::remove_file(&partial).ok();
            skip(error.to_string())
        }
    }
}

/// One conversation: the requests hold its state.
pub(crate) struct StatefulSession<'m> {
    model: &'m StatefulLanguageModel,
    text_embeddings: Request,
    language_model: Request,
    cache: CacheSlots,
    logits: Vec<f32>,
}

/// The slots of the KV cache, of which the C API lets none be taken away: forgotten ones are masked out, which has the
/// same effect, since positions are inputs of their own.
#[derive(Debug, Default)]
struct CacheSlots {
    /// Of every slot whether it is attended to, 1 or 0; the same for all rows.
    mask: Vec<i64>,
    /// Slots attended to.
    tokens: usize,
    rows: usize,
}

impl CacheSlots {
    fn push(&mut self, rows: usize, tokens: usize) {
        self.mask.resize(self.mask.len() + tokens, 1);
        self.tokens += tokens;
        self.rows = rows;
    }

    fn rewind(&mut self, tokens: usize) {
        self.rows = self.rows.min(1);
        if tokens < self.tokens {
            self.mask.iter_mut().filter(|slot| **slot == 1).skip(tokens).for_each(|slot| *slot = 0);
            self.tokens = tokens;
        }
    }
}

impl LanguageSession for StatefulSession<'_> {
    fn prefill(&mut self, prompt: &Prompt<'_>, cancel: &CancelToken) -> Result<Option<&mut [f32]>, Error> {
        let past = self.cache.tokens;
        prompt.check(past, &self.model.config)?;
        let config = &self.model.config;
        let mut images = Rows::new(prompt.images);
        let mut videos = Rows::new(prompt.videos);
        let mut start = past;
        let piece = piece_tokens(prompt.input_ids.len(), self.model.prefill_chunk_tokens);
        for ids in prompt.input_ids[past..].chunks(piece) {
            if cancel.is_cancelled() {
                return Ok(None);
            }
            let positions = [0, 1, 2].map(|axis: usize| &prompt.position_ids[axis][start..start + ids.len()]);
            start += ids.len();
            self.forward(&[0], ids, positions, |embeddings| {
                let rows = embeddings.chunks_exact_mut(config.text.hidden_size);
                for (&id, row) in ids.iter().zip(rows) {
                    if id == config.image_token_id {
                        images.take(row);
                    } else if id == config.video_token_id {
                        videos.take(row);
                    }
                }
            })?;
        }
        Ok(Some(&mut self.logits))
    }

    fn decode(&mut self, parents: &[usize], tokens: &[TokenId], position: i64) -> Result<&mut [f32], Error> {
        let rows = self.cache.rows;
        let divides = !parents.is_empty() && !tokens.is_empty() && tokens.len().is_multiple_of(parents.len());
        if !divides || parents.iter().any(|parent| *parent >= rows) {
            return Err(Error::Rows { parents: parents.to_vec(), tokens: tokens.len(), rows });
        }
        let n = tokens.len() / parents.len();
        let positions: Vec<i64> = (position..).take(n).collect();
        self.forward(parents, tokens, [&positions; 3], |_| ())?;
        Ok(&mut self.logits)
    }

    fn past_tokens(&self) -> usize {
        self.cache.tokens
    }

    fn rewind(&mut self, past_tokens: usize) {
        self.cache.rewind(past_tokens);
        // Nothing is kept: a new request gives the cache's memory back. The old one would do as well.
        if let (0, Ok(request)) = (past_tokens, self.model.language_model.request()) {
            self.language_model = request;
            self.cache = CacheSlots::default();
        }
    }
}

impl StatefulSession<'_> {
    /// Runs tokens, `n` for each of the rows that continue `parents`, through embedding and language model behind what
    /// the cache holds; the logits of the last one of each row stay. `positions` are those of one row.
    fn forward(
        &mut self,
        parents: &[usize],
        ids: &[TokenId],
        positions: [&[i64]; 3],
        replace_rows: impl FnOnce(&mut [f32]),
    ) -> Result<(), Error> {
        let (rows, hidden) = (parents.len(), self.model.config.text.hidden_size);
        let n = ids.len() / rows;
        let (text_embeddings, language_model) = (&mut self.text_embeddings, &mut self.language_model);
        language_model.set_f32(Port::Named("inputs_embeds"), &[rows, n, hidden], |input| {
            embedder::embed(text_embeddings, &[rows, n], ids, input)?;
            replace_rows(input);
            Ok::<(), Error>(())
        })?;
        let past = &self.cache.mask;
        let slots = past.len() + n;
        language_model.set_i64(Port::Named("attention_mask"), &[rows, slots], |mask| {
            for row in mask.chunks_exact_mut(slots) {
                row[..past.len()].copy_from_slice(past);
                row[past.len()..].fill(1);
            }
        })?;
        language_model.set_i64(Port::Named("position_ids"), &[3, rows, n], |input| {
            for (axis, values) in input.chunks_exact_mut(rows * n).zip(positions) {
                axis.chunks_exact_mut(n).for_each(|row| row.copy_from_slice(values));
            }
        })?;
        language_model.set_i32(Port::Named("beam_idx"), &[rows], |beam| {
            for (value, &parent) in beam.iter_mut().zip(parents) {
                *value = parent as i32;
            }
        })?;
        language_model.infer()?;
        self.cache.push(rows, n);
        let (vocab_size, logits) = (self.model.config.vocab_size, &mut self.logits);
        language_model.read_f32(Port::Named("logits"), |dims, values| {
            // The adapted graph gives one position of each row, the exported one all.
            let row_len = values.len() / rows;
            if row_len < vocab_size || values.len() % rows != 0 || row_len % vocab_size != 0 {
                let detail =
                    format!("it returned logits of shape {dims:?}, expected [{rows}, n, {vocab_size}]");
                return Err(Error::ModelMismatch { model: "language_model", detail });
            }
            logits.clear();
            for row in values.chunks_exact(row_len) {
                logits.extend_from_slice(&row[row_len - vocab_size..]);
            }
            Ok(())
        })?
    }
}

/// Hands out the rows of several embeddings one after the other.
struct Rows<'a> {
    embeddings: &'a [VisionEmbeddings],
    row: usize,
}

impl<'a> Rows<'a> {
    fn new(embeddings: &'a [VisionEmbeddings]) -> Self {
        Self { embeddings, row: 0 }
    }

    /// Writes the next one.
    fn take(&mut self, out: &mut [f32]) {
        while self.row == self.embeddings[0].n_tokens() {
            self.embeddings = &self.embeddings[1..];
            self.row = 0;
        }
        self.embeddings[0].copy_row(self.row, out);
        self.row += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forgotten_slots_stay_masked_out() {
        let mut slots = CacheSlots::default();
        slots.push(1, 4);
        slots.push(3, 1);
        slots.rewind(5);
        assert_eq!((&slots.mask[..], slots.tokens, slots.rows), (&[1; 5][..], 5, 1));
        slots.rewind(3);
        slots.push(2, 2);
        assert_eq!((&slots.mask[..], slots.tokens, slots.rows), (&[1, 1, 1, 0, 0, 1, 1][..], 5, 2));
        slots.rewind(4);
        assert_eq!(slots.mask, [1, 1, 1, 0, 0, 1, 0]);
        slots.rewind(0);
        assert_eq!((slots.mask, slots.tokens), (vec![0; 7], 0));
    }
}
