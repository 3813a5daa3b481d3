//! The compatibility types as a port uses them, with the demo model.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod demo;
