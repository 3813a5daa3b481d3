//! Everything before inference: media to `pixel_values`, prompt to ids and positions. The counterpart of Hugging
//! Face's `Qwen2VLProcessor`; needs no OpenVINO.

use std::sync::Arc;
use std::time::Duration;

use qwen2vl_package::ModelPackage;
use qwen2vl_preprocess::{DecodeOptions, ImageSize, PixelLimits, PixelValues, Preprocessor};
use qwen2vl_runtime::{EngineOptions, MemoryPlan, WeightBytes};
use qwen2vl_tokenizer::{ChatTemplate, EncodedPrompt, Tokenizer};
use qwen2vl_types::GridThw;

use crate::media::{Known, Media};
use crate::memory_limit::{MemoryLimit, capped};
use crate::render::{Rendered, render};
use crate::vision_cache::VisionCache;
use crate::{Error, MediaInfo, PreparedVideo, Request, RequestOptions};

/// Turns requests into model inputs. `Send + Sync`.
pub struct Processor {
    pub(crate) package: ModelPackage,
    pub(crate) images: Preprocessor,
    pub(crate) videos: Preprocessor,
    pub(crate) template: ChatTemplate,
    pub(crate) decode: DecodeOptions,
    /// As the engine will use them.
    pub(crate) weights: WeightBytes,
    pub(crate) memory_limit: Option<MemoryLimit>,
    tokenizer: Arc<Tokenizer>,
}

/// A request ready for the model.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Prepared {
    /// The prompt's text, before placeholders are expanded.
    pub prompt: String,
    /// What was put right in the request.
    pub warnings: Vec<String>,
    /// Ids, positions and `rope_delta`.
    pub encoded: EncodedPrompt,
    /// `pixel_values` of each image.
    pub images: Vec<PixelValues>,
    /// What the vision cache says of each image; empty without one. `images` lack the data of what is known.
    pub(crate) known: Vec<Known>,
    /// The chosen frames of each video, which become pixel values while the vision tower runs.
    pub videos: Vec<PreparedVideo>,
    /// Images, then videos, as the model will see them.
    pub media: Vec<MediaInfo>,
    /// Time of reading and decoding.
    pub decode: Duration,
    /// Time of resizing, normalizing and cutting into patches.
    pub resize: Duration,
}

/// What an image of some size becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImagePlan {
    /// Size after `smart_resize`.
    pub resized: ImageSize,
    /// Patch grid.
    pub grid_thw: GridThw,
    /// Merged tokens in the prompt.
    pub tokens: usize,
    /// Predicted peak memory of the process for a question about it.
    pub peak_bytes: u64,
    /// The most pixels that the memory limit leaves it, if that is fewer than the options do.
    pub lowered_to: Option<u64>,
}

/// Tokens of template and question that a plan assumes around an image.
const PLAN_TEXT_TOKENS: usize = 64;

impl Processor {
    /// Loads tokenizer and template of a package.
    ///
    /// # Errors
    ///
    /// [`Error::Prompt`] for a tokenizer or template that cannot be used, [`Error::Image`] for preprocessing options
    /// out of range.
    pub fn new(package: ModelPackage, decode: DecodeOptions) -> Result<Self, Error> {
        let options_error = |source| Error::Image { input: "preprocessor_config.json".to_owned(), source };
        Ok(Self {
            images: Preprocessor::new(package.preprocess.clone()).map_err(options_error)?,
            videos: Preprocessor::new(package.video_preprocess.clone()).map_err(options_error)?,
            tokenizer: Arc::new(Tokenizer::from_file(&package.tokenizer_json)?),
            template: ChatTemplate::new(&package.chat_template)?,
            weights: WeightBytes::of(&package.files, &package.model, &EngineOptions::default()),
            package,
            decode,
            memory_limit: None,
        })
    }

    /// Plans memory for an engine with these options instead of the default ones.
    #[must_use]
    pub fn for_engine(mut self, options: &EngineOptions) -> Self {
        self.weights = WeightBytes::of(&self.package.files, &self.package.model, options);
        self
    }

    /// The package it was made from.
    pub fn package(&self) -> &ModelPackage {
        &self.package
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    pub(crate) fn shared_tokenizer(&self) -> Arc<Tokenizer> {
        Arc::clone(&self.tokenizer)
    }

    /// The pixel limits of the model's own `preprocessor_config.json`.
    pub fn model_pixel_limits(&self) -> PixelLimits {
        self.images.options().pixel_limits
    }

    /// What an image of this size becomes under these options, without any image.
    ///
    /// # Errors
    ///
    /// [`Error::Image`] if the size or the limits are out of range, [`Error::MemoryLimit`] where it would be refused.
    pub fn plan(&self, size: ImageSize, options: &RequestOptions) -> Result<ImagePlan, Error> {
        let limits = options.pixel_limits(self.model_pixel_limits());
        let lowered_to = self.pixels_within_limit(&[(size, limits)], PLAN_TEXT_TOKENS, options)?;
        let limits = capped(limits, lowered_to);
        let (resized, grid_thw) = self
            .images
            .plan(size, limits)
            .map_err(|source| Error::Image { input: format!("{}x{}", size.width, size.height), source })?;
        let tokens = self.tokens(grid_thw);
        let new_tokens = options.generation(&self.package.generation).max_new_tokens;
        let memory = self.memory_plan(Some(grid_thw), tokens + PLAN_TEXT_TOKENS, new_tokens);
        let decoded = size.pixels().saturating_mul(3);
        let peak_bytes = memory.peak_bytes().saturating_add(decoded);
        Ok(ImagePlan { resized, grid_thw, tokens, peak_bytes, lowered_to })
    }

    pub(crate) fn memory_plan(
        &self,
        grid: Option<GridThw>,
        prompt_tokens: usize,
        new_tokens: usize,
    ) -> MemoryPlan {
        let chunk = EngineOptions::default().prefill_chunk_tokens;
        MemoryPlan::new(&self.package.model, &self.weights, grid, prompt_tokens, new_tokens, chunk)
    }

    pub(crate) fn tokens(&self, grid: GridThw) -> usize {
        grid.n_tokens(self.package.model.geometry.merge_size)
    }

    /// Reads, decodes and preprocesses the media and encodes the prompt.
    ///
    /// # Errors
    ///
    /// The first problem of the request: see the variants of [`Error`]. An image too large for the context is refused
    /// from its header, before it is decoded.
    pub fn prepare(&self, request: &Request) -> Result<Prepared, Error> {
        self.prepare_with(request, &request.options, None)
    }

    /// [`Processor::prepare`] with other options than the request's own, and without computing what a cache knows.
    pub(crate) fn prepare_with(
        &self,
        request: &Request,
        options: &RequestOptions,
        cache: Option<&VisionCache>,
    ) -> Result<Prepared, Error> {
        self.prepare_rendered(render(&self.template, request, options)?, options, &[], cache)
    }

    /// [`Processor::prepare`] of a prompt that continues a conversation: of its media, those of `earlier` turns come
    /// first and are known.
    pub(crate) fn prepare_rendered(
        &self,
        rendered: Rendered<'_>,
        options: &RequestOptions,
        earlier: &[MediaInfo],
        cache: Option<&VisionCache>,
    ) -> Result<Prepared, Error> {
        let Rendered { prompt, media, mut warnings } = rendered;
        let max_input_tokens = options.max_input_tokens.or(self.package.generation.max_input_tokens);
        let mut room = Room { processor: self, max_input_tokens, tokens: 0 };
        room.take(earlier.iter().map(|m| m.tokens).sum())?;
        let max_pixels = self.given_within_limit(&media.images, &prompt, earlier, options)?;
        warnings.extend(self.memory_limit.zip(max_pixels).map(|(limit, pixels)| limit.warning(pixels)));
        let Media { images, known, videos, warnings: missing, media, decode, resize } =
            self.prepare_media(&media, options, max_pixels, &mut room, cache)?;
        warnings.extend(missing);

        let grids = |is_video| {
            let known = earlier.iter().chain(&media);
            known.filter(|m| m.is_video == is_video).map(|m| m.grid_thw).collect::<Vec<_>>()
        };
        let merge_size = self.package.model.geometry.merge_size;
        let encoded = self.tokenizer.prepare(&prompt, &grids(false), &grids(true), merge_size)?;
        self.check_context(encoded.input_ids.len(), max_input_tokens)?;
        self.check_limit(&media, encoded.input_ids.len(), options)?;
        Ok(Prepared { prompt, warnings, encoded, images, known, videos, media, decode, resize })
    }

    fn check_context(&self, prompt_tokens: usize, max_input_tokens: Option<usize>) -> Result<(), Error> {
        if let Some(limit) = max_input_tokens.filter(|limit| prompt_tokens > *limit) {
            return Err(qwen2vl_runtime::Error::InputTooLong { prompt_tokens, limit }.into());
        }
        let limit = self.package.model.max_position_embeddings;
        if prompt_tokens >= limit {
            return Err(qwen2vl_runtime::Error::ContextExceeded { prompt_tokens, limit }.into());
        }
        Ok(())
    }
}

/// Room in the context for media, used up one after the other.
pub(crate) struct Room<'p> {
    processor: &'p Processor,
    max_input_tokens: Option<usize>,
    tokens: usize,
}

impl Room<'_> {
    /// Tokens that there is room for.
    pub fn left(&self) -> usize {
        let context = self.processor.package.model.max_position_embeddings.saturating_sub(1);
        self.max_input_tokens.map_or(context, |limit| limit.min(context)).saturating_sub(self.tokens)
    }

    /// Takes room for so many tokens more.
    pub fn take(&mut self, tokens: usize) -> Result<(), Error> {
        self.tokens = self.tokens.saturating_add(tokens);
        self.processor.check_context(self.tokens, self.max_input_tokens)
    }
}

/// Refuses what does not fit into the free memory, before any of it is asked for.
pub(crate) fn fits_into(available_bytes: Option<u64>, needed_bytes: u64) -> Result<(), Error> {
    match available_bytes {
        Some(available_bytes) if available_bytes < needed_bytes => {
            Err(qwen2vl_runtime::Error::NotEnoughMemory { needed_bytes, available_bytes }.into())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_with_both_sizes() {
        assert!(fits_into(None, u64::MAX).is_ok(), "a system that does not tell");
        assert!(fits_into(Some(5 << 30), 5 << 30).is_ok());
        let error = fits_into(Some(5 << 30), 6 << 30).unwrap_err();
        assert_eq!(error.kind(), "memory");
        assert!(error.to_string().contains("6144 MiB") && error.to_string().contains("5120 MiB"), "{error}");
    }
}
