//! Clips of many kinds, made by ffmpeg on the spot.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod broken;
mod frames;
mod golden;
mod names;
