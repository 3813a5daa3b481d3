//! The engine for many conversations: a KV cache in blocks, which sessions share, and steps that run tokens of all of
//! them at once.
//!
//! ```text
//! PagedSession (session.rs) ─ rows of tokens (row.rs) ─▶ Scheduler (scheduler.rs) ─ Step (step.rs) ─▶ PagedModel
//!                                                        │ BlockPool (blocks.rs)
//! ```
//!
//! Everything but the model's own implementation (language/paged.rs) is plain logic and tested on a scripted one.

mod blocks;
mod row;
mod scheduler;
#[cfg(test)]
mod scripted;
mod session;
#[cfg(test)]
mod simulation;
mod step;
mod turns;

pub(crate) use scheduler::Limits;
pub use session::EngineStats;
pub(crate) use session::PagedEngine;
pub(crate) use step::{PagedModel, Step};
pub use turns::Bulk;
pub(crate) use turns::{Kind, Turns};
