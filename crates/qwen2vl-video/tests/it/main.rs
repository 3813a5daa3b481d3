//! Clips of many kinds, made by ffmpeg on the spot.

mod broken;
mod frames;
mod golden;
mod names;
