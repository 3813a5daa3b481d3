#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod chat_template;
mod error;
mod message;
mod message_media;
mod rope_index;
mod stream;
mod tokenizer;

pub use chat_template::{ChatTemplate, RenderOptions};
pub use error::Error;
pub use message::{Content, ContentPart, Message, parse_messages};
pub use message_media::{ImagePart, VideoPart, VideoSource};
pub use rope_index::{RopeIndex, VisionTokens, rope_index, rope_index_with};
pub use stream::DetokenizeStream;
pub use tokenizer::{EncodedPrompt, Tokenizer};
