//! What can go wrong between here and OpenVINO.

use std::path::PathBuf;

/// Errors of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The shim cannot be built on this machine.
    #[error("the paged engine cannot be built: {reason}")]
    Build {
        /// Why, and what to install.
        reason: String,
    },
    /// The built shim cannot be loaded.
    #[error("{} cannot be loaded: {reason}", path.display())]
    Load {
        /// The library.
        path: PathBuf,
        /// Why, in the loader's words.
        reason: String,
    },
    /// OpenVINO reported a failure.
    #[error("OpenVINO failed to {action}: {message}")]
    OpenVino {
        /// What was being done.
        action: String,
        /// OpenVINO's message.
        message: String,
    },
    /// There is no room for a KV cache, or it cannot have the model's shape.
    #[error(transparent)]
    Cache(#[from] qwen2vl_kernels::CacheError),
    /// Sequences of a step that contradict themselves.
    #[error(transparent)]
    Sequences(#[from] qwen2vl_kernels::SequencesError),
    /// Values that do not fill their shape.
    #[error("input {input} got {values} values for shape {dims:?}")]
    Shape {
        /// The input.
        input: String,
        /// Values given.
        values: usize,
        /// The shape.
        dims: Vec<usize>,
    },
    /// A name or path that cannot be handed to C.
    #[error("{text:?} holds a NUL character")]
    Nul {
        /// The name.
        text: String,
    },
}
