//! What ffprobe says of a file's streams.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use serde::Deserialize;

use crate::process::{Limits, Process};
use crate::{Error, Ffmpeg};

/// Most bytes that are read of a description: a file may carry any number of tags.
const DESCRIPTION_BYTES: usize = 16 << 20;

/// Kinds of files that only name others. The text renderer is one more way to show what was not asked for.
const REFUSED: &[&str] = &["hls", "concat", "dash", "imf", "sdp", "rtsp", "lavfi", "tty"];

#[derive(Debug, Default, Deserialize)]
pub(crate) struct Description {
    #[serde(default)]
    pub streams: Vec<Stream>,
    #[serde(default)]
    pub format: Format,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Format {
    pub format_name: String,
    pub duration: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Stream {
    pub index: u32,
    pub codec_type: String,
    pub codec_name: String,
    pub width: u32,
    pub height: u32,
    pub sample_aspect_ratio: Option<String>,
    pub avg_frame_rate: String,
    pub time_base: String,
    pub nb_frames: Option<String>,
    pub duration: Option<String>,
    pub disposition: Disposition,
    pub tags: Tags,
    pub side_data_list: Vec<SideData>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Disposition {
    #[serde(rename = "default")]
    pub is_default: u8,
    pub attached_pic: u8,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Tags {
    /// Matroska's, as `00:00:04.000000000`.
    #[serde(rename = "DURATION")]
    pub duration: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct SideData {
    /// Degrees, counter-clockwise, of a display matrix.
    pub rotation: Option<f64>,
}

impl Stream {
    /// How far a player turns the picture, in degrees from 0 to 360, clockwise.
    pub fn rotation(&self) -> f64 {
        let degrees = self.side_data_list.iter().find_map(|data| data.rotation).unwrap_or(0.0);
        // ffmpeg rounds as well.
        let clockwise = (-degrees).round().rem_euclid(360.0);
        if clockwise.is_finite() { clockwise } else { 0.0 }
    }

    /// Seconds that the file declares for this stream.
    pub fn declared_seconds(&self) -> Option<f64> {
        let seconds = self.duration.as_deref().and_then(|text| text.parse().ok());
        seconds
            .or_else(|| self.tags.duration.as_deref().and_then(clock_seconds))
            .filter(|s: &f64| s.is_finite())
    }
}

/// `H:M:S.fraction`.
fn clock_seconds(text: &str) -> Option<f64> {
    text.split(':').try_fold(0.0, |sum, part| Some(sum * 60.0 + part.parse::<f64>().ok()?))
}

/// A ratio as `30000/1001` or `4:3`; nothing for one that is no positive number.
pub(crate) fn ratio(text: &str) -> Option<(u32, u32)> {
    let (num, den) = text.split_once(['/', ':'])?;
    let (num, den) = (num.parse().ok()?, den.parse().ok()?);
    (num > 0 && den > 0).then_some((num, den))
}

/// Adds the input to a command so that no name of it means anything but a local file: not a protocol, not an option.
pub(crate) fn add_input(command: &mut Command, path: &Path, option: Option<&str>) {
    let mut name = OsString::from("file:");
    name.push(path);
    command.args(["-protocol_whitelist", "file,pipe"]).args(option).arg(name);
}

/// Asks for streams and format.
pub(crate) fn describe(programs: &Ffmpeg, path: &Path, limits: Limits<'_>) -> Result<Description, Error> {
    let mut command = programs.ffprobe();
    command.args(["-show_streams", "-show_format", "-of", "json"]);
    add_input(&mut command, path, None);
    let mut process = Process::start("ffprobe", command, 64 << 10, limits, |_| true)?;
    let mut json = Vec::new();
    while let Some(block) = process.next()? {
        if json.len() + block.len() > DESCRIPTION_BYTES {
            let reason = format!("its description has more than {DESCRIPTION_BYTES} bytes");
            return Err(Error::NotAVideo { reason });
        }
        json.extend_from_slice(&block);
    }
    let (status, said) = process.finish()?;
    if !status.success() {
        // ffprobe ends with the file's name and what is wrong with it, after details that say less.
        let name = format!("file:{}: ", path.display());
        let reason = said.rsplit("; ").next().unwrap_or_default().replace(&name, "");
        return Err(Error::NotAVideo { reason });
    }
    let description: Description = serde_json::from_slice(&json)
        .map_err(|e| Error::Failed { program: "ffprobe", reason: format!("unreadable description: {e}") })?;
    let format = &description.format.format_name;
    if format.split(',').any(|name| REFUSED.contains(&name)) {
        let reason = match format.as_str() {
            "tty" => "it is a text file".to_owned(),
            _ => format!("a file of the kind {format} only names other files, which are not read"),
        };
        return Err(Error::NotAVideo { reason });
    }
    Ok(description)
}

/// The stream that is shown: no cover picture; the one marked as default, else the largest, else the first.
pub(crate) fn choose(description: &Description) -> Result<&Stream, Error> {
    let videos =
        description.streams.iter().filter(|s| s.codec_type == "video" && s.disposition.attached_pic == 0);
    let rank = |s: &&Stream| {
        (s.disposition.is_default, u64::from(s.width) * u64::from(s.height), std::cmp::Reverse(s.index))
    };
    videos.max_by_key(rank).ok_or_else(|| {
        let mut kinds: Vec<String> = Vec::new();
        for stream in &description.streams {
            let kind = match stream.codec_type.as_str() {
                "video" => "a cover picture",
                other => other,
            };
            if !kinds.iter().any(|k| k == kind) {
                kinds.push(kind.chars().take(40).collect());
            }
        }
        let streams = if kinds.is_empty() { "no streams".to_owned() } else { kinds.join(", ") };
        Error::NoVideoStream { streams }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_as_ffprobe_writes_them() {
        assert_eq!(ratio("30000/1001"), Some((30000, 1001)));
        assert_eq!(ratio("4:3"), Some((4, 3)));
        for text in ["0/0", "0:1", "N/A", "", "25", "-1/5"] {
            assert_eq!(ratio(text), None, "{text}");
        }
        assert_eq!(clock_seconds("01:02:03.500000000"), Some(3723.5));
        assert_eq!(clock_seconds("x"), None);
        for (rotation, clockwise) in
            [(Some(-90.0), 90.0), (Some(90.0), 270.0), (Some(180.0), 180.0), (None, 0.0)]
        {
            let stream = Stream { side_data_list: vec![SideData { rotation }], ..Stream::default() };
            assert_eq!(stream.rotation(), clockwise, "{rotation:?}");
        }
    }

    #[test]
    fn the_stream_that_is_shown() {
        let stream = |index, kind: &str, height, is_default, attached_pic| Stream {
            index,
            codec_type: kind.to_owned(),
            width: 100,
            height,
            disposition: Disposition { is_default, attached_pic },
            ..Stream::default()
        };
        let chosen = |streams| choose(&Description { streams, ..Description::default() }).map(|s| s.index);
        let audio = || stream(0, "audio", 0, 1, 0);
        assert_eq!(
            chosen(vec![audio(), stream(1, "video", 50, 0, 0), stream(2, "video", 90, 0, 0)]).unwrap(),
            2
        );
        assert_eq!(chosen(vec![stream(1, "video", 90, 0, 0), stream(2, "video", 50, 1, 0)]).unwrap(), 2);
        assert_eq!(chosen(vec![stream(1, "video", 50, 1, 0), stream(2, "video", 50, 1, 0)]).unwrap(), 1);
        let error = chosen(vec![audio(), stream(1, "video", 500, 1, 1)]).unwrap_err();
        assert_eq!(error.to_string(), "the file has no video, only audio, a cover picture");
    }
}
