//! What is asked: images and videos from wherever they come, a prompt in one of three forms, options.

use std::path::{Path, PathBuf};

use qwen2vl_preprocess::{AlphaMode, PixelLimits, RgbImage};
use qwen2vl_runtime::GenerationConfig;
use qwen2vl_tokenizer::Message;
use qwen2vl_types::TokenId;

/// An image, from a file, from encoded bytes, or decoded already.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum ImageInput {
    /// A file, read when its turn comes.
    Path(PathBuf),
    /// The bytes of an image file.
    Bytes(Vec<u8>),
    /// Pixels, taken as they are: no EXIF turn.
    Rgb(RgbImage),
}

impl From<&Path> for ImageInput {
    fn from(path: &Path) -> Self {
        Self::Path(path.to_owned())
    }
}

impl From<PathBuf> for ImageInput {
    fn from(path: PathBuf) -> Self {
        Self::Path(path)
    }
}

/// A path.
impl From<&str> for ImageInput {
    fn from(path: &str) -> Self {
        Self::Path(path.into())
    }
}

/// A path.
impl From<String> for ImageInput {
    fn from(path: String) -> Self {
        Self::Path(path.into())
    }
}

/// The bytes of an image file.
impl From<Vec<u8>> for ImageInput {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes)
    }
}

/// The bytes of an image file.
impl From<&[u8]> for ImageInput {
    fn from(bytes: &[u8]) -> Self {
        Self::Bytes(bytes.to_vec())
    }
}

impl From<RgbImage> for ImageInput {
    fn from(image: RgbImage) -> Self {
        Self::Rgb(image)
    }
}

/// Alpha is dropped, as Hugging Face's `convert("RGB")` does.
impl From<&image::DynamicImage> for ImageInput {
    fn from(image: &image::DynamicImage) -> Self {
        Self::Rgb(RgbImage::from_dynamic(image, AlphaMode::Drop))
    }
}

/// Alpha is dropped, as Hugging Face's `convert("RGB")` does.
impl From<image::DynamicImage> for ImageInput {
    fn from(image: image::DynamicImage) -> Self {
        Self::from(&image)
    }
}

/// A video: frames of one size, in order, sampled by the caller.
#[derive(Debug, Clone)]
pub struct VideoInput {
    /// The frames; with an odd number the last is repeated, as the reference does.
    pub frames: Vec<ImageInput>,
}

impl<I: Into<ImageInput>> FromIterator<I> for VideoInput {
    fn from_iter<T: IntoIterator<Item = I>>(frames: T) -> Self {
        Self { frames: frames.into_iter().map(Into::into).collect() }
    }
}

/// The prompt of a request.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum PromptInput {
    /// A question: becomes one user message, images and videos before the text, in the model's chat template.
    Question(String),
    /// A conversation. Parts that name a source are read from there; the others take the request's media in order.
    Messages(Vec<Message>),
    /// Taken verbatim, without a template; `<|image_pad|>` and `<|video_pad|>` are expanded.
    Raw(String),
}

/// What one request changes of the annotator's defaults; `None` keeps them.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct RequestOptions {
    /// Fewest pixels of an image after resizing.
    pub min_pixels: Option<u64>,
    /// Most pixels of an image after resizing.
    pub max_pixels: Option<u64>,
    /// The most tokens an answer may have.
    pub max_new_tokens: Option<usize>,
    /// Draw from the distribution instead of taking the most probable token.
    pub do_sample: Option<bool>,
    /// Divides the logits before drawing.
    pub temperature: Option<f32>,
    /// Keep the k most probable tokens; 0 keeps all.
    pub top_k: Option<usize>,
    /// Keep the most probable tokens up to this mass.
    pub top_p: Option<f32>,
    /// Penalty on tokens of prompt and answer.
    pub repetition_penalty: Option<f32>,
    /// Seed of the draws.
    pub seed: Option<u64>,
    /// Token ids that end the answer.
    pub stop_token_ids: Option<Vec<TokenId>>,
    /// Name images and videos in the prompt: "Picture 1: ".
    pub add_vision_id: Option<bool>,
    /// Leave special tokens, as the marks of boxes, out of the answer's text.
    pub skip_special_tokens: Option<bool>,
}

impl RequestOptions {
    /// These options where they are set, else `defaults`.
    pub fn or(&self, defaults: &Self) -> Self {
        Self {
            min_pixels: self.min_pixels.or(defaults.min_pixels),
            max_pixels: self.max_pixels.or(defaults.max_pixels),
            max_new_tokens: self.max_new_tokens.or(defaults.max_new_tokens),
            do_sample: self.do_sample.or(defaults.do_sample),
            temperature: self.temperature.or(defaults.temperature),
            top_k: self.top_k.or(defaults.top_k),
            top_p: self.top_p.or(defaults.top_p),
            repetition_penalty: self.repetition_penalty.or(defaults.repetition_penalty),
            seed: self.seed.or(defaults.seed),
            stop_token_ids: self.stop_token_ids.clone().or_else(|| defaults.stop_token_ids.clone()),
            add_vision_id: self.add_vision_id.or(defaults.add_vision_id),
            skip_special_tokens: self.skip_special_tokens.or(defaults.skip_special_tokens),
        }
    }

    /// The model's limits with the set ones put in.
    pub(crate) fn pixel_limits(&self, model: PixelLimits) -> PixelLimits {
        PixelLimits {
            min_pixels: self.min_pixels.unwrap_or(model.min_pixels),
            max_pixels: self.max_pixels.unwrap_or(model.max_pixels),
        }
    }

    /// The model's generation options with the set ones put in. Naming a temperature, top-k or top-p alone does not
    /// turn sampling on, as in Hugging Face's `generate`.
    pub(crate) fn generation(&self, model: &GenerationConfig) -> GenerationConfig {
        GenerationConfig {
            do_sample: self.do_sample.unwrap_or(model.do_sample),
            temperature: self.temperature.unwrap_or(model.temperature),
            top_k: self.top_k.unwrap_or(model.top_k),
            top_p: self.top_p.unwrap_or(model.top_p),
            repetition_penalty: self.repetition_penalty.unwrap_or(model.repetition_penalty),
            max_new_tokens: self.max_new_tokens.unwrap_or(model.max_new_tokens),
            stop_token_ids: self.stop_token_ids.clone().unwrap_or_else(|| model.stop_token_ids.clone()),
            seed: self.seed.unwrap_or(model.seed),
        }
    }
}

/// One thing to annotate.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Request {
    /// The prompt.
    pub prompt: PromptInput,
    /// Images, in the order of their placeholders.
    pub images: Vec<ImageInput>,
    /// Videos, in the order of their placeholders.
    pub videos: Vec<VideoInput>,
    /// What differs from the annotator's defaults.
    pub options: RequestOptions,
}

impl Request {
    /// A question about nothing yet; add images or videos.
    pub fn question(text: impl Into<String>) -> Self {
        Self::new(PromptInput::Question(text.into()))
    }

    /// A conversation.
    pub fn messages(messages: impl Into<Vec<Message>>) -> Self {
        Self::new(PromptInput::Messages(messages.into()))
    }

    /// A prompt taken verbatim.
    pub fn raw(prompt: impl Into<String>) -> Self {
        Self::new(PromptInput::Raw(prompt.into()))
    }

    /// A request without media and with the default options.
    pub fn new(prompt: PromptInput) -> Self {
        Self { prompt, images: Vec::new(), videos: Vec::new(), options: RequestOptions::default() }
    }

    /// Adds an image.
    #[must_use]
    pub fn image(mut self, image: impl Into<ImageInput>) -> Self {
        self.images.push(image.into());
        self
    }

    /// Adds a video.
    #[must_use]
    pub fn video(mut self, video: VideoInput) -> Self {
        self.videos.push(video);
        self
    }

    /// Sets the options.
    #[must_use]
    pub fn options(mut self, options: RequestOptions) -> Self {
        self.options = options;
        self
    }
}
