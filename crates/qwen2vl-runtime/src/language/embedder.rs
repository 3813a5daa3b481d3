//! Token ids to embeddings.

use qwen2vl_shim::Table;
use qwen2vl_types::TokenId;

use crate::native::{Compiled, Element, Native, Port, Request};
use crate::{Error, ModelConfig, ModelFiles, Precision};

/// The embeddings of tokens: the model's compressed table as it lies in its file, else the model, compiled.
pub(crate) enum Embedder {
    Table(Table),
    Model(Request),
}

impl Embedder {
    /// The table where it can be had and `precision` allows: the model itself may round to half precision on the way.
    pub(crate) fn load(
        native: &mut Native,
        files: &ModelFiles,
        config: &ModelConfig,
        precision: Precision,
    ) -> Result<Self, Error> {
        if precision == Precision::Fast
            && let Some(table) = native.table(&files.text_embeddings)?
            && table.shape() == (config.vocab_size, config.text.hidden_size)
        {
            return Ok(Self::Table(table));
        }
        Ok(Self::Model(compile(native, files, config)?.request()?))
    }

    /// Writes the embeddings of all ids, `[ids.len(), hidden_size]`.
    pub(crate) fn embed(&mut self, ids: &[TokenId], out: &mut [f32]) -> Result<(), Error> {
        let width = out.len() / ids.len().max(1);
        match self {
            Self::Table(table) => {
                let rows = ids.iter().zip(out.chunks_exact_mut(width));
                rows.for_each(|(id, row)| table.row(*id as usize, row));
                Ok(())
            }
            Self::Model(request) => embed(request, &[1, ids.len()], ids, out),
        }
    }
}

/// Compiles the model that embeds tokens.
pub(crate) fn compile(
    native: &mut Native,
    files: &ModelFiles,
    config: &ModelConfig,
) -> Result<Compiled, Error> {
    let weights = files.text_embeddings.with_extension("bin");
    native.compile("text_embeddings", &files.text_embeddings, &weights, |signature| {
        signature.expect_inputs(&[(Port::Only, Element::I64, &[None, None])])?;
        signature.expect_output(Port::Only, &[None, None, Some(config.text.hidden_size)])
    })
}

/// Runs the model that embeds tokens on ids of shape `dims`.
pub(crate) fn embed(
    request: &mut Request,
    dims: &[usize],
    ids: &[TokenId],
    out: &mut [f32],
) -> Result<(), Error> {
    request.set_i64(Port::Only, dims, |input| {
        for (value, &id) in input.iter_mut().zip(ids) {
            *value = i64::from(id);
        }
    })?;
    request.infer()?;
    request.read_f32(Port::Only, |dims, values| {
        if values.len() != out.len() {
            let detail = format!("it returned shape {dims:?}, expected {} values", out.len());
            return Err(Error::ModelMismatch { model: "text_embeddings", detail });
        }
        out.copy_from_slice(values);
        Ok(())
    })?
}
