//! JSONL tables: a row is one thing to annotate, its media named by paths, URLs, or parts of messages.

use std::path::{Path, PathBuf};

use qwen2vl_pipeline::{
    Content as MessageContent, ContentPart, Error, ImageInput, ImageSizing, Message, RequestOptions,
    VideoContent, VideoInput,
};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Content, Item, failed};
use crate::columns::Columns;

/// A JSONL row.
#[derive(Debug, Deserialize)]
struct Row {
    image: Option<OneOrMany>,
    video: Option<OneOrMany>,
    prompt: Option<String>,
    #[serde(default)]
    options: Map<String, Value>,
    #[serde(flatten)]
    columns: Columns,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(Named),
    Many(Vec<Named>),
}

/// A path or URL, or a part of a message that names one: `{"image": path, "max_pixels": 50176}`.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Named {
    Source(String),
    Part(Map<String, Value>),
}

impl Named {
    /// Its name in results: image data are none.
    fn name(&self) -> Value {
        let source = match self {
            Self::Source(source) => source,
            Self::Part(part) => match part.get("image").or_else(|| part.get("video")) {
                Some(Value::String(source)) => source,
                _ => return Value::Object(part.clone()),
            },
        };
        match ImageInput::from(source.as_str()) {
            input @ ImageInput::Url(_) => Value::from(input.name()),
            _ => Value::from(source.as_str()),
        }
    }

    /// It as a part of a message.
    fn part(&self, part_type: &str) -> Result<ContentPart, Error> {
        let mut part = match self {
            Self::Source(source) => Map::from_iter([(part_type.to_owned(), source.as_str().into())]),
            Self::Part(part) => part.clone(),
        };
        part.insert("type".to_owned(), part_type.into());
        let message = serde_json::json!({ "role": "user", "content": [part] });
        let content = serde_json::from_value(message).map(|message: Message| message.content);
        match content {
            Ok(MessageContent::Parts(mut parts)) if parts.len() == 1 => Ok(parts.remove(0)),
            Ok(_) => Ok(ContentPart::Text(String::new())),
            Err(error) => Err(Error::OptionValue { name: part_type.to_owned(), reason: error.to_string() }),
        }
    }
}

/// The rows of a file.
pub fn table(argument: &str) -> Vec<Item> {
    let text = match std::fs::read_to_string(argument) {
        Ok(text) => text,
        Err(error) => return vec![failed(argument, error.to_string())],
    };
    let folder = Path::new(argument).parent().unwrap_or(Path::new(""));
    text.lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(i, line)| {
            let place = format!("{argument}:{}", i + 1);
            match serde_json::from_str::<Row>(line) {
                Ok(row) => table_row(row, &place, folder),
                Err(error) => {
                    failed(place, format!("not a row of {{\"image\", \"video\", \"prompt\"}}: {error}"))
                }
            }
        })
        .collect()
}

fn table_row(row: Row, place: &str, folder: &Path) -> Item {
    let options = match RequestOptions::from_named(&row.options) {
        Ok(options) => options,
        Err(error) => return Item { name: place.into(), content: Err(error) },
    };
    let mut content =
        Content { prompt: row.prompt, options, columns: Some(row.columns), ..Content::default() };
    let name = row.image.as_ref().or(row.video.as_ref()).map(|named| match named {
        OneOrMany::One(named) => named.name(),
        OneOrMany::Many(all) => all.iter().map(Named::name).collect(),
    });
    let images = match row.image {
        Some(OneOrMany::One(image)) => vec![image],
        Some(OneOrMany::Many(images)) => images,
        None => Vec::new(),
    };
    let media = images.iter().map(|named| image_of(named, folder)).collect::<Result<_, _>>();
    let media = media.and_then(|images| {
        content.images = images;
        content.videos.extend(row.video.map(|video| video_of(&video, folder)).transpose()?);
        Ok(())
    });
    if let Err(error) = media {
        return Item { name: place.into(), content: Err(error) };
    }
    Item { name: name.unwrap_or_else(|| place.into()), content: Ok(content) }
}

/// The image of a row.
fn image_of(named: &Named, folder: &Path) -> Result<(ImageInput, ImageSizing), Error> {
    match named.part("image")? {
        ContentPart::Image(part) if part.source.is_some() => {
            let image = ImageInput::from(part.source.as_deref().unwrap_or_default());
            Ok((image.map_file(|path| beside(path, folder)), ImageSizing::of_part(&part)))
        }
        _ => Err(nothing_named("image")),
    }
}

/// The video of a row: a file, an animation, or frames.
fn video_of(video: &OneOrMany, folder: &Path) -> Result<VideoInput, Error> {
    let part = match video {
        OneOrMany::One(named) => named.part("video")?,
        OneOrMany::Many(frames) => {
            let frames = frames.iter().map(|frame| image_of(frame, folder).map(|(image, _)| image));
            return Ok(frames.collect::<Result<Vec<_>, _>>()?.into_iter().collect());
        }
    };
    let ContentPart::Video(part) = part else { return Err(nothing_named("video")) };
    let mut video = VideoInput::of_part(&part).ok_or_else(|| nothing_named("video"))?;
    video.content = match video.content {
        VideoContent::File(path) => VideoContent::File(beside(path, folder)),
        VideoContent::Frames(frames) => VideoContent::Frames(
            frames.iter().cloned().map(|frame| frame.map_file(|path| beside(path, folder))).collect(),
        ),
        VideoContent::Animation(image) => {
            let image = std::sync::Arc::unwrap_or_clone(image);
            VideoContent::Animation(std::sync::Arc::new(image.map_file(|path| beside(path, folder))))
        }
        other => other,
    };
    Ok(video)
}

fn nothing_named(kind: &str) -> Error {
    Error::OptionValue { name: kind.to_owned(), reason: format!("the part names no {kind}") }
}

/// A path as it is if it leads to something, else seen from the table's folder.
fn beside(path: PathBuf, folder: &Path) -> PathBuf {
    let seen_from_table = folder.join(&path);
    if path.exists() || !seen_from_table.exists() { path } else { seen_from_table }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inputs::expand;

    #[test]
    fn table_rows_keep_their_names_prompts_and_errors() {
        let dir = tempfile::tempdir().unwrap();
        let table = dir.path().join("t.jsonl");
        std::fs::write(dir.path().join("x.png"), "").unwrap();
        let rows = [
            r#"{"image": "x.png", "prompt": "What?"}"#,
            "",
            r#"{"image": ["x.png", "y.png"]}"#,
            r#"{"video": ["x.png", "x.png"]}"#,
            r#"{"prompt": "Hello"}"#,
            r#"{"video": "clip.mp4"}"#,
            r#"{"image": 5}"#,
            r#"{"image": [{"image": "x.png", "max_pixels": 3136}, "y.png"], "video": {"video": "c.mkv", "fps": 1}}"#,
            r#"{"image": {"max_pixels": 3136}}"#,
            r#"{"image": "x.png", "options": {"maxOutputLength": 7, "seed": null}}"#,
            r#"{"image": "x.png", "options": {"max_new_token": 7}}"#,
            r#"{"image": "x.png", "options": 7}"#,
        ];
        std::fs::write(&table, rows.join("\n")).unwrap();
        let items = expand(&[table.display().to_string()]);
        let place = |line: usize| format!("{}:{line}", table.display());
        assert_eq!(
            items.iter().map(Item::input).collect::<Vec<_>>(),
            [
                "x.png".to_owned(),
                r#"["x.png","y.png"]"#.to_owned(),
                r#"["x.png","x.png"]"#.to_owned(),
                place(5),
                "clip.mp4".to_owned(),
                place(7),
                r#"["x.png","y.png"]"#.to_owned(),
                place(9),
                "x.png".to_owned(),
                place(11),
                place(12),
            ]
        );
        let first = items[0].content.as_ref().unwrap();
        assert_eq!(first.prompt.as_deref(), Some("What?"));
        let ImageInput::Path(path) = &first.images[0].0 else { panic!("a path was given") };
        assert_eq!(path, &dir.path().join("x.png"));
        assert_eq!(items[2].content.as_ref().unwrap().videos[0].images().len(), 2);
        let video = &items[4].content.as_ref().unwrap().videos[0].content;
        assert!(matches!(video, VideoContent::File(path) if path.ends_with("clip.mp4")), "{video:?}");
        assert!(items[5].content.is_err() && items[10].content.is_err());
        let parts = items[6].content.as_ref().unwrap();
        let limits: Vec<_> = parts.images.iter().map(|(_, sizing)| sizing.max_pixels).collect();
        assert_eq!((&limits[..], parts.videos[0].options.fps), (&[Some(3136), None][..], Some(1.0)));
        assert!(items[7].content.as_ref().unwrap_err().to_string().contains("names no image"));
        assert_eq!(items[8].content.as_ref().unwrap().options.max_new_tokens, Some(7));
        let error = items[9].content.as_ref().unwrap_err();
        assert!(error.kind() == "options" && error.to_string().contains("max_new_tokens"), "{error}");
    }
}
