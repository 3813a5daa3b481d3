//! Ctrl-C: the first ends the work after the rows already printed, the second at once.

use anyhow::{Context, Result};
use qwen2vl_pipeline::CancelToken;

/// A token that Ctrl-C (or a termination signal) cancels.
pub fn cancel_on_interrupt() -> Result<CancelToken> {
    let cancel = CancelToken::new();
    let handler = cancel.clone();
    ctrlc::set_handler(move || {
        if handler.is_cancelled() {
            std::process::exit(i32::from(crate::INTERRUPTED));
        }
        handler.cancel();
        eprintln!("\ninterrupted: ending; press Ctrl-C again to end at once");
    })
    .context("cannot listen for Ctrl-C")?;
    Ok(cancel)
}
