//! A loaded model: vision encoder and language model behind one door.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use qwen2vl_types::{GridThw, TokenId};

use crate::language::LanguageModel;
use crate::native::Native;
use crate::paged::{Bulk, EngineStats, Turns};
use crate::vision::VisionEncoder;
use crate::{
    CancelToken, EngineOptions, Error, Generation, GenerationConfig, LanguageSession, ModelConfig,
    ModelFiles, Prompt, VisionEmbeddings, generate, library,
};

/// A Qwen2-VL model, loaded and compiled. `Send + Sync`: threads may share it; each call has its own requests and
/// conversations do not see each other.
pub struct Engine {
    vision: VisionEncoder,
    language: LanguageModel,
    config: ModelConfig,
    turns: Arc<Turns>,
    // Last, so that OpenVINO ends after everything compiled by it.
    _native: std::sync::Mutex<Native>,
}

impl Engine {
    /// Loads OpenVINO and compiles the four models.
    ///
    /// # Errors
    ///
    /// [`Error::LibraryNotFound`] and [`Error::LibraryUnusable`] without a usable OpenVINO, [`Error::ModelFile`] for a
    /// file that cannot be read, [`Error::ModelMismatch`] for a model whose inputs or outputs do not fit `config`,
    /// [`Error::OpenVino`] when OpenVINO fails, [`Error::InvalidOption`] for options out of range.
    pub fn load(files: &ModelFiles, config: &ModelConfig, options: &EngineOptions) -> Result<Self, Error> {
        for (name, value) in [
            ("threads", options.threads.unwrap_or(1)),
            ("prefill_chunk_tokens", options.prefill_chunk_tokens),
        ] {
            if value == 0 {
                return Err(Error::InvalidOption {
                    name,
                    value: "0".to_owned(),
                    allowed: "1 or more".into(),
                });
            }
        }
        let started = Instant::now();
        let mut native = Native::start(options)?;
        let turns = Arc::new(Turns::default());
        let (language, vision) =
            LanguageModel::load(&mut native, files, config, options, &turns, |native| {
                VisionEncoder::load(native, files, config, options, &turns)
            })?;
        tracing::debug!("models compiled in {:.1} s", started.elapsed().as_secs_f64());
        Ok(Self { vision, language, config: config.clone(), turns, _native: std::sync::Mutex::new(native) })
    }

    /// The model's dimensions.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// What computes embeddings, for those who keep them: OpenVINO's build number, and whose products of weights and attention they
    /// are.
    pub fn vision_identity(&self) -> String {
        format!("OpenVINO {}, {}", library::version(), self.vision.computed_by())
    }

    /// Encodes one image or video: `pixel_values [grid.n_patches(), patch_len]`, row-major, in merge order.
    ///
    /// # Errors
    ///
    /// [`Error::PixelValues`] if values and grid do not fit, [`Error::OpenVino`] when inference fails, [`Error::Cancelled`], where
    /// products are our own at once, else after the image or frame.
    pub fn encode_vision(
        &self,
        pixel_values: &[f32],
        grid: GridThw,
        cancel: &CancelToken,
    ) -> Result<VisionEmbeddings, Error> {
        self.make_room(grid);
        self.vision.encode(pixel_values, grid, cancel)
    }

    /// Encodes one image or video whose pixels are never in memory together: `fill` is called `grid.t` times, and writes
    /// the next temporal patch, `[grid.h * grid.w, patch_len]`, over the one before. The same as
    /// [`Engine::encode_vision`] of them all.
    ///
    /// # Errors
    ///
    /// Those of `fill`, and as [`Engine::encode_vision`].
    pub fn encode_slices<E: From<Error>>(
        &self,
        grid: GridThw,
        cancel: &CancelToken,
        fill: impl FnMut(&mut [f32]) -> Result<(), E>,
    ) -> Result<VisionEmbeddings, E> {
        self.make_room(grid);
        self.vision.encode_slices(grid, cancel, fill)
    }

    /// What the language model answers with need not lie in memory beside what a large image takes.
    fn make_room(&self, grid: GridThw) {
        if self.vision.gives_back(grid) {
            self.language.release_weights();
        }
    }

    /// Starts a conversation with an empty KV cache, for callers with a loop of their own.
    ///
    /// # Errors
    ///
    /// [`Error::OpenVino`] when OpenVINO fails.
    pub fn session(&self) -> Result<Box<dyn LanguageSession + '_>, Error> {
        self.language.session()
    }

    /// Whether conversations of several threads run in the same steps. Where they do not, each is as fast as if it were
    /// alone only when it is.
    pub fn shares_steps(&self) -> bool {
        matches!(self.language, LanguageModel::Paged(..))
    }

    /// As long as what is returned lives, images are encoded before the language model takes its next step: best for many
    /// requests, and not for one that somebody waits for.
    pub fn bulk(&self) -> Bulk<'_> {
        self.turns.bulk()
    }

    /// What the engine did since it was loaded.
    pub fn stats(&self) -> EngineStats {
        match &self.language {
            LanguageModel::Paged(engine, _) => engine.stats(),
            LanguageModel::Stateful(_) => EngineStats::default(),
        }
    }

    /// Answers a prompt; see [`generate`].
    ///
    /// # Errors
    ///
    /// As [`generate`], and [`Error::Placeholders`], [`Error::Positions`], [`Error::TokenId`] for a prompt that does
    /// not fit the model or its embeddings.
    pub fn generate(
        &self,
        prompt: &Prompt<'_>,
        config: &GenerationConfig,
        cancel: &CancelToken,
        on_token: &mut dyn FnMut(TokenId) -> ControlFlow<()>,
    ) -> Result<Generation, Error> {
        generate(
            self.session()?.as_mut(),
            prompt,
            config,
            self.config.max_position_embeddings,
            None,
            cancel,
            on_token,
        )
    }
}

/// `Send + Sync` is part of the promise.
const _: () = {
    const fn shared<T: Send + Sync>() {}
    shared::<Engine>();
};
