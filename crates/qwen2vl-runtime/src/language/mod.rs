//! The language model on OpenVINO: paged, for many conversations at once, or stateful, each with a request of its own.

mod embedder;
mod last_logits;
mod paged;
mod stateful;

use std::sync::Arc;

use qwen2vl_shim::Model;

use crate::native::Native;
use crate::paged::{PagedEngine, Turns};
use crate::{EngineKind, EngineOptions, Error, LanguageSession, ModelConfig, ModelFiles};
use embedder::Embedder;
use paged::{PagedCompiler, PagedLanguageModel};
use stateful::StatefulLanguageModel;

/// The language model in one of its two forms.
pub(crate) enum LanguageModel {
    /// With the compiled model, whose weights can be let go of.
    Paged(Box<PagedEngine>, Arc<Model>),
    Stateful(Box<StatefulLanguageModel>),
}

impl LanguageModel {
    /// Compiles it while `meanwhile` runs, whose result comes with it.
    pub(crate) fn load<R>(
        native: &mut Native,
        files: &ModelFiles,
        config: &ModelConfig,
        options: &EngineOptions,
        turns: &Arc<Turns>,
        meanwhile: impl FnOnce(&mut Native) -> Result<R, Error>,
    ) -> Result<(Self, R), Error> {
        let compiler = match options.engine {
            EngineKind::Stateful => None,
            EngineKind::Paged => Some(PagedCompiler::new(native)?),
            // Not tried on any other device.
            EngineKind::Auto if options.device != "CPU" => None,
            EngineKind::Auto => PagedCompiler::new(native).map_err(|e| not_paged(&e)).ok(),
        };
        let (paged, embedder, other) = std::thread::scope(|scope| {
            let compile = |compiler: PagedCompiler| {
                move || compiler.compile(&files.language_model, &config.text, options)
            };
            let paged = compiler.map(|compiler| scope.spawn(compile(compiler)));
            let embedder = paged.is_some().then(|| Embedder::load(native, files, config, options.precision));
            let other = meanwhile(native);
            let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            (paged.map(join), embedder, other)
        });
        let other = other?;
        if let (Some(paged), Some(embedder)) = (paged, embedder.transpose()?) {
            let model = paged.and_then(|compiled| {
                Ok((PagedLanguageModel::new(&compiled, embedder, config, options)?, compiled))
            });
            match model {
                Ok(((model, limits), compiled)) => {
                    let engine = PagedEngine::new(Box::new(model), config, limits, Arc::clone(turns));
                    return Ok((Self::Paged(Box::new(engine), compiled), other));
                }
                Err(error) if options.engine == EngineKind::Paged => return Err(error),
                Err(error) => not_paged(&error),
            }
        }
        let model = StatefulLanguageModel::load(native, files, config, options)?;
        Ok((Self::Stateful(Box::new(model)), other))
    }

    /// A conversation with an empty KV cache.
    pub(crate) fn session(&self) -> Result<Box<dyn LanguageSession + '_>, Error> {
        Ok(match self {
            Self::Paged(engine, _) => Box::new(engine.session()),
            Self::Stateful(model) => Box::new(model.session()?),
        })
    }

    /// Takes weights out of memory that come back by themselves when they are used.
    pub(crate) fn release_weights(&self) {
        if let Self::Paged(_, compiled) = self {
            compiled.release_weights();
        }
    }
}

fn not_paged(error: &Error) {
    tracing::warn!("conversations share no work: {error}");
}
