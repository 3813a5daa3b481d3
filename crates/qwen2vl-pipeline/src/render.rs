//! The prompt of a request as the model's template writes it, and its media in the order of the placeholders.

use std::borrow::Cow;

use qwen2vl_preprocess::PixelLimits;
use qwen2vl_tokenizer::{ChatTemplate, Content, ContentPart, Message, RenderOptions};

use crate::{
    Error, ImageInput, ImageSizing, PromptInput, Request, RequestOptions, VideoInput, VideoOptions,
    written_out,
};

/// A request's prompt, not yet encoded.
pub(crate) struct Rendered<'r> {
    pub prompt: String,
    pub media: GivenMedia<'r>,
    /// What was put right.
    pub warnings: Vec<String>,
}

/// The media of a request, after the sources in its messages are put in.
pub(crate) struct GivenMedia<'r> {
    pub images: Vec<GivenImage<'r>>,
    pub videos: Vec<Cow<'r, VideoInput>>,
}

/// An image and how large it becomes.
pub(crate) struct GivenImage<'r> {
    pub image: Cow<'r, ImageInput>,
    pub sizing: ImageSizing,
}

impl GivenImage<'_> {
    /// Its own limits, and these where it has none.
    pub fn limits(&self, limits: PixelLimits) -> PixelLimits {
        PixelLimits {
            min_pixels: self.sizing.min_pixels.unwrap_or(limits.min_pixels),
            max_pixels: self.sizing.max_pixels.unwrap_or(limits.max_pixels),
        }
    }
}

/// Writes the prompt of a request.
pub(crate) fn render<'r>(
    template: &ChatTemplate,
    request: &'r Request,
    options: &RequestOptions,
) -> Result<Rendered<'r>, Error> {
    let (n_images, n_videos) = (request.images.len(), request.videos.len());
    let strict = options.strict_prompt.unwrap_or(false);
    let verbatim = |prompt: &str| {
        let (prompt, warning) = written_out::complete(prompt, n_images, n_videos, strict)?;
        Ok(Rendered { prompt, media: given(request), warnings: warning.into_iter().collect() })
    };
    let by_template = |messages: &[Message], media| {
        Ok(Rendered {
            prompt: template.render(messages, &render_options(options))?,
            media,
            warnings: Vec::new(),
        })
    };
    match &request.prompt {
        PromptInput::Raw(prompt) => verbatim(prompt),
        PromptInput::Question(text) if written_out::is_written_out(text) => verbatim(text),
        PromptInput::Question(question) => {
            by_template(&[message(question, request, options)], given(request))
        }
        PromptInput::Messages(messages) => by_template(messages, fill_sources(messages, request)?),
    }
}

/// Adds a turn to a conversation and writes the prompt of all of it; the media are those of the turn.
pub(crate) fn render_turn<'r>(
    template: &ChatTemplate,
    messages: &mut Vec<Message>,
    turn: &'r Request,
    options: &RequestOptions,
) -> Result<Rendered<'r>, Error> {
    let media = match &turn.prompt {
        PromptInput::Question(text) if !written_out::is_written_out(text) => {
            messages.push(message(text, turn, options));
            given(turn)
        }
        PromptInput::Messages(new) => {
            messages.extend(new.iter().cloned());
            fill_sources(new, turn)?
        }
        _ => return Err(Error::Turn),
    };
    Ok(Rendered { prompt: template.render(messages, &render_options(options))?, media, warnings: Vec::new() })
}

/// The turn of a question.
fn message(question: &str, request: &Request, options: &RequestOptions) -> Message {
    let message = Message::question(question, request.images.len(), request.videos.len());
    if options.text_first.unwrap_or(false) { message.text_first() } else { message }
}

/// The request's media as they are given.
fn given(request: &Request) -> GivenMedia<'_> {
    GivenMedia {
        images: given_images(request).collect(),
        videos: request.videos.iter().map(Cow::Borrowed).collect(),
    }
}

fn given_images(request: &Request) -> impl Iterator<Item = GivenImage<'_>> {
    request.images.iter().enumerate().map(|(i, image)| GivenImage {
        image: Cow::Borrowed(image),
        sizing: request.image_sizing.get(&i).copied().unwrap_or_default(),
    })
}

fn render_options(options: &RequestOptions) -> RenderOptions {
    RenderOptions { add_generation_prompt: true, add_vision_id: options.add_vision_id.unwrap_or(false) }
}

/// Sources named in messages are opened; parts without one take the request's media in order.
fn fill_sources<'r>(messages: &[Message], request: &'r Request) -> Result<GivenMedia<'r>, Error> {
    let (mut given_images, mut given_videos) = (given_images(request), request.videos.iter());
    let mut media = GivenMedia { images: Vec::new(), videos: Vec::new() };
    let (mut open_images, mut open_videos) = (0, 0);
    let parts = messages.iter().flat_map(|m| match &m.content {
        Content::Parts(parts) => parts.as_slice(),
        Content::Text(_) => &[],
    });
    for part in parts {
        match part {
            ContentPart::Image(part) => {
                let given = match &part.source {
                    Some(source) => {
                        let image = Cow::Owned(source.as_str().into());
                        Some(GivenImage { image, sizing: ImageSizing::default() })
                    }
                    None => {
                        open_images += 1;
                        given_images.next()
                    }
                };
                let own = ImageSizing::of_part(part);
                media.images.extend(given.map(|image| GivenImage { sizing: own.or(image.sizing), ..image }));
            }
            ContentPart::Video(part) => match VideoInput::of_part(part) {
                Some(video) => media.videos.push(Cow::Owned(video)),
                None => {
                    open_videos += 1;
                    let own = VideoOptions::of_part(part);
                    media.videos.extend(given_videos.next().map(|given| {
                        match own == VideoOptions::default() {
                            true => Cow::Borrowed(given),
                            false => Cow::Owned(given.clone().options(own.or(&given.options))),
                        }
                    }));
                }
            },
            _ => {}
        }
    }
    let counts = [("image", open_images, request.images.len()), ("video", open_videos, request.videos.len())];
    for (kind, placeholders, given) in counts {
        if placeholders != given {
            return Err(Error::Media { kind, placeholders, given });
        }
    }
    Ok(media)
}
