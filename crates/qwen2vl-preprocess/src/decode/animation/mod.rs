//! Animated GIF, APNG and WebP, one composed frame at a time.
//!
//! Follows Pillow 13: `ImageSequence.Iterator`, then `convert("RGB")`. Frames are counted, and their delays read, without
//! decoding one. Deliberate differences: all frames have one size, where Pillow's grow with a GIF whose later frames stick
//! out; the picture that an APNG shows to programs without animation is no frame, as the format says; frames are turned as
//! the EXIF data says, as still images are.

mod canvas;
mod gif;
mod png;
mod webp;

use std::borrow::Cow;
use std::iter::FusedIterator;
use std::time::Duration;

use image::ImageFormat;
use image::metadata::Orientation;

use super::{
    DecodeLimits, DecodeOptions, Kind, decode_image, generic, guarded, name, orientation, read_size, sniff,
};
use crate::{AlphaMode, Error, ImageSize, RgbImage};
use canvas::Canvas;

/// Most frames that an animation may have: over an hour at 25 a second.
const MAX_FRAMES: usize = 100_000;

/// What drawing a frame takes for each pixel of the canvas: the canvas, what a frame covers, the frame, and RGB.
const BYTES_PER_PIXEL: u64 = 4 + 4 + 4 + 3;

/// What the structure of a file says of its frames, before any of them is decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AnimationInfo {
    /// Size of every frame, after the turn that EXIF asks for.
    pub size: ImageSize,
    /// How long each frame is shown, as the file says; one for each frame whose bytes are all there.
    pub delays: Vec<Duration>,
    /// Whether the file goes on to its end; if not, the frames are followed by an error.
    pub complete: bool,
}

impl AnimationInfo {
    /// The number of frames; 1 for a still image.
    pub fn n_frames(&self) -> usize {
        self.delays.len()
    }

    /// Whether there are several frames.
    pub fn is_animated(&self) -> bool {
        self.delays.len() > 1
    }

    /// The time that one round takes. Like all browsers, this takes delays of 10 ms or less for 100 ms.
    pub fn duration(&self) -> Duration {
        let shown = |delay: &Duration| match *delay {
            short if short <= Duration::from_millis(10) => Duration::from_millis(100),
            delay => delay,
        };
        self.delays.iter().map(shown).sum()
    }

    /// Frames a second on average: the number of frames over [`AnimationInfo::duration`].
    pub fn fps(&self) -> f64 {
        self.delays.len() as f64 / self.duration().as_secs_f64()
    }
}

/// The frames of an image file: those of an animated GIF, APNG or WebP, or the one of any other image.
///
/// Iterating composes one frame after the other, and holds only one canvas; [`Iterator::nth`] skips frames cheaply. Where the
/// file is damaged or ends early, the frames before that come first, then the error, then nothing.
pub struct Animation<'a> {
    info: AnimationInfo,
    frames: Frames<'a>,
    next: usize,
    /// What comes behind the last frame.
    end: Option<Error>,
    format: &'static str,
    orientation: Orientation,
    alpha: AlphaMode,
}

enum Frames<'a> {
    Composed(Box<dyn Compose + Send + 'a>),
    Still(Cow<'a, [u8]>, DecodeOptions),
}

/// Draws frames onto a canvas, in order.
trait Compose {
    /// Draws the next frame.
    fn advance(&mut self) -> Result<(), Error>;

    /// What is seen now.
    fn canvas(&self) -> &Canvas;

    /// How transparency is seen.
    fn alpha(&self, asked: AlphaMode) -> AlphaMode {
        asked
    }
}

/// The frames that a file's structure shows.
struct Outline<T> {
    /// Before any turn.
    size: ImageSize,
    frames: Vec<T>,
    /// Why there are no more frames, if not because the file is at its end.
    end: Option<Error>,
}

impl<T> Outline<T> {
    fn push(&mut self, frame: T) -> Result<(), Error> {
        if self.frames.len() == MAX_FRAMES {
            return Err(Error::TooManyAnimationFrames { limit: MAX_FRAMES });
        }
        self.frames.push(frame);
        Ok(())
    }

    fn info(&self, delay: impl Fn(&T) -> Duration, orientation: Orientation) -> AnimationInfo {
        let transposed = orientation::transposes(orientation);
        AnimationInfo {
            size: if transposed { self.size.transposed() } else { self.size },
            delays: self.frames.iter().map(delay).collect(),
            complete: self.end.is_none(),
        }
    }
}

/// Whether a WebP file has frames.
pub(super) fn is_animated_webp(bytes: &[u8]) -> bool {
    webp::is_animated(bytes)
}

/// Size and turn of a WebP file with frames.
pub(super) fn read_webp_size(bytes: &[u8]) -> Result<(ImageSize, Orientation), Error> {
    Ok((webp::size(bytes)?, webp::turn(bytes)))
}

/// The first frame, not yet turned; a file without its last bytes is refused, as libwebp does.
pub(super) fn first_webp_frame(
    bytes: &[u8],
    options: &DecodeOptions,
) -> Result<(RgbImage, Orientation), Error> {
    let mut animation = decode_animation(bytes, options)?;
    if let Some(error) = animation.end.take() {
        return Err(error);
    }
    let turn = std::mem::replace(&mut animation.orientation, Orientation::NoTransforms);
    let none =
        || Err(Error::Corrupt { format: name(ImageFormat::WebP), reason: "it holds no image".to_owned() });
    animation.next().unwrap_or_else(none).map(|image| (image, turn))
}

/// Counts the frames of an image file and reads their delays, without decoding any.
///
/// # Errors
///
/// Of files without a readable header, and of animations of more than 100,000 frames. Limits on pixels are not checked here.
pub fn read_animation(bytes: &[u8]) -> Result<AnimationInfo, Error> {
    decode_animation(bytes, &DecodeOptions { limits: DecodeLimits::NONE, ..Default::default() })
        .map(|animation| animation.info)
}

/// Opens an image file to read its frames one by one. A still image of any format has one frame.
///
/// # Errors
///
/// Of files without a readable header, and of files over the limits, which hold for the canvas; no frame is decoded yet.
pub fn decode_animation<'a>(
    bytes: impl Into<Cow<'a, [u8]>>,
    options: &DecodeOptions,
) -> Result<Animation<'a>, Error> {
    let bytes = bytes.into();
    let given = bytes.len() as u64;
    if given > options.limits.max_file_bytes {
        return Err(Error::FileTooLarge { bytes: given, limit: options.limits.max_file_bytes });
    }
    let format = match sniff(&bytes)? {
        Kind::Image(format) => format,
        Kind::Heif(format) => {
            return Opening { format, orientation: Orientation::NoTransforms, options }.still(bytes);
        }
        Kind::Pdf => return Err(Error::PdfAnimation),
    };
    let orientation = match format {
        ImageFormat::WebP => webp::turn(&bytes),
        ImageFormat::Png => guarded(name(format), || generic::read_size(&bytes, format))
            .map_or(Orientation::NoTransforms, |(_, turn)| turn),
        _ => Orientation::NoTransforms,
    };
    let opening = Opening { format: name(format), orientation, options };
    match format {
        ImageFormat::Gif => {
            let outline = gif::outline(&bytes)?;
            opening.composed(outline, |f| f.delay, |o| gif::Gif::new(bytes, o, options))
        }
        ImageFormat::Png if png::is_animated(&bytes) => {
            let outline = png::outline(&bytes)?;
            if outline.frames.is_empty() && !matches!(outline.end, Some(Error::Truncated { .. })) {
                // As the format asks: where the animation is not valid, its default image is shown.
                return opening.still(bytes);
            }
            opening.composed(outline, |f| f.delay, |o| Ok(png::Png::new(bytes, o, options.limits)))
        }
        ImageFormat::WebP if webp::is_animated(&bytes) => {
            let outline = webp::outline(&bytes)?;
            opening.composed(outline, |f| f.delay, |o| Ok(webp::WebP::new(bytes, o, options.limits)))
        }
        _ => opening.still(bytes),
    }
}

/// What is known before the frames are.
struct Opening<'o> {
    format: &'static str,
    orientation: Orientation,
    options: &'o DecodeOptions,
}

impl Opening<'_> {
    fn composed<'a, T, C: Compose + Send + 'a>(
        self,
        mut outline: Outline<T>,
        delay: impl Fn(&T) -> Duration,
        composer: impl FnOnce(Outline<T>) -> Result<C, Error>,
    ) -> Result<Animation<'a>, Error> {
        self.options.limits.check(outline.size, BYTES_PER_PIXEL)?;
        let info = outline.info(delay, self.orientation);
        let end = outline.end.take();
        if outline.frames.is_empty() {
            let none = || Error::Corrupt { format: self.format, reason: "it holds no image".to_owned() };
            return Err(end.unwrap_or_else(none));
        }
        let frames = Frames::Composed(Box::new(composer(outline)?));
        Ok(self.animation(info, frames, end))
    }

    fn still(self, bytes: Cow<'_, [u8]>) -> Result<Animation<'_>, Error> {
        let size = read_size(&bytes)?;
        self.options.limits.check(size, 3)?;
        let info = AnimationInfo { size, delays: vec![Duration::ZERO], complete: true };
        let options = *self.options;
        Ok(self.animation(info, Frames::Still(bytes, options), None))
    }

    fn animation<'a>(self, info: AnimationInfo, frames: Frames<'a>, end: Option<Error>) -> Animation<'a> {
        let Self { format, orientation, options } = self;
        Animation { info, frames, next: 0, end, format, orientation, alpha: options.alpha }
    }
}

impl Animation<'_> {
    /// Size, number and delays of the frames.
    pub fn info(&self) -> &AnimationInfo {
        &self.info
    }

    /// Composes the next frame without making an image of it; `None` if there is none.
    fn advance(&mut self) -> Option<Result<(), Error>> {
        if self.next >= self.info.n_frames() {
            return self.end.take().map(Err);
        }
        self.next += 1;
        let advanced = match &mut self.frames {
            Frames::Composed(frames) => guarded(self.format, || frames.advance()),
            Frames::Still(..) => Ok(()),
        };
        if advanced.is_err() {
            (self.next, self.end) = (usize::MAX, None);
        }
        Some(advanced)
    }

    fn image(&self) -> Result<RgbImage, Error> {
        match &self.frames {
            Frames::Composed(frames) => {
                Ok(orientation::apply(frames.canvas().to_rgb(frames.alpha(self.alpha)), self.orientation))
            }
            Frames::Still(bytes, options) => decode_image(bytes, options),
        }
    }
}

impl Iterator for Animation<'_> {
    type Item = Result<RgbImage, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let advanced = self.advance()?;
        Some(advanced.and_then(|()| self.image()))
    }

    /// Frames in between are drawn, since what follows may show through them, but no image is made of them. An error in one
    /// of them is returned.
    fn nth(&mut self, n: usize) -> Option<Self::Item> {
        for _ in 0..n {
            if let Err(error) = self.advance()? {
                return Some(Err(error));
            }
        }
        self.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let frames = self.info.n_frames().saturating_sub(self.next);
        (0, Some(frames + usize::from(self.end.is_some())))
    }
}

impl FusedIterator for Animation<'_> {}

impl std::fmt::Debug for Animation<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Animation")
            .field("info", &self.info)
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}
