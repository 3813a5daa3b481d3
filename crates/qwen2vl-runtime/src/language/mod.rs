//! The language model on OpenVINO: paged, for many conversations at once, or stateful, each with a request of its own.

mod last_logits;
mod paged;
mod stateful;

use std::sync::Arc;

use crate::native::{Compiled, Element, Native, Port};
use crate::paged::{PagedEngine, Turns};
use crate::{EngineKind, EngineOptions, Error, LanguageSession, ModelConfig, ModelFiles};
use paged::{PagedCompiler, PagedLanguageModel};
use stateful::StatefulLanguageModel;

/// The language model in one of its two forms.
pub(crate) enum LanguageModel {
    Paged(Box<PagedEngine>),
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
            EngineKind::Auto => PagedCompiler::new(native).map_err(|e| not_paged(&e)).ok(),
        };
        let (paged, text_embeddings, other) = std::thread::scope(|scope| {
            let compile = |compiler: PagedCompiler| move || compiler.compile(files, config, options);
            let paged = compiler.map(|compiler| scope.spawn(compile(compiler)));
            let text_embeddings = text_embeddings(native, files, config);
            let other = meanwhile(native);
            let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            (paged.map(join), text_embeddings, other)
        });
        let (text_embeddings, other) = (text_embeddings?, other?);
        if let Some(paged) = paged {
            let model = paged.and_then(|model| {
                PagedLanguageModel::new(&model, text_embeddings.request()?, config, options)
            });
            match model {
                Ok((model, limits)) => {
                    let engine = PagedEngine::new(Box::new(model), config, limits, Arc::clone(turns));
                    return Ok((Self::Paged(Box::new(engine)), other));
                }
                Err(error) if options.engine == EngineKind::Paged => return Err(error),
                Err(error) => not_paged(&error),
            }
        }
        let model = StatefulLanguageModel::load(native, text_embeddings, files, config, options)?;
        Ok((Self::Stateful(Box::new(model)), other))
    }

    /// A conversation with an empty KV cache.
    pub(crate) fn session(&self) -> Result<Box<dyn LanguageSession + '_>, Error> {
        Ok(match self {
            Self::Paged(engine) => Box::new(engine.session()),
            Self::Stateful(model) => Box::new(model.session()?),
        })
    }
}

fn not_paged(error: &Error) {
    tracing::warn!("conversations share no work: {error}");
}

fn text_embeddings(native: &mut Native, files: &ModelFiles, config: &ModelConfig) -> Result<Compiled, Error> {
    let weights = files.text_embeddings.with_extension("bin");
    native.compile("text_embeddings", &files.text_embeddings, &weights, |signature| {
        signature.expect_inputs(&[(Port::Only, Element::I64, &[None, None])])?;
        signature.expect_output(Port::Only, &[None, None, Some(config.text.hidden_size)])
    })
}
