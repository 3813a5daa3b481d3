//! Ctrl-C: the first ends what is being done in good order, the second at once.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use qwen2vl_pipeline::CancelToken;

/// What Ctrl-C (or a termination signal) cancels; without any work it ends the program.
#[derive(Clone, Default)]
pub struct Interrupt(Arc<Mutex<Option<CancelToken>>>);

impl Interrupt {
    /// Listens; `notice` is shown at the first Ctrl-C.
    pub fn listen(notice: &'static str) -> Result<Self> {
        let interrupt = Self::default();
        let handler = interrupt.clone();
        ctrlc::set_handler(move || match handler.lock().as_ref() {
            Some(cancel) if !cancel.is_cancelled() => {
                cancel.cancel();
                eprintln!("\n{notice}; press Ctrl-C again to end at once");
            }
            _ => std::process::exit(i32::from(crate::INTERRUPTED)),
        })
        .context("cannot listen for Ctrl-C")?;
        Ok(interrupt)
    }

    /// A token for the work that begins now.
    pub fn begin(&self) -> CancelToken {
        self.lock().insert(CancelToken::new()).clone()
    }

    /// The work is done.
    pub fn end(&self) {
        *self.lock() = None;
    }

    fn lock(&self) -> MutexGuard<'_, Option<CancelToken>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A token that Ctrl-C (or a termination signal) cancels.
pub fn cancel_on_interrupt() -> Result<CancelToken> {
    Ok(Interrupt::listen("interrupted: ending")?.begin())
}
