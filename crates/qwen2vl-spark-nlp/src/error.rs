//! What can be wrong with an image struct, a frame, a parameter. What concerns one row becomes that row's annotation;
//! what concerns all of them is an error of the call.

use std::path::PathBuf;

use crate::SparkImage;

/// Errors of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A cell without an image.
    #[error("the row has no image: its struct is null")]
    NullImage,
    /// Spark's marker of a file that its reader could not decode.
    #[error(
        "{origin}: the image is invalid (mode -1): Spark's reader could not decode the file; read it as bytes"
    )]
    InvalidImage {
        /// Where the image comes from.
        origin: String,
    },
    /// A side that no image has.
    #[error("{origin}: the image struct is {width}x{height}: both sides need 1 to {} pixels", i32::MAX)]
    ImageSize {
        /// Where the image comes from.
        origin: String,
        /// Height as given.
        height: i32,
        /// Width as given.
        width: i32,
    },
    /// A mode that is not of bytes of 1, 3 or 4 channels.
    #[error("{origin}: the image struct's mode is {mode}, allowed are 0 (grey), 16 (BGR) and 24 (BGRA)")]
    Mode {
        /// Where the image comes from.
        origin: String,
        /// Mode as given.
        mode: i32,
    },
    /// A mode and a number of channels that exclude each other.
    #[error(
        "{origin}: the image struct's mode is {mode}, which has {expected} channels, but nChannels is {given}"
    )]
    Channels {
        /// Where the image comes from.
        origin: String,
        /// Mode as given.
        mode: i32,
        /// Channels of that mode.
        expected: i32,
        /// Channels as given.
        given: i32,
    },
    /// Neither as many bytes as its pixels need, nor an image file.
    #[error(
        "{origin}: {given} bytes of data for {width}x{height} pixels of {channels} channels, which need {expected}; \
         nor do they begin as an image file does"
    )]
    DataLength {
        /// Where the image comes from.
        origin: String,
        /// Height.
        height: i32,
        /// Width.
        width: i32,
        /// Channels.
        channels: i32,
        /// Bytes that this needs.
        expected: u64,
        /// Bytes given.
        given: usize,
    },
    /// More pixels than an image may have.
    #[error("{origin}: the image is {width}x{height} = {pixels} pixels, more than the limit of {limit}")]
    TooManyPixels {
        /// Where the image comes from.
        origin: String,
        /// Height.
        height: i32,
        /// Width.
        width: i32,
        /// `height * width`.
        pixels: u64,
        /// The limit.
        limit: u64,
    },
    /// A task that should go into a prompt with its template written out.
    #[error(
        "the parameter task cannot be put into a prompt with the template written out; write it into the prompt"
    )]
    TaskInVerbatimPrompt,
    /// A name that no parameter has.
    #[error("there is no parameter {given}{}", nearest_text(.nearest.as_deref()))]
    UnknownParameter {
        /// The name as given.
        given: String,
        /// The parameter whose name is nearest.
        nearest: Option<&'static str>,
    },
    /// A parameter of the Python class that the annotator does not have: there, `transform` fails with it.
    #[error(
        "the parameter {name} exists in Spark NLP's Python class alone and fails there as well: {reason}"
    )]
    PythonOnly {
        /// The parameter.
        name: &'static str,
        /// What to do instead.
        reason: &'static str,
    },
    /// A value of another type than the parameter's.
    #[error("the parameter {name} is {given}, expected is {expected}")]
    ParameterType {
        /// The parameter.
        name: &'static str,
        /// The value as given.
        given: String,
        /// What it has to be.
        expected: &'static str,
    },
    /// A value out of its range.
    #[error("the parameter {name} is {given}, allowed is {allowed}")]
    ParameterRange {
        /// The parameter.
        name: &'static str,
        /// The value as given.
        given: String,
        /// The range.
        allowed: String,
    },
    /// A parameter that Qwen2-VL has no use for.
    #[error("the parameter {name} has no effect on Qwen2-VL: {reason}")]
    NoEffect {
        /// The parameter.
        name: &'static str,
        /// Why, and what has.
        reason: &'static str,
    },
    /// A column that is not there.
    #[error("{stage}: there is no column {name}; there are {}", .there.join(", "))]
    NoColumn {
        /// Who asks for it.
        stage: &'static str,
        /// Its name.
        name: String,
        /// The columns that are there.
        there: Vec<String>,
    },
    /// A column of another type than the stage takes.
    #[error("{stage}: the column {name} is of {given}, expected is {expected}")]
    ColumnType {
        /// Who asks for it.
        stage: &'static str,
        /// Its name.
        name: String,
        /// What it is of.
        given: &'static str,
        /// What it has to be of.
        expected: &'static str,
    },
    /// A column of another length than the frame.
    #[error("the column {name} has {given} rows, the frame has {expected}")]
    ColumnLength {
        /// Its name.
        name: String,
        /// Its length.
        given: usize,
        /// The frame's.
        expected: usize,
    },
    /// Two lists that go together and do not fit.
    #[error("{paths} paths and {texts} texts: give a text for each path, or none at all")]
    Lengths {
        /// Paths given.
        paths: usize,
        /// Texts given.
        texts: usize,
    },
    /// Stages that do not make a pipeline.
    #[error("the stages are {given}; a pipeline here is an ImageAssembler, then a Qwen2VLTransformer")]
    Stages {
        /// The stages as given.
        given: String,
    },
    /// A stage that Spark saved and that cannot be used.
    #[error("{}: {reason}", path.display())]
    SavedStage {
        /// The stage's folder.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A place of pretrained models that needs credentials.
    #[error(
        "remote_loc is {given:?}: private buckets are not read; allowed are \"public/models\" and, for the community's, \
         a folder with @ in front"
    )]
    RemoteLocation {
        /// The place as given.
        given: String,
    },
    /// A file or folder that cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Fetching a pretrained model.
    #[error(transparent)]
    Fetch(#[from] qwen2vl_fetch::Error),
    /// Opening the model, or answering.
    #[error(transparent)]
    Pipeline(#[from] qwen2vl_pipeline::Error),
}

fn nearest_text(nearest: Option<&str>) -> String {
    nearest.map(|name| format!("; did you mean {name}?")).unwrap_or_default()
}

impl Error {
    /// A short stable name, as [`qwen2vl_pipeline::Error::kind`]: `image`, `prompt`, `options`, `frame`, `io`, `fetch`,
    /// or the pipeline's own.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::NullImage
            | Self::InvalidImage { .. }
            | Self::ImageSize { .. }
            | Self::Mode { .. }
            | Self::Channels { .. }
            | Self::DataLength { .. }
            | Self::TooManyPixels { .. } => "image",
            Self::TaskInVerbatimPrompt => "prompt",
            Self::UnknownParameter { .. }
            | Self::PythonOnly { .. }
            | Self::ParameterType { .. }
            | Self::ParameterRange { .. }
            | Self::NoEffect { .. } => "options",
            Self::NoColumn { .. }
            | Self::ColumnType { .. }
            | Self::ColumnLength { .. }
            | Self::Lengths { .. }
            | Self::Stages { .. } => "frame",
            Self::Io { .. } | Self::SavedStage { .. } => "io",
            Self::RemoteLocation { .. } | Self::Fetch(_) => "fetch",
            Self::Pipeline(error) => error.kind(),
        }
    }

    pub(crate) fn image_size(image: &SparkImage) -> Self {
        Self::ImageSize { origin: image.origin.clone(), height: image.height, width: image.width }
    }
}
