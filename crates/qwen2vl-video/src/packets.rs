//! When each frame of a stream is shown, from the packets of the file, without decoding any.
//!
//! As torchcodec's exact mode scans a file: a packet is a frame, those that an edit list discards are none, and frames
//! are numbered in the order of their time stamps.

use std::path::Path;

use crate::process::{Limits, Process};
use crate::{Error, Ffmpeg, probe};

/// Most frames that are counted: over a day at 30 a second.
const MAX_FRAMES: usize = 4_000_000;

/// The frames of a stream in the order in which they are shown.
#[derive(Debug, Default)]
pub(crate) struct Packets {
    /// Time stamps in units of the stream's time base, ascending.
    pub stamps: Vec<i64>,
    /// Positions of frames that can be decoded without those before, ascending.
    pub keys: Vec<usize>,
    /// Whether every frame has a time stamp of its own, so that it can be asked for by that.
    pub timed: bool,
    /// When the last frame is no longer shown, where the file says.
    pub end: Option<i64>,
    /// All packets, discarded ones too.
    pub n_packets: u64,
    /// What ffprobe found wrong.
    pub complaint: String,
}

impl Packets {
    /// Reads the packets of one stream.
    pub fn read(programs: &Ffmpeg, path: &Path, stream: u32, limits: Limits<'_>) -> Result<Self, Error> {
        let mut command = programs.ffprobe();
        command.args(["-select_streams", &stream.to_string()]);
        command.args(["-show_entries", "packet=pts,dts,duration,flags", "-of", "compact=p=0"]);
        probe::add_input(&mut command, path, None);
        let mut process = Process::start("ffprobe", command, 16 << 10, limits, |_| true)?;
        let mut collected = Collected::default();
        let mut rest = Vec::new();
        while let Some(block) = process.next()? {
            rest.extend_from_slice(&block);
            let whole = rest.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
            for line in String::from_utf8_lossy(&rest[..whole]).lines() {
                collected.line(line);
            }
            rest.drain(..whole);
            if collected.frames.len() > MAX_FRAMES {
                return Err(Error::TooLong { limit: MAX_FRAMES });
            }
        }
        // A failure behind the last packet that could be read is what a broken file looks like.
        let (_, complaint) = process.finish()?;
        Ok(Self { complaint, ..collected.sorted() })
    }

    /// Number of frames.
    pub fn len(&self) -> usize {
        self.stamps.len()
    }

    /// The last frame at or before this one from which it can be decoded.
    pub fn key_before(&self, index: usize) -> usize {
        let after = self.keys.partition_point(|key| *key <= index);
        after.checked_sub(1).map_or(0, |at| self.keys[at])
    }
}

#[derive(Debug, Default)]
struct Collected {
    frames: Vec<Frame>,
    /// Whether a packet had no time stamp.
    untimed: bool,
    end: Option<i64>,
    n_packets: u64,
}

#[derive(Debug, Clone, Copy)]
struct Frame {
    stamp: i64,
    is_key: bool,
}

impl Collected {
    /// `pts=1024|dts=0|duration=512|flags=K_`; what is unknown is `N/A`.
    fn line(&mut self, line: &str) {
        let field = |name: &str| {
            line.split('|').find_map(|part| part.strip_prefix(name).and_then(|rest| rest.strip_prefix('=')))
        };
        let number = |name: &str| field(name).and_then(|text| text.parse::<i64>().ok());
        let Some(flags) = field("flags") else { return };
        self.n_packets += 1;
        if flags.contains('D') {
            return;
        }
        self.untimed |= number("pts").is_none();
        // Without any time the order in the file is all there is.
        let last = || self.frames.last().map_or(0, |f| f.stamp.saturating_add(1));
        let stamp = number("pts").or_else(|| number("dts")).unwrap_or_else(last);
        if let Some(duration) = number("duration").filter(|d| *d > 0) {
            self.end = self.end.max(stamp.checked_add(duration));
        }
        self.frames.push(Frame { stamp, is_key: flags.starts_with('K') });
    }

    fn sorted(mut self) -> Packets {
        self.frames.sort_by_key(|f| f.stamp);
        let distinct = self.frames.windows(2).all(|pair| pair[0].stamp < pair[1].stamp);
        let keys = self.frames.iter().enumerate().filter(|(_, f)| f.is_key).map(|(i, _)| i).collect();
        Packets {
            stamps: self.frames.iter().map(|f| f.stamp).collect(),
            keys,
            timed: distinct && !self.untimed,
            end: self.end,
            n_packets: self.n_packets,
            complaint: String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packets(lines: &[&str]) -> Packets {
        let mut collected = Collected::default();
        lines.iter().for_each(|line| collected.line(line));
        collected.sorted()
    }

    #[test]
    fn frames_in_the_order_in_which_they_are_shown() {
        let read = packets(&[
            "pts=0|dts=-2|duration=2|flags=K__",
            "pts=6|dts=0|duration=2|flags=___",
            "pts=2|dts=2|duration=2|flags=___",
            "pts=4|dts=4|duration=2|flags=K_",
            "pts=9|dts=5|duration=2|flags=_D",
            "side_data=x",
        ]);
        assert_eq!(read.stamps, [0, 2, 4, 6]);
        assert_eq!(
            (read.keys.as_slice(), read.timed, read.end, read.n_packets),
            (&[0, 2][..], true, Some(8), 5)
        );
        assert_eq!([0, 1, 2, 3].map(|i| read.key_before(i)), [0, 0, 2, 2]);
    }

    #[test]
    fn frames_without_a_time_of_their_own_go_by_number() {
        assert!(!packets(&["pts=0|flags=K_", "pts=0|flags=__"]).timed);
        let read = packets(&["pts=N/A|dts=5|duration=N/A|flags=K_", "pts=N/A|dts=N/A|duration=0|flags=__"]);
        assert_eq!((read.stamps.as_slice(), read.timed, read.end), (&[5, 6][..], false, None));
        assert_eq!(packets(&[]).key_before(7), 0);
    }
}
