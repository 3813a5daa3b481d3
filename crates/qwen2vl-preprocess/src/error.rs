//! What can be wrong with an image, its size or the options. The caller adds which image it was.

/// Errors of the preprocessing layer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No bytes at all.
    #[error("the image file is empty (0 bytes)")]
    Empty,
    /// The first bytes belong to no known image format.
    #[error(
        "not an image: the file starts with {start}; JPEG, PNG, GIF, BMP, TIFF, WebP, PNM, HEIC, AVIF and PDF are known"
    )]
    UnknownFormat {
        /// The first bytes, in hexadecimal.
        start: String,
    },
    /// A known format, or a variant of one, that is not read.
    #[error("cannot read this {format}: {reason}; convert it to PNG or JPEG")]
    Unsupported {
        /// The format's name.
        format: &'static str,
        /// What is not supported.
        reason: String,
    },
    /// The file ends before the image does.
    #[error("the {format} file is truncated: it ends after {bytes} bytes, before the image is complete")]
    Truncated {
        /// The format's name.
        format: &'static str,
        /// Bytes given.
        bytes: usize,
    },
    /// The file's content contradicts its format.
    #[error("the {format} file is damaged: {reason}")]
    Corrupt {
        /// The format's name.
        format: &'static str,
        /// The decoder's reason.
        reason: String,
    },
    /// More encoded bytes than allowed.
    #[error(
        "the file has {bytes} bytes, more than the limit of {limit}; raise `DecodeLimits::max_file_bytes`"
    )]
    FileTooLarge {
        /// Bytes given.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// More pixels than allowed, by the header alone.
    #[error(
        "the image is {width}x{height} = {pixels} pixels, more than the limit of {limit}; if the file can be \
         trusted, raise `DecodeLimits::max_pixels`"
    )]
    TooManyPixels {
        /// Height in pixels.
        height: u32,
        /// Width in pixels.
        width: u32,
        /// `height * width`.
        pixels: u64,
        /// The limit.
        limit: u64,
    },
    /// Decoding needs more memory than allowed.
    #[error(
        "decoding needs {bytes} bytes or more, over the limit of {limit}; if the file can be trusted, raise \
         `DecodeLimits::max_alloc_bytes`"
    )]
    MemoryLimit {
        /// Bytes known to be needed.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// A progressive JPEG with an absurd number of scans, each of which costs a pass over the image.
    #[error("the progressive JPEG has about {scans} scans, more than the limit of {limit}; it looks hostile")]
    TooManyScans {
        /// Scan headers counted.
        scans: usize,
        /// The limit.
        limit: usize,
    },
    /// An animation with an absurd number of frames.
    #[error("the animation has more than {limit} frames; cut it into shorter ones")]
    TooManyAnimationFrames {
        /// The limit.
        limit: usize,
    },
    /// A format that this build does not read.
    #[error(
        "this is a {format} file, which this build does not read; build it with the feature `{feature}`: \
         cargo build --features {feature}"
    )]
    FeatureMissing {
        /// The format's name.
        format: &'static str,
        /// The feature that reads it.
        feature: &'static str,
    },
    /// A PDF where an animation was expected.
    #[error("a PDF is no animation; give its pages as images")]
    PdfAnimation,
    /// An encrypted PDF.
    #[error("the PDF is encrypted and opens only with a password; save a copy without one")]
    PdfPassword,
    /// Several pages, none of which was named.
    #[error("the PDF has {n_pages} pages; name one of them, as in file.pdf#page=1")]
    PdfPages {
        /// Pages there are.
        n_pages: u32,
    },
    /// A page that is not there.
    #[error("there is no page {page}: the PDF has pages 1 to {n_pages}")]
    PdfPage {
        /// The page asked for.
        page: u32,
        /// Pages there are.
        n_pages: u32,
    },
    /// A page of a PDF that would take forever to draw.
    #[error(
        "the page draws more than {limit} paths, glyphs and images, or takes more than {limit_s} s to read; it looks \
         hostile"
    )]
    PdfTooComplex {
        /// Most things drawn.
        limit: u32,
        /// Longest time, in seconds.
        limit_s: u64,
    },
    /// A PDF with an absurd number of pages.
    #[error("the PDF has {n_pages} pages, more than the limit of {limit}; split it")]
    TooManyPages {
        /// Pages there are.
        n_pages: usize,
        /// The limit.
        limit: usize,
    },
    /// The system has no memory for the result.
    #[error("no memory for {bytes} bytes; lower `max_pixels`")]
    OutOfMemory {
        /// Bytes wanted.
        bytes: u64,
    },
    /// Raw pixels whose number does not fit their size.
    #[error("{given} bytes of RGB given for {width}x{height} pixels, which need {expected}")]
    RawLength {
        /// Height in pixels.
        height: u32,
        /// Width in pixels.
        width: u32,
        /// `height * width * 3`.
        expected: u64,
        /// Bytes given.
        given: usize,
    },
    /// A side of no pixels.
    #[error("the image is {width}x{height}: both sides need at least 1 pixel")]
    NoPixels {
        /// Height in pixels.
        height: u32,
        /// Width in pixels.
        width: u32,
    },
    /// An image too long for its width, which `smart_resize` refuses.
    #[error(
        "the image is {width}x{height}, an aspect ratio of {ratio:.2}; at most {limit} is allowed: crop or pad it"
    )]
    AspectRatio {
        /// Height in pixels.
        height: u32,
        /// Width in pixels.
        width: u32,
        /// Longer side over shorter side.
        ratio: f64,
        /// The limit.
        limit: f64,
    },
    /// Limits that would make the resized image larger than any side can be.
    #[error(
        "`min_pixels` = {min_pixels} would make a {width}x{height} image larger than 2^32 pixels a side; lower it"
    )]
    ResizedTooLarge {
        /// Height in pixels.
        height: u32,
        /// Width in pixels.
        width: u32,
        /// The limit that asks for it.
        min_pixels: u64,
    },
    /// A resized image without pixels.
    #[error(
        "`max_pixels` = {max_pixels} would leave nothing of {width}x{height} pixels; raise it, or crop the image"
    )]
    ResizedToNothing {
        /// Height in pixels.
        height: u32,
        /// Width in pixels.
        width: u32,
        /// The limit, without its fraction.
        max_pixels: u64,
    },
    /// Limits of a frame that exclude each other.
    #[error("`max_pixels` is {max_pixels}, but must be at least `min_pixels`, which is {min_pixels}")]
    PixelRange {
        /// The lower limit.
        min_pixels: u64,
        /// The upper limit.
        max_pixels: u64,
    },
    /// Without resizing, an image whose sides the patches do not fill.
    #[error("with `do_resize` off, {width}x{height} must be a multiple of {factor} on both sides")]
    NotDivisible {
        /// Height in pixels.
        height: u32,
        /// Width in pixels.
        width: u32,
        /// `patch_size * merge_size`.
        factor: u32,
    },
    /// A video without frames.
    #[error("a video needs at least one frame, but has none")]
    NoFrames,
    /// Frames of one video that differ in size.
    #[error(
        "frame {index} is {width}x{height}, but frame 0 is {first_width}x{first_height}: frames need one size"
    )]
    FrameSize {
        /// The frame, from 0.
        index: usize,
        /// Its height.
        height: u32,
        /// Its width.
        width: u32,
        /// Height of the first frame.
        first_height: u32,
        /// Width of the first frame.
        first_width: u32,
    },
    /// A video, or the chosen part of it, too short for one temporal patch.
    #[error("{n_frames} frames to choose from, but at least {needed} are needed; repeat the frame to use it")]
    TooFewFrames {
        /// Frames there are.
        n_frames: u64,
        /// Frames of one temporal patch.
        needed: u64,
    },
    /// Options that choose less than one temporal patch.
    #[error(
        "the sampling options choose {chosen} frames, fewer than the {needed} of a temporal patch; raise the number \
         of frames, `min_frames` and `max_frames`"
    )]
    TooFewSampled {
        /// Frames chosen, before rounding.
        chosen: u64,
        /// Frames of one temporal patch.
        needed: u64,
    },
    /// More frames asked for than there are.
    #[error("`{name}` asks for {wanted} frames (rounded), but there are {n_frames} to choose from; lower it")]
    FrameCount {
        /// The option.
        name: &'static str,
        /// Its value, rounded to whole temporal patches.
        wanted: u64,
        /// Frames there are.
        n_frames: u64,
    },
    /// More frames chosen than any model could see.
    #[error(
        "the sampling options choose {wanted} frames, more than the limit of {limit}; give a lower number or `fps`"
    )]
    TooManyFrames {
        /// Frames chosen.
        wanted: u64,
        /// The limit.
        limit: u64,
    },
    /// Sampling by time of a video whose frame rate is not known.
    #[error("`{option}` needs the video's frame rate, which is unknown; give a number of frames instead")]
    UnknownFrameRate {
        /// The option.
        option: &'static str,
    },
    /// A part of a video with fewer than two frames.
    #[error(
        "from {start_s} s to {end_s} s there are fewer than 2 frames; the video is {duration_s:.2} s long"
    )]
    TimeRange {
        /// Beginning in seconds.
        start_s: f64,
        /// End in seconds.
        end_s: f64,
        /// Length of the video in seconds.
        duration_s: f64,
    },
    /// Two options that exclude each other.
    #[error("`{first}` and `{second}` exclude each other: give only one")]
    Exclusive {
        /// One option.
        first: &'static str,
        /// The other.
        second: &'static str,
    },
    /// An option out of its range.
    #[error("`{name}` is {value}, but {rule}")]
    Option {
        /// The option.
        name: &'static str,
        /// Its value.
        value: String,
        /// What it must be.
        rule: &'static str,
    },
}
