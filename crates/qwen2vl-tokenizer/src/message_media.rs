//! Images and videos in a conversation, with the keys that the Python package qwen-vl-utils 0.0.14 reads from them.
//!
//! Keys are read and written back here; what they do is for the layers that see pixels. Keys that the package does not
//! know are ignored, as it ignores them.

use serde_json::{Map, Value, json};

use crate::Error;
use crate::message::{bad, kind, kind_of};

/// An image in a turn.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImagePart {
    /// Path or URL, or nothing where the image is given apart from the conversation.
    pub source: Option<String>,
    /// Fewest pixels after resizing.
    pub min_pixels: Option<u64>,
    /// Most pixels after resizing.
    pub max_pixels: Option<u64>,
    /// Height to resize to; counts only together with a width.
    pub resized_height: Option<u32>,
    /// Width to resize to; counts only together with a height.
    pub resized_width: Option<u32>,
}

/// A video in a turn.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct VideoPart {
    /// Where it is.
    pub source: VideoSource,
    /// Frames a second to choose.
    pub fps: Option<f64>,
    /// Frames to choose.
    pub nframes: Option<u32>,
    /// Fewest frames by `fps`.
    pub min_frames: Option<u32>,
    /// Most frames by `fps`.
    pub max_frames: Option<u32>,
    /// Fewest pixels of a frame after resizing.
    pub min_pixels: Option<u64>,
    /// Most pixels of a frame after resizing.
    pub max_pixels: Option<u64>,
    /// Most pixels of all frames together.
    pub total_pixels: Option<u64>,
    /// Height to resize to; counts only together with a width.
    pub resized_height: Option<u32>,
    /// Width to resize to; counts only together with a height.
    pub resized_width: Option<u32>,
    /// Seconds from the beginning; before it no frame is taken.
    pub video_start: Option<f64>,
    /// Seconds from the beginning; after it no frame is taken.
    pub video_end: Option<f64>,
}

/// Where a video is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum VideoSource {
    /// Given apart from the conversation.
    #[default]
    None,
    /// A video file or URL.
    File(String),
    /// Its frames, as paths or URLs.
    Frames(Vec<String>),
}

impl ImagePart {
    pub(crate) fn read(mut object: Map<String, Value>, place: &str) -> Result<Self, Error> {
        let source = image_source(&mut object, place)?;
        let keys = Keys { object: &object, place };
        Ok(Self {
            source,
            min_pixels: keys.whole("min_pixels")?,
            max_pixels: keys.whole("max_pixels")?,
            resized_height: keys.whole("resized_height")?,
            resized_width: keys.whole("resized_width")?,
        })
    }
}

impl VideoPart {
    pub(crate) fn read(mut object: Map<String, Value>, place: &str) -> Result<Self, Error> {
        let source = video_source(&mut object, place)?;
        let keys = Keys { object: &object, place };
        Ok(Self {
            source,
            fps: keys.number("fps")?,
            nframes: keys.whole("nframes")?,
            min_frames: keys.whole("min_frames")?,
            max_frames: keys.whole("max_frames")?,
            min_pixels: keys.whole("min_pixels")?,
            max_pixels: keys.whole("max_pixels")?,
            total_pixels: keys.whole("total_pixels")?,
            resized_height: keys.whole("resized_height")?,
            resized_width: keys.whole("resized_width")?,
            video_start: keys.number("video_start")?,
            video_end: keys.number("video_end")?,
        })
    }
}

impl From<ImagePart> for Value {
    fn from(part: ImagePart) -> Self {
        written(
            "image",
            part.source.map(Value::from),
            [
                ("min_pixels", part.min_pixels.map(Value::from)),
                ("max_pixels", part.max_pixels.map(Value::from)),
                ("resized_height", part.resized_height.map(Value::from)),
                ("resized_width", part.resized_width.map(Value::from)),
            ],
        )
    }
}

impl From<VideoPart> for Value {
    fn from(part: VideoPart) -> Self {
        let source = match part.source {
            VideoSource::None => None,
            VideoSource::File(file) => Some(file.into()),
            VideoSource::Frames(frames) => Some(frames.into()),
        };
        written(
            "video",
            source,
            [
                ("fps", part.fps.map(Value::from)),
                ("nframes", part.nframes.map(Value::from)),
                ("min_frames", part.min_frames.map(Value::from)),
                ("max_frames", part.max_frames.map(Value::from)),
                ("min_pixels", part.min_pixels.map(Value::from)),
                ("max_pixels", part.max_pixels.map(Value::from)),
                ("total_pixels", part.total_pixels.map(Value::from)),
                ("resized_height", part.resized_height.map(Value::from)),
                ("resized_width", part.resized_width.map(Value::from)),
                ("video_start", part.video_start.map(Value::from)),
                ("video_end", part.video_end.map(Value::from)),
            ],
        )
    }
}

/// A part with its source and the keys that are set.
fn written<const N: usize>(
    part_type: &'static str,
    source: Option<Value>,
    keys: [(&'static str, Option<Value>); N],
) -> Value {
    let mut part = json!({ "type": part_type });
    for (key, value) in std::iter::once((part_type, source)).chain(keys) {
        if let Some(value) = value {
            part[key] = value;
        }
    }
    part
}

/// The numbers of a part; `null` is as good as nothing.
struct Keys<'a> {
    object: &'a Map<String, Value>,
    place: &'a str,
}

impl Keys<'_> {
    fn number(&self, key: &str) -> Result<Option<f64>, Error> {
        match self.object.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match value.as_f64() {
                Some(number) => Ok(Some(number)),
                None => Err(bad(self.place, format!("{key} must be a number, found {}", kind(value)))),
            },
        }
    }

    /// Python computes sizes as it likes, `360 * 420.0`, so a whole number may be written with a fraction of 0.
    fn whole<T: TryFrom<u64>>(&self, key: &str) -> Result<Option<T>, Error> {
        let Some(number) = self.number(key)? else { return Ok(None) };
        let exact = self.object.get(key).and_then(Value::as_u64);
        let rounded =
            (number >= 0.0 && number.fract() == 0.0 && number < 2_f64.powi(53)).then_some(number as u64);
        match exact.or(rounded).and_then(|whole| T::try_from(whole).ok()) {
            Some(whole) => Ok(Some(whole)),
            None => Err(bad(
                self.place,
                format!("{key} must be a whole number below 2^{}, found {number}", 8 * size_of::<T>()),
            )),
        }
    }
}

fn image_source(object: &mut Map<String, Value>, place: &str) -> Result<Option<String>, Error> {
    let source =
        object.remove("image").or_else(|| object.remove("image_url")).or_else(|| object.remove("url"));
    match source {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(source)) => Ok(Some(source)),
        Some(Value::Object(mut inner)) => match inner.remove("url") {
            Some(Value::String(url)) => Ok(Some(url)),
            other => Err(bad(place, format!("url must be a string, found {}", kind_of(other.as_ref())))),
        },
        Some(other) => Err(bad(place, format!("the image must be a path or URL, found {}", kind(&other)))),
    }
}

fn video_source(object: &mut Map<String, Value>, place: &str) -> Result<VideoSource, Error> {
    match object.remove("video") {
        None | Some(Value::Null) => Ok(VideoSource::None),
        Some(Value::String(file)) => Ok(VideoSource::File(file)),
        Some(Value::Array(frames)) => {
            let frame = |frame| match frame {
                Value::String(path) => Ok(path),
                other => Err(bad(place, format!("a frame must be a path or URL, found {}", kind(&other)))),
            };
            Ok(VideoSource::Frames(frames.into_iter().map(frame).collect::<Result<_, _>>()?))
        }
        Some(other) => {
            Err(bad(place, format!("the video must be a path or an array of frames, found {}", kind(&other))))
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{Content, ContentPart, ImagePart, Message, VideoPart, VideoSource, parse_messages};

    fn parts(json: &str) -> Vec<ContentPart> {
        let messages = parse_messages(&format!(r#"[{{"role": "user", "content": [{json}]}}]"#)).unwrap();
        let Content::Parts(parts) = messages[0].content.clone() else { panic!("parts were given") };
        parts
    }

    #[test]
    fn the_keys_of_qwen_vl_utils_are_read_and_written_back() {
        let json = r#"{"type": "image", "image": "a.png", "min_pixels": 50176, "max_pixels": 151200.0,
                       "resized_height": 280, "resized_width": 420},
                      {"type": "video", "video": "v.mp4", "fps": 1, "min_frames": 2, "max_frames": 60,
                       "min_pixels": 100, "max_pixels": 200, "total_pixels": 20000000000, "resized_height": 28,
                       "resized_width": 56, "video_start": 1.5, "video_end": 20, "quality": "ignored"},
                      {"type": "video", "video": ["1.png"], "nframes": 8, "fps": null}"#;
        let read = parts(json);
        assert_eq!(
            read[0],
            ContentPart::Image(ImagePart {
                source: Some("a.png".to_owned()),
                min_pixels: Some(50_176),
                max_pixels: Some(151_200),
                resized_height: Some(280),
                resized_width: Some(420),
            })
        );
        let video = VideoPart {
            source: VideoSource::File("v.mp4".to_owned()),
            fps: Some(1.0),
            nframes: None,
            min_frames: Some(2),
            max_frames: Some(60),
            min_pixels: Some(100),
            max_pixels: Some(200),
            total_pixels: Some(20_000_000_000),
            resized_height: Some(28),
            resized_width: Some(56),
            video_start: Some(1.5),
            video_end: Some(20.0),
        };
        assert_eq!(read[1], ContentPart::Video(video));
        let ContentPart::Video(frames) = &read[2] else { panic!("a video was given") };
        assert_eq!((frames.nframes, frames.fps), (Some(8), None));
        let message = Message { role: "user".to_owned(), content: Content::Parts(read) };
        let written = serde_json::to_string(&[&message]).unwrap();
        assert_eq!(parse_messages(&written).unwrap(), [message], "{written}");
        assert!(!written.contains("null") && !written.contains("quality"), "{written}");
    }

    #[test]
    fn wrong_numbers_are_named_with_their_place() {
        for (part, reason) in [
            (r#"{"video": "v", "fps": "2"}"#, "fps must be a number, found a string"),
            (r#"{"video": "v", "nframes": 1.5}"#, "nframes must be a whole number below 2^32, found 1.5"),
            (r#"{"video": "v", "max_frames": 5000000000}"#, "max_frames must be a whole number below 2^32"),
            (
                r#"{"video": "v", "total_pixels": -1}"#,
                "total_pixels must be a whole number below 2^64, found -1",
            ),
            (r#"{"video": "v", "video_end": true}"#, "video_end must be a number, found a boolean"),
            (r#"{"image": "i", "max_pixels": [1]}"#, "max_pixels must be a number, found an array"),
        ] {
            let json = format!(r#"[{{"role": "user", "content": ["x", {part}]}}]"#);
            let error = parse_messages(&json).unwrap_err().to_string();
            assert!(error.starts_with("messages[0].content[1]") && error.contains(reason), "{part}: {error}");
        }
    }
}
