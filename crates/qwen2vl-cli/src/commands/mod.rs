//! One module per command.

pub mod annotate;
pub mod boxes;
pub mod bulk;
pub mod cache;
pub mod chat;
pub mod classify;
pub mod demo;
pub mod doctor;
pub mod inspect;
pub mod model;
pub mod plan;

use anyhow::{Context, Result};
use qwen2vl_pipeline::{Error, Message, PromptInput, Request, RequestOptions, VideoInput, parse_messages};

use crate::args::PromptArgs;
use crate::columns;
use crate::inputs::{self, Item};

/// What is asked when nothing is.
const DEFAULT_PROMPT: &str = "Describe this image.";

/// The prompt of a run, read once.
pub struct Prompt {
    text: Option<String>,
    raw: bool,
    messages: Option<Vec<Message>>,
    /// What is asked when nothing is.
    default: String,
    animations_as_videos: bool,
}

impl Prompt {
    /// Reads the conversation if one is named.
    pub fn read(args: &PromptArgs) -> Result<Self> {
        let messages = args.messages.as_ref().map(|path| {
            let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
            parse_messages(&text).with_context(|| path.display().to_string())
        });
        Ok(Self {
            text: args.prompt.clone(),
            raw: args.raw,
            messages: messages.transpose()?,
            default: DEFAULT_PROMPT.to_owned(),
            animations_as_videos: false,
        })
    }

    /// The same with animated images shown as videos, where asked.
    pub fn animations_as_videos(self, animations_as_videos: bool) -> Self {
        Self { animations_as_videos, ..self }
    }

    /// The same with another question for inputs that have none.
    pub fn or(self, default: String) -> Self {
        Self { default, ..self }
    }

    /// What rows call the prompt: the question, or the conversation's last text.
    pub fn text<'a>(&'a self, own: Option<&'a str>) -> &'a str {
        let conversation = self.messages.as_ref().and_then(|m| m.iter().rev().find_map(Message::text));
        own.or(self.text.as_deref()).or(conversation).unwrap_or(&self.default)
    }

    /// Puts the columns of a table's row into its prompt.
    pub fn fill(&self, mut item: Item) -> Item {
        if let Ok(content) = &mut item.content
            && let Some(columns) = content.columns.take()
            && (content.prompt.is_some() || self.messages.is_none())
        {
            match columns::fill(self.text(content.prompt.as_deref()), &columns) {
                Ok(filled) => content.prompt = Some(filled),
                Err(reason) => item.content = Err(Error::Source { input: item.input(), reason }),
            }
        }
        item
    }

    /// The request of an item.
    pub fn request(&self, content: inputs::Content, options: &RequestOptions) -> Request {
        let own = content.prompt.as_deref();
        let prompt = match &self.messages {
            Some(messages) if own.is_none() => PromptInput::Messages(messages.clone()),
            _ if self.raw => PromptInput::Raw(self.text(own).to_owned()),
            _ => PromptInput::Question(self.text(own).to_owned()),
        };
        let mut request = Request::new(prompt).options(content.options.or(options));
        request.videos = content.videos;
        for (image, sizing) in content.images {
            if self.animations_as_videos && image.is_animated() {
                request.videos.push(VideoInput::animation(image));
            } else {
                request = request.image_sized(image, sizing);
            }
        }
        request
    }
}
