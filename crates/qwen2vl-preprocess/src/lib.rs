#![doc = include_str!("../README.md")]
#![deny(unsafe_code)]

mod decode;
mod error;
mod memory;
mod patches;
mod preprocessor;
mod resize;
mod rgb;
mod size;
mod video;

pub use decode::{
    Animation, AnimationInfo, DecodeLimits, DecodeOptions, count_pdf_pages, decode_animation, decode_image,
    decode_pdf_page, is_pdf, read_animation, read_pdf_page_size, read_size,
};
pub use error::Error;
pub use preprocessor::{PixelValues, PreprocessOptions, Preprocessor};
pub use rgb::{AlphaMode, RgbImage};
pub use size::{ImageSize, MAX_ASPECT_RATIO, PixelLimits, smart_resize};
pub use video::{
    FrameSelection, HfSampling, MAX_SAMPLED_FRAMES, QwenVlUtilsSampling, VideoInfo, VideoSampling,
};
