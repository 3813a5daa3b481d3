//! Pixels to embeddings: patch embedding, rotary table, vision blocks and merger, one temporal patch at a time.
//!
//! Attention in Qwen2-VL's vision tower stays inside one temporal patch (`cu_seqlens` in Hugging Face's
//! `Qwen2VisionTransformerPretrainedModel`), so images and frames go through one by one with the same result. That
//! leaves nothing to mask, and the exported merger takes a `[1, 1, 1]` zero in place of its quadratic mask.

mod embeddings;
mod rotary;

use std::sync::Arc;

use qwen2vl_types::GridThw;

use crate::native::{Compiled, Element, Native, Port, Request};
use crate::paged::{Kind, Turns};
use crate::{CancelToken, EngineOptions, Error, ModelConfig, ModelFiles, Precision};

use embeddings::Growing;
pub use embeddings::{EmbeddingType, VisionEmbeddings};

/// Patches embedded in one call: bounds the copy that an inference input is.
const PATCH_CHUNK: usize = 8192;

/// Patches of an image or frame from which on memory is given back: what they take is a third of the weights of a 2B and more, and
/// getting it again is nothing beside encoding them.
const LARGE_PATCHES: u64 = 4096;

/// Whether vision tower and language model have memory one after the other for an image or video of this grid, whatever the options.
pub(crate) fn is_large(grid: GridThw) -> bool {
    u64::from(grid.h) * u64::from(grid.w) >= LARGE_PATCHES
}

/// The two vision models.
pub(crate) struct VisionEncoder {
    patch_embed: Compiled,
    merger: Compiled,
    config: ModelConfig,
    precision: Precision,
    low_memory: bool,
    turns: Arc<Turns>,
}

impl VisionEncoder {
    pub(crate) fn load(
        native: &mut Native,
        files: &ModelFiles,
        config: &ModelConfig,
        options: &EngineOptions,
        turns: &Arc<Turns>,
    ) -> Result<Self, Error> {
        let width = config.vision.hidden_size;
        let patch_len = config.geometry.patch_len();
        let patch_embed =
            native.compile_with_kernels("vision_embeddings", &files.vision_embeddings, |signature| {
                signature.expect_inputs(&[(Port::Only, Element::F32, &[None, Some(patch_len)])])?;
                signature.expect_output(Port::Only, &[None, Some(width)])
            })?;
        let rotary = rotary::width(&config.vision);
        let hidden = config.text.hidden_size;
        let merger = native.compile_with_kernels(
            "vision_embeddings_merger",
            &files.vision_embeddings_merger,
            |signature| {
                signature.expect_inputs(&[
                    (Port::Named("hidden_states"), Element::F32, &[None, Some(width)]),
                    (Port::Named("attention_mask"), Element::F32, &[Some(1), None, None]),
                    (Port::Named("rotary_pos_emb"), Element::F32, &[None, Some(rotary)]),
                ])?;
                signature.expect_output(Port::Only, &[None, Some(hidden)])
            },
        )?;
        Ok(Self {
            patch_embed,
            merger,
            config: config.clone(),
            precision: options.precision,
            low_memory: options.low_memory,
            turns: Arc::clone(turns),
        })
    }

    /// Whether it gives back what an image or video of this grid took once it is encoded.
    pub(crate) fn gives_back(&self, grid: GridThw) -> bool {
        self.low_memory || is_large(grid)
    }

    /// Who computes it.
    pub(crate) fn computed_by(&self) -> &'static str {
        match (self.merger.has_kernels(), self.merger.has_attention()) {
            (true, true) => "own products and attention",
            (true, false) => "own products",
            (false, _) => "OpenVINO's products",
        }
    }

    /// Encodes one image or video.
    pub(crate) fn encode(
        &self,
        pixel_values: &[f32],
        grid: GridThw,
        cancel: &CancelToken,
    ) -> Result<VisionEmbeddings, Error> {
        let patch_len = self.config.geometry.patch_len();
        let want = grid.n_patches().saturating_mul(patch_len);
        if pixel_values.len() != want {
            return Err(Error::PixelValues { got: pixel_values.len(), want, grid, patch_len });
        }
        let slices = pixel_values.chunks(want.div_ceil((grid.t as usize).max(1)).max(1));
        let frame = GridThw { t: 1, ..grid };
        self.encode_each(grid, slices, |pixels, out| self.encode_frame(pixels, frame, cancel, out))
    }

    /// Encodes one image or video whose temporal patches `fill` writes one after the other.
    pub(crate) fn encode_slices<E: From<Error>>(
        &self,
        grid: GridThw,
        cancel: &CancelToken,
        mut fill: impl FnMut(&mut [f32]) -> Result<(), E>,
    ) -> Result<VisionEmbeddings, E> {
        let frame = GridThw { t: 1, ..grid };
        let mut pixels = Vec::new();
        self.encode_each(grid, 0..grid.t, |_, out| {
            if cancel.is_cancelled() {
                return Err(Error::Cancelled.into());
            }
            pixels.resize(frame.n_patches() * self.config.geometry.patch_len(), 0.0);
            fill(&mut pixels)?;
            Ok(self.encode_frame(&pixels, frame, cancel, out)?)
        })
    }

    /// Collects what `encode` makes of each temporal patch.
    fn encode_each<T, E: From<Error>>(
        &self,
        grid: GridThw,
        slices: impl Iterator<Item = T>,
        mut encode: impl FnMut(T, &mut Growing) -> Result<(), E>,
    ) -> Result<VisionEmbeddings, E> {
        let geometry = self.config.geometry;
        let divides =
            grid.h.is_multiple_of(geometry.merge_size) && grid.w.is_multiple_of(geometry.merge_size);
        if grid.n_patches() == 0 || !divides {
            let patch_len = geometry.patch_len();
            let want = grid.n_patches().saturating_mul(patch_len);
            return Err(Error::PixelValues { got: want, want, grid, patch_len }.into());
        }
        let hidden_size = self.config.text.hidden_size;
        let mut growing = Growing::new(self.precision, grid.n_tokens(geometry.merge_size) * hidden_size);
        for slice in slices {
            encode(slice, &mut growing)?;
        }
        Ok(growing.finish(hidden_size))
    }

    fn encode_frame(
        &self,
        pixels: &[f32],
        grid: GridThw,
        cancel: &CancelToken,
        out: &mut Growing,
    ) -> Result<(), Error> {
        let _turn = self.turns.take(Kind::Vision);
        if cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        let n = grid.n_patches();
        let width = self.config.vision.hidden_size;
        // Fresh requests, so that their buffers, sized for this image, do not outlive it.
        let mut merger = self.merger.request()?;
        merger.set_f32(Port::Named("hidden_states"), &[n, width], |rows| self.embed_patches(pixels, rows))?;
        merger.set_f32(Port::Named("attention_mask"), &[1, 1, 1], |mask| {
            mask.fill(0.0);
            Ok::<(), Error>(())
        })?;
        merger.set_f32(Port::Named("rotary_pos_emb"), &[n, rotary::width(&self.config.vision)], |table| {
            rotary::fill(table, grid, self.config.geometry.merge_size, &self.config.vision);
            Ok::<(), Error>(())
        })?;
        let done = merger.infer_unless(cancel).and_then(|()| self.read(&mut merger, grid, out));
        drop(merger);
        if self.gives_back(grid) {
            self.merger.release_memory();
            self.merger.release_weights();
        }
        done
    }

    fn read(&self, merger: &mut Request, grid: GridThw, out: &mut Growing) -> Result<(), Error> {
        let want = [grid.n_tokens(self.config.geometry.merge_size), self.config.text.hidden_size];
        merger.read_f32(Port::Only, |dims, values| {
            if dims != want {
                let detail = format!("it returned shape {dims:?}, expected {want:?}");
                return Err(Error::ModelMismatch { model: "vision_embeddings_merger", detail });
            }
            out.push(values);
            Ok(())
        })?
    }

    /// Patch embedding: rows are independent, so they go through in pieces.
    fn embed_patches(&self, pixels: &[f32], rows: &mut [f32]) -> Result<(), Error> {
        let patch_len = self.config.geometry.patch_len();
        let width = self.config.vision.hidden_size;
        let mut request = self.patch_embed.request()?;
        for (pixels, rows) in pixels.chunks(PATCH_CHUNK * patch_len).zip(rows.chunks_mut(PATCH_CHUNK * width))
        {
            request.set_f32(Port::Only, &[pixels.len() / patch_len, patch_len], |input| {
                input.copy_from_slice(pixels);
                Ok::<(), Error>(())
            })?;
            request.infer()?;
            request.read_f32(Port::Only, |dims, values| {
                if values.len() != rows.len() {
                    let detail = format!("it returned shape {dims:?}, expected {} values", rows.len());
                    return Err(Error::ModelMismatch { model: "vision_embeddings", detail });
                }
                rows.copy_from_slice(values);
                Ok(())
            })??;
        }
        Ok(())
    }
}
