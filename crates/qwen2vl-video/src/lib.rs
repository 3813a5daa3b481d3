#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod error;
mod file;
mod frames;
mod packets;
mod plan;
mod probe;
mod process;
mod programs;

pub use error::Error;
pub use file::{Decoding, OnBroken, Rotation, VideoFile, VideoFileOptions};
pub use frames::{Damage, Frames};
pub use programs::{FFMPEG_VARIABLE, Ffmpeg, ProgramSource};
