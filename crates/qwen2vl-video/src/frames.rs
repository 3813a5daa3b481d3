//! Frames of a file, decoded by ffmpeg as they are asked for.
//!
//! ffmpeg gives only the wanted frames, as 24-bit RGB through a pipe, and names every frame that it decodes on its other
//! pipe, so that each is known by its time stamp and never by having counted on.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use qwen2vl_preprocess::RgbImage;

use crate::file::seconds;
use crate::plan::{Picked, Run, plan};
use crate::process::{Limits, Process};
use crate::{Error, OnBroken, VideoFile, probe};

/// What is missing of a video that is broken.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Damage {
    /// Frames that are there.
    pub available: u64,
    /// Frames that should be.
    pub expected: u64,
    /// What was counted.
    pub what: &'static str,
    /// ffmpeg's reason, where it has one.
    pub reason: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} {}", self.available, self.expected, self.what)?;
        if self.reason.is_empty() { Ok(()) } else { write!(f, " ({})", self.reason) }
    }
}

impl From<Damage> for Error {
    fn from(damage: Damage) -> Self {
        let Damage { available, expected, what, reason } = damage;
        Self::Broken { available, expected, what, reason }
    }
}

/// Chosen frames in order. A few of them are in memory at any time, whatever the length of the video.
///
/// A frame that cannot be decoded is [`Error::Broken`], or with [`OnBroken::KeepDecoded`] the frame before it stands for
/// it (the next one at the beginning), so that the number of frames stays what was chosen; [`Frames::damage`] tells of
/// it. After an error nothing comes any more. ffmpeg runs only while this exists.
pub struct Frames<'v> {
    video: &'v VideoFile,
    /// What was asked for.
    indices: Vec<usize>,
    given: usize,
    ended: bool,
    bad_index: Option<u64>,
    runs: VecDeque<Run>,
    decoder: Option<Decoder<'v>>,
    /// The frame decoded last, and the one before.
    latest: Option<(usize, RgbImage)>,
    before: Option<RgbImage>,
    missing: u64,
    reason: String,
    retry: Retry,
    cancelled: Option<&'v (dyn Fn() -> bool + Send + Sync)>,
}

/// What was done about frames that a run begun in the middle did not give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Retry {
    NotYet,
    /// This frame did not come, and the run is begun anew.
    For(usize),
    Done,
}

/// One run of ffmpeg.
struct Decoder<'v> {
    process: Process<'v>,
    /// Which frame comes next on the pipe; `None` for one that the file did not list.
    names: Receiver<Option<usize>>,
    run: Run,
    /// Frames of the run that came.
    came: usize,
}

/// A frame is named before it is given out, so that its name is never long behind it.
const NAME_LIMIT: Duration = Duration::from_secs(10);

impl<'v> Frames<'v> {
    pub(crate) fn new(video: &'v VideoFile, indices: &[u64]) -> Self {
        let n_frames = video.packets.len() as u64;
        let descends = indices.windows(2).find(|pair| pair[0] > pair[1]).map(|pair| pair[1]);
        let bad_index = descends.or_else(|| indices.iter().copied().find(|index| *index >= n_frames));
        // Below the number of frames, which are all in memory.
        let indices: Vec<usize> = indices.iter().map(|index| *index as usize).collect();
        let mut distinct = indices.clone();
        distinct.dedup();
        let runs = plan(&video.packets, distinct, video.size.pixels(), video.options.decoding);
        Self {
            video,
            indices,
            given: 0,
            ended: false,
            bad_index,
            runs: runs.into(),
            decoder: None,
            latest: None,
            before: None,
            missing: 0,
            reason: String::new(),
            retry: Retry::NotYet,
            cancelled: None,
        }
    }

    /// Ends with [`Error::Cancelled`] soon after `cancelled` returns `true`.
    #[must_use]
    pub fn unless(mut self, cancelled: &'v (dyn Fn() -> bool + Send + Sync)) -> Self {
        self.cancelled = Some(cancelled);
        self
    }

    /// What was missing so far.
    pub fn damage(&self) -> Option<Damage> {
        (self.missing > 0).then(|| self.damage_of(self.given as u64 - self.missing))
    }

    fn damage_of(&self, available: u64) -> Damage {
        Damage {
            available,
            expected: self.indices.len() as u64,
            what: "chosen frames could be decoded",
            reason: self.reason.clone(),
        }
    }

    fn advance(&mut self) -> Result<Option<RgbImage>, Error> {
        if let Some(index) = self.bad_index {
            return Err(Error::FrameIndex { index, n_frames: self.video.packets.len() as u64 });
        }
        let Some(&index) = self.indices.get(self.given) else { return Ok(None) };
        while self.latest.as_ref().is_none_or(|(at, _)| *at < index) {
            let Some(next) = self.decode()? else { return self.stand_in().map(Some) };
            self.before = self.latest.replace(next).map(|(_, frame)| frame);
        }
        match &self.latest {
            Some((at, frame)) if *at == index => Ok(Some(frame.clone())),
            _ => self.stand_in().map(Some),
        }
    }

    /// What is shown for a frame that cannot be decoded.
    fn stand_in(&mut self) -> Result<RgbImage, Error> {
        let index = self.indices[self.given];
        if self.video.options.on_broken == OnBroken::Error {
            return Err(self.damage_of(self.given as u64).into());
        }
        let latest = self.latest.as_ref();
        let earlier = latest.filter(|(at, _)| *at < index).map(|(_, frame)| frame);
        let frame = earlier.or(self.before.as_ref()).or(latest.map(|(_, frame)| frame));
        let frame = frame.ok_or_else(|| Error::NoFrames { reason: self.reason.clone() })?.clone();
        self.missing += 1;
        Ok(frame)
    }

    /// The next frame that ffmpeg gives, with its number; nothing at the end of all runs.
    fn decode(&mut self) -> Result<Option<(usize, RgbImage)>, Error> {
        loop {
            let Some(decoder) = &mut self.decoder else {
                let Some(run) = self.runs.pop_front() else { return Ok(None) };
                self.decoder = Some(Decoder::start(self.video, run, self.cancelled)?);
                continue;
            };
            match decoder.next(self.video)? {
                Some((Some(index), frame)) if decoder.run.wanted.binary_search(&index).is_ok() => {
                    let due = decoder.run.wanted[decoder.came..].first().copied();
                    decoder.came += 1;
                    if due.is_some_and(|due| due < index) && self.begin_anew() {
                        continue;
                    }
                    if self.retry == Retry::For(index) {
                        // It helped: nothing is sought in this file any more.
                        let wanted: Vec<usize> = self.runs.drain(..).flat_map(|run| run.wanted).collect();
                        self.runs.extend((!wanted.is_empty()).then_some(Run { seek: false, wanted }));
                    }
                    return Ok(Some((index, frame)));
                }
                Some(_) => {}
                None => self.end_run()?,
            }
        }
    }

    /// Not every index of a file can be trusted: what a run begun in the middle did not give is tried from the beginning,
    /// once. Whether it is.
    fn begin_anew(&mut self) -> bool {
        let Some(decoder) = self.decoder.take_if(|d| d.run.seek && self.retry == Retry::NotYet) else {
            return false;
        };
        let latest = self.latest.as_ref().map(|(at, _)| *at);
        let wanted: Vec<usize> =
            decoder.run.wanted.into_iter().filter(|at| latest.is_none_or(|latest| *at > latest)).collect();
        let Some(missing) = wanted.first() else { return false };
        self.retry = Retry::For(*missing);
        self.runs.push_front(Run { seek: false, wanted });
        true
    }

    /// After the end of a run's output.
    fn end_run(&mut self) -> Result<(), Error> {
        let missed = self.decoder.as_ref().is_some_and(|d| d.came < d.run.wanted.len());
        if missed && self.begin_anew() {
            return Ok(());
        }
        let Some(decoder) = self.decoder.take() else { return Ok(()) };
        let (status, said) = decoder.process.finish()?;
        if missed && self.reason.is_empty() {
            self.reason = if said.is_empty() && !status.success() { status.to_string() } else { said };
        }
        if !decoder.run.seek && self.retry != Retry::NotYet {
            self.retry = Retry::Done;
        }
        Ok(())
    }
}

impl Iterator for Frames<'_> {
    type Item = Result<RgbImage, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let next = self.advance().transpose();
        match next {
            Some(Ok(_)) => self.given += 1,
            _ => {
                self.ended = true;
                self.decoder = None;
            }
        }
        next
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.indices.len() - self.given))
    }
}

impl<'v> Decoder<'v> {
    fn start(
        video: &'v VideoFile,
        run: Run,
        cancelled: Option<&'v (dyn Fn() -> bool + Send + Sync)>,
    ) -> Result<Self, Error> {
        let packets = &video.packets;
        let value = |index: usize| if packets.timed { packets.stamps[index] } else { index as i64 };
        let picked = Picked::new(run.wanted.iter().map(|index| value(*index)).collect());
        let variable = if packets.timed { "pts" } else { "n" };
        // Every decoded frame is named before any is picked: that tells of progress too.
        let filter = format!(
            "metadata=mode=add:key=q:value=1,metadata=mode=print:key=q:file='pipe\\:2':direct=1,\
             select='{}',scale=w={}:h={}:flags=bicubic,format=rgb24",
            picked.expression(variable),
            video.size.width,
            video.size.height,
        );
        let mut command = video.programs.ffmpeg();
        if let (true, Some(first)) = (run.seek, run.wanted.first()) {
            let start = format!("{:.6}", seek_to(video, *first));
            command.args(["-noaccurate_seek", "-seek_timestamp", "1", "-ss", &start]);
        }
        command.arg("-copyts");
        probe::add_input(&mut command, &video.path, Some("-i"));
        command
            .args(["-map", &format!("0:{}", video.stream), "-vf", &filter])
            .args(video.programs.passthrough());
        if let Picked::Each(values) = &picked {
            command.args(["-frames:v", &values.len().to_string()]);
        }
        command.args(["-f", "rawvideo", "pipe:1"]);

        let (send, names) = channel();
        let stamps: Option<Arc<[i64]>> = packets.timed.then(|| packets.stamps.as_slice().into());
        let on_line = move |line: &str| match decoded_frame(line) {
            Some((n, pts)) => {
                let value = if stamps.is_some() { pts } else { Some(n) };
                if let Some(value) = value.filter(|value| picked.contains(*value)) {
                    let index = match &stamps {
                        Some(stamps) => stamps.binary_search(&value).ok(),
                        None => usize::try_from(value).ok(),
                    };
                    // Nobody listens once the video is not wanted any more.
                    let _ = send.send(index);
                }
                false
            }
            None => line != "q=1",
        };
        let limits = Limits { stall: video.options.stall, cancelled };
        let frame_bytes = video.size.pixels() as usize * 3;
        let process = Process::start("ffmpeg", command, frame_bytes, limits, on_line)?;
        Ok(Self { process, names, run, came: 0 })
    }

    fn next(&mut self, video: &VideoFile) -> Result<Option<(Option<usize>, RgbImage)>, Error> {
        // A part of a frame at the end is no frame.
        let bytes = video.size.pixels() as usize * 3;
        let Some(block) = self.process.next()?.filter(|block| block.len() == bytes) else { return Ok(None) };
        let index = self.names.recv_timeout(NAME_LIMIT).map_err(|_| Error::Failed {
            program: "ffmpeg",
            reason: format!("it gave a frame without naming it: {}", self.process.said()),
        })?;
        Ok(Some((index, RgbImage::new(video.size.height, video.size.width, block)?)))
    }
}

/// Longest time between decoding and showing a frame that is reckoned with.
const DELAY_S: f64 = 0.25;

/// Where to seek to, in seconds. With an index any place between key frame and frame leads to the key frame: halfway to
/// the frame behind, so that rounding to microseconds never leads to a place before it. Without one ffmpeg goes to the
/// place itself, which has to lie before the key frame.
fn seek_to(video: &VideoFile, index: usize) -> f64 {
    let stamps = &video.packets.stamps;
    let at = |index: usize| seconds(stamps[index], video.time_base);
    if video.is_indexed {
        let next = stamps.get(index + 1).map_or(at(index), |_| at(index + 1));
        at(index) + (next - at(index)).min(0.01) / 2.0
    } else {
        at(video.packets.key_before(index)) - DELAY_S
    }
}

/// A frame as ffmpeg's filter `metadata` prints it, `frame:12   pts:6144    pts_time:0.48`: number and time stamp. It may
/// stand behind the beginning of another message.
fn decoded_frame(line: &str) -> Option<(i64, Option<i64>)> {
    let (_, rest) = line.rsplit_once("frame:")?;
    let (number, rest) = rest.split_once(' ')?;
    let (pts, _) = rest.trim_start().strip_prefix("pts:")?.split_once(' ')?;
    Some((number.parse().ok()?, pts.parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_decoded_frames() {
        let of = decoded_frame;
        assert_eq!(of("frame:0    pts:-512    pts_time:-0.04"), Some((0, Some(-512))));
        assert_eq!(of("[h264] frame:12   pts:6144    pts_time:0.48"), Some((12, Some(6144))));
        assert_eq!(of("frame:123456 pts:NOPTS   pts_time:NOPTS"), Some((123_456, None)));
        for line in ["", "q=1", "frame:", "frame:x pts:1 y", "error in frame: 5", "frame:1 dts:5 z"] {
            assert_eq!(of(line), None, "{line}");
        }
    }
}
