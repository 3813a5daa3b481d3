//! The compatibility types as a port uses them, with the demo model.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod defects;
mod demo;
mod light;
mod parameters;
mod pretrained;
mod schema;
mod table;
