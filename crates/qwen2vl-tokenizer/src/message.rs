//! Conversations, in the JSON form that Qwen and OpenAI share.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::Error;
use crate::message_media::{ImagePart, VideoPart};

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(into = "Value", try_from = "Value")]
pub struct Message {
    /// `system`, `user`, `assistant`, …
    pub role: String,
    /// What is said.
    pub content: Content,
}

/// The content of a turn.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// Text alone.
    Text(String),
    /// Text, images and videos in order.
    Parts(Vec<ContentPart>),
}

/// A piece of a turn.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum ContentPart {
    /// `{"type": "text", "text": …}`.
    Text(String),
    /// `{"type": "image", "image": …}` or `{"type": "image_url", "image_url": {"url": …}}`.
    Image(ImagePart),
    /// `{"type": "video", "video": …}`.
    Video(VideoPart),
}

impl ContentPart {
    /// An image, by path or URL.
    pub fn image(source: impl Into<String>) -> Self {
        Self::Image(ImagePart { source: Some(source.into()), ..ImagePart::default() })
    }
}

impl Message {
    /// A turn of text alone.
    pub fn new(role: impl Into<String>, text: impl Into<String>) -> Self {
        Self { role: role.into(), content: Content::Text(text.into()) }
    }

    /// A user's turn of text alone.
    pub fn user(text: impl Into<String>) -> Self {
        Self::new("user", text)
    }

    /// A system turn.
    pub fn system(text: impl Into<String>) -> Self {
        Self::new("system", text)
    }

    /// An assistant's turn.
    pub fn assistant(text: impl Into<String>) -> Self {
        Self::new("assistant", text)
    }

    /// A user's question about images and videos, which come before the text and are given apart.
    pub fn question(text: impl Into<String>, n_images: usize, n_videos: usize) -> Self {
        if n_images + n_videos == 0 {
            return Self::user(text);
        }
        let images = std::iter::repeat_n(ContentPart::Image(ImagePart::default()), n_images);
        let videos = std::iter::repeat_n(ContentPart::Video(VideoPart::default()), n_videos);
        let text = std::iter::once(ContentPart::Text(text.into()));
        Self { role: "user".to_owned(), content: Content::Parts(images.chain(videos).chain(text).collect()) }
    }

    /// Puts its texts before its images and videos, all in their order otherwise.
    #[must_use]
    pub fn text_first(mut self) -> Self {
        if let Content::Parts(parts) = &mut self.content {
            parts.sort_by_key(|part| !matches!(part, ContentPart::Text(_)));
        }
        self
    }

    /// The last text of the turn.
    pub fn text(&self) -> Option<&str> {
        match &self.content {
            Content::Text(text) => Some(text),
            Content::Parts(parts) => parts.iter().rev().find_map(|part| match part {
                ContentPart::Text(text) => Some(text.as_str()),
                _ => None,
            }),
        }
    }
}

/// Reads a conversation: a JSON array of messages, or an object with such an array as `messages`.
///
/// ```
/// let conversation = r#"[{"role": "user", "content": [{"type": "image", "image": "cat.jpg"},
///                                                     {"type": "text", "text": "What is this?"}]}]"#;
/// let messages = qwen2vl_tokenizer::parse_messages(conversation)?;
/// assert_eq!(messages[0].text(), Some("What is this?"));
/// # Ok::<(), qwen2vl_tokenizer::Error>(())
/// ```
///
/// # Errors
///
/// [`Error::Message`] naming the message and part that is not in the expected form.
pub fn parse_messages(json: &str) -> Result<Vec<Message>, Error> {
    let value: Value =
        serde_json::from_str(json).map_err(|e| bad("conversation", format!("not JSON: {e}")))?;
    let messages = match value {
        Value::Array(messages) => messages,
        Value::Object(mut object) => match object.remove("messages") {
            Some(Value::Array(messages)) => messages,
            _ => {
                return Err(bad(
                    "conversation",
                    "expected an array of messages, or an object with one as \"messages\"",
                ));
            }
        },
        other => {
            return Err(bad(
                "conversation",
                format!("expected an array of messages, found {}", kind(&other)),
            ));
        }
    };
    messages.into_iter().enumerate().map(|(i, m)| message(m, &format!("messages[{i}]"))).collect()
}

impl TryFrom<Value> for Message {
    type Error = Error;

    fn try_from(value: Value) -> Result<Self, Error> {
        message(value, "message")
    }
}

impl From<Message> for Value {
    fn from(message: Message) -> Self {
        let content = match message.content {
            Content::Text(text) => Self::String(text),
            Content::Parts(parts) => parts.into_iter().map(part_value).collect(),
        };
        json!({ "role": message.role, "content": content })
    }
}

fn part_value(part: ContentPart) -> Value {
    match part {
        ContentPart::Text(text) => json!({ "type": "text", "text": text }),
        ContentPart::Image(image) => image.into(),
        ContentPart::Video(video) => video.into(),
    }
}

fn message(value: Value, place: &str) -> Result<Message, Error> {
    let Value::Object(mut object) = value else {
        return Err(bad(place, format!("expected an object with role and content, found {}", kind(&value))));
    };
    let role = match object.remove("role") {
        Some(Value::String(role)) => role,
        other => {
            return Err(bad(place, format!("role must be a string, found {}", kind_of(other.as_ref()))));
        }
    };
    let content = match object.remove("content") {
        Some(Value::String(text)) => Content::Text(text),
        Some(Value::Array(parts)) => {
            let parts = parts.into_iter().enumerate();
            Content::Parts(
                parts.map(|(i, p)| part(p, &format!("{place}.content[{i}]"))).collect::<Result<_, _>>()?,
            )
        }
        other => {
            let found = kind_of(other.as_ref());
            return Err(bad(place, format!("content must be a string or an array of parts, found {found}")));
        }
    };
    Ok(Message { role, content })
}

fn part(value: Value, place: &str) -> Result<ContentPart, Error> {
    let mut object = match value {
        Value::Object(object) => object,
        Value::String(text) => return Ok(ContentPart::Text(text)),
        other => {
            return Err(bad(place, format!("a part must be an object, found {}", kind(&other))));
        }
    };
    let part_type = match object.get("type") {
        Some(Value::String(name)) => name.clone(),
        None => ["image", "image_url", "video", "text"]
            .into_iter()
            .find(|key| object.contains_key(*key))
            .ok_or_else(|| bad(place, "a part needs a type: text, image, image_url or video"))?
            .to_owned(),
        Some(other) => {
            return Err(bad(place, format!("type must be a string, found {}", kind(other))));
        }
    };
    match part_type.as_str() {
        "text" => match object.remove("text") {
            Some(Value::String(text)) => Ok(ContentPart::Text(text)),
            other => Err(bad(place, format!("text must be a string, found {}", kind_of(other.as_ref())))),
        },
        "image" | "image_url" => Ok(ContentPart::Image(ImagePart::read(object, place)?)),
        "video" => Ok(ContentPart::Video(VideoPart::read(object, place)?)),
        other => {
            Err(bad(place, format!("unknown type {other:?}; known are text, image, image_url and video")))
        }
    }
}

pub(crate) fn bad(place: &str, reason: impl Into<String>) -> Error {
    Error::Message { place: place.to_owned(), reason: reason.into() }
}

pub(crate) fn kind_of(value: Option<&Value>) -> &'static str {
    value.map_or("nothing", kind)
}

pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_of_qwen_and_openai_are_read_and_written_back() {
        let json = r#"[
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "image", "image": "a.png"}, {"type": "image"},
                {"type": "image_url", "image_url": {"url": "b.png"}}, {"type": "image_url", "image_url": "c.png"},
                {"type": "video", "video": ["1.png", "2.png"]}, {"type": "video", "video": "v.mp4"},
                {"image": "d.png"}, {"type": "text", "text": "What?"}, {"text": "And?"}]}]"#;
        let messages = parse_messages(json).unwrap();
        assert_eq!(messages[0], Message::system("Be brief."));
        let Content::Parts(parts) = &messages[1].content else { panic!("parts were given") };
        let image = |s: &str| ContentPart::image(s);
        assert_eq!(parts[0], image("a.png"));
        assert_eq!(parts[1], ContentPart::Image(ImagePart::default()));
        assert_eq!([&parts[2], &parts[3], &parts[6]], [&image("b.png"), &image("c.png"), &image("d.png")]);
        assert_eq!(messages[1].text(), Some("And?"));
        let written = serde_json::to_string(&messages).unwrap();
        assert_eq!(parse_messages(&written).unwrap(), messages);
        assert_eq!(parse_messages(&format!("{{\"messages\": {written}}}")).unwrap(), messages);
    }

    #[test]
    fn texts_come_first_where_they_are_wanted_so() {
        let parts = |message: Message| match message.content {
            Content::Parts(parts) => parts,
            Content::Text(text) => vec![ContentPart::Text(text)],
        };
        let media = [ContentPart::Image(ImagePart::default()), ContentPart::Video(VideoPart::default())];
        let [image, video] = media;
        let text = ContentPart::Text("What?".to_owned());
        let question = Message::question("What?", 1, 1);
        assert_eq!(parts(question.clone()), [image.clone(), video.clone(), text.clone()]);
        assert_eq!(parts(question.text_first()), [text.clone(), image, video]);
        assert_eq!(parts(Message::user("What?").text_first()), [text]);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        for (json, place, reason) in [
            ("{", "conversation", "not JSON"),
            ("5", "conversation", "a number"),
            ("[5]", "messages[0]", "a number"),
            (r#"[{"content": "x"}]"#, "messages[0]", "role must be a string"),
            (r#"[{"role": "user"}]"#, "messages[0]", "found nothing"),
            (r#"[{"role": "user", "content": null}]"#, "messages[0]", "found null"),
            (
                r#"[{"role": "user", "content": [{"type": "audio"}]}]"#,
                "messages[0].content[0]",
                "unknown type \"audio\"",
            ),
            (
                r#"[{"role": "user", "content": [{"type": "text"}]}]"#,
                "messages[0].content[0]",
                "text must be a string",
            ),
            (r#"[{"role": "user", "content": [{"image": 5}]}]"#, "messages[0].content[0]", "a number"),
            (
                r#"[{"role": "user", "content": [{"type": "video", "video": [1]}]}]"#,
                "messages[0].content[0]",
                "frame",
            ),
        ] {
            let error = parse_messages(json).unwrap_err().to_string();
            assert!(error.starts_with(place) && error.contains(reason), "{json}: {error}");
        }
    }
}
