//! The language model on OpenVINO: paged, for many conversations at once, or stateful, each with a request of its own.

mod last_logits;
mod paged;
mod stateful;

use std::sync::Arc;

use crate::native::{Compiled, Element, Native, Port};
use crate::paged::{PagedEngine, Turns};
use crate::{EngineKind, EngineOptions, Error, LanguageSession, ModelConfig, ModelFiles};
use paged::PagedLanguageModel;
use stateful::StatefulLanguageModel;

/// The language model in one of its two forms.
pub(crate) enum LanguageModel {
    Paged(Box<PagedEngine>),
    Stateful(Box<StatefulLanguageModel>),
}

impl LanguageModel {
    pub(crate) fn load(
        native: &mut Native,
        files: &ModelFiles,
        config: &ModelConfig,
        options: &EngineOptions,
        turns: &Arc<Turns>,
    ) -> Result<Self, Error> {
        let text_embeddings = text_embeddings(native, files, config)?;
        if options.engine != EngineKind::Stateful {
            let paged = text_embeddings
                .request()
                .and_then(|request| PagedLanguageModel::load(native, request, files, config, options));
            match paged {
                Ok((model, limits)) => {
                    let engine = PagedEngine::new(Box::new(model), config, limits, Arc::clone(turns));
                    return Ok(Self::Paged(Box::new(engine)));
                }
                Err(error) if options.engine == EngineKind::Paged => return Err(error),
                Err(error) => tracing::warn!("conversations share no work: {error}"),
            }
        }
        let model = StatefulLanguageModel::load(native, text_embeddings, files, config, options)?;
        Ok(Self::Stateful(Box::new(model)))
    }

    /// A conversation with an empty KV cache.
    pub(crate) fn session(&self) -> Result<Box<dyn LanguageSession + '_>, Error> {
        Ok(match self {
            Self::Paged(engine) => Box::new(engine.session()),
            Self::Stateful(model) => Box::new(model.session()?),
        })
    }
}

fn text_embeddings(native: &mut Native, files: &ModelFiles, config: &ModelConfig) -> Result<Compiled, Error> {
    let weights = files.text_embeddings.with_extension("bin");
    native.compile("text_embeddings", &files.text_embeddings, &weights, |signature| {
        signature.expect_inputs(&[(Port::Only, Element::I64, &[None, None])])?;
        signature.expect_output(Port::Only, &[None, None, Some(config.text.hidden_size)])
    })
}
