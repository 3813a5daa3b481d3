//! What is asked: images and videos from wherever they come, and a prompt in one of three forms.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use qwen2vl_preprocess::{AlphaMode, DecodeOptions, ImageSize, RgbImage};
use qwen2vl_tokenizer::{ImagePart, Message};

use crate::source::Loaded;
use crate::{RequestOptions, VideoInput};

/// An image, from a file, from encoded bytes, or decoded already.
///
/// Of a text, [`From`] makes a path, a page (`file.pdf#page=3`) or a URL, as messages and tables may name them.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum ImageInput {
    /// A file, read when its turn comes.
    Path(PathBuf),
    /// A page of a PDF, numbered from 1, read when its turn comes. Needs the feature `pdf`.
    PdfPage {
        /// The file.
        path: PathBuf,
        /// Its page.
        page: u32,
    },
    /// A `data:` URL, decoded when its turn comes. Nothing is fetched: other URLs become errors then.
    Url(String),
    /// The bytes of an image file.
    Bytes(Vec<u8>),
    /// Pixels, taken as they are: no EXIF turn.
    Rgb(RgbImage),
}

impl ImageInput {
    /// Whether it is an image file with several frames. One that cannot be read is none: reading it says why.
    pub fn is_animated(&self) -> bool {
        let loaded = Loaded::open(self, &DecodeOptions::default()).ok();
        let animation = loaded.and_then(|loaded| loaded.animation().ok().flatten());
        animation.is_some_and(|animation| animation.is_animated())
    }
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

/// A path, a page of a PDF, a `file:` or a `data:` URL.
impl From<&str> for ImageInput {
    fn from(source: &str) -> Self {
        crate::source::parse(source)
    }
}

/// A path, a page of a PDF, a `file:` or a `data:` URL.
impl From<String> for ImageInput {
    fn from(source: String) -> Self {
        crate::source::parse(&source)
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

/// How large one image becomes; `None` is the request's own limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImageSizing {
    /// Fewest pixels after resizing.
    pub min_pixels: Option<u64>,
    /// Most pixels after resizing.
    pub max_pixels: Option<u64>,
    /// A size to resize to instead of the image's own, rounded and limited as an image of that size would be.
    pub resized: Option<ImageSize>,
}

impl ImageSizing {
    /// What a part of a message says.
    pub fn of_part(part: &ImagePart) -> Self {
        let resized = part.resized_height.zip(part.resized_width);
        Self {
            min_pixels: part.min_pixels,
            max_pixels: part.max_pixels,
            resized: resized.map(|(height, width)| ImageSize { height, width }),
        }
    }

    /// This where it is set, else `defaults`.
    pub(crate) fn or(self, defaults: Self) -> Self {
        Self {
            min_pixels: self.min_pixels.or(defaults.min_pixels),
            max_pixels: self.max_pixels.or(defaults.max_pixels),
            resized: self.resized.or(defaults.resized),
        }
    }
}

/// The prompt of a request.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum PromptInput {
    /// A question: becomes one user message, images and videos before the text, in the model's chat template. A text
    /// with the template written out in it (`<|im_start|>`) is taken as [`PromptInput::Raw`].
    Question(String),
    /// A conversation. Parts that name a source are read from there; the others take the request's media in order.
    Messages(Vec<Message>),
    /// Taken verbatim, without a template; `<|image_pad|>` and `<|video_pad|>` are expanded. Where it has none for the
    /// request's media, they are put in front of the user's words, with a warning, see
    /// [`RequestOptions::strict_prompt`].
    Raw(String),
}

/// One thing to annotate.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Request {
    /// The prompt.
    pub prompt: PromptInput,
    /// Images, in the order of their placeholders.
    pub images: Vec<ImageInput>,
    /// Sizes of single images, by their place in `images`.
    pub image_sizing: BTreeMap<usize, ImageSizing>,
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
        Self {
            prompt,
            images: Vec::new(),
            image_sizing: BTreeMap::new(),
            videos: Vec::new(),
            options: RequestOptions::default(),
        }
    }

    /// Adds an image.
    #[must_use]
    pub fn image(mut self, image: impl Into<ImageInput>) -> Self {
        self.images.push(image.into());
        self
    }

    /// Adds an image with limits of its own.
    #[must_use]
    pub fn image_sized(mut self, image: impl Into<ImageInput>, sizing: ImageSizing) -> Self {
        if sizing != ImageSizing::default() {
            self.image_sizing.insert(self.images.len(), sizing);
        }
        self.image(image)
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
