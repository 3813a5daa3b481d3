//! Where an image comes from: paths, pages of PDFs, `file:` and `data:` URLs. Nothing is fetched from anywhere.
//!
//! Data URLs follow RFC 2397 and, in what they forgive, the WHATWG's: white space and missing padding. As in qwen-vl-utils
//! 0.0.14, `image` alone is a media type.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use qwen2vl_preprocess::{
    Animation, AnimationInfo, DecodeOptions, ImageSize, RgbImage, decode_animation, decode_image,
    decode_pdf_page, is_pdf, read_animation, read_pdf_page_size, read_size,
};

use crate::{Error, ImageInput};

/// Most characters of a source in a name or message.
const MAX_NAME_CHARS: usize = 200;

/// What is left of a longer one.
const SHORT_NAME_CHARS: usize = 48;

/// Most bytes of a path, by which encoded images without `data:` are told from paths.
const MAX_PATH_BYTES: usize = 4096;

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// What a text names: a path, `file.pdf#page=3`, or a URL.
pub(crate) fn parse(text: &str) -> ImageInput {
    match scheme(text) {
        Some("file") => {
            let rest = &text[5..];
            // Of another machine's name qwen-vl-utils makes a part of the path.
            let rest = rest.strip_prefix("//").unwrap_or(rest);
            let path = rest.strip_prefix("localhost").filter(|p| p.starts_with('/')).unwrap_or(rest);
            let path = if cfg!(windows) { path.trim_start_matches('/') } else { path };
            let (path, page) = split_page(path);
            let decoded = String::from_utf8(percent_decoded(path)).unwrap_or_else(|_| path.to_owned());
            local(decoded.into(), page)
        }
        Some(_) => ImageInput::Url(text.to_owned()),
        None => {
            let (path, page) = split_page(text);
            local(path.into(), page)
        }
    }
}

fn local(path: PathBuf, page: Option<u32>) -> ImageInput {
    match page {
        Some(page) => ImageInput::PdfPage { path, page },
        None => ImageInput::Path(path),
    }
}

/// `data`, `file`, or another scheme before `://`, in lower case where it is one of those two.
fn scheme(text: &str) -> Option<&str> {
    let (scheme, rest) = text.split_once(':')?;
    let is_name = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
    // One letter is a drive.
    let is_scheme = scheme.len() > 1
        && scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(is_name);
    ["data", "file"]
        .into_iter()
        .find(|s| s.eq_ignore_ascii_case(scheme))
        .or_else(|| (is_scheme && rest.starts_with("//")).then_some(scheme))
}

/// A PDF's path and the page behind it.
fn split_page(text: &str) -> (&str, Option<u32>) {
    let page = text.rsplit_once('#').and_then(|(path, fragment)| {
        let is_pdf = path.len() > 4
            && path.is_char_boundary(path.len() - 4)
            && path[path.len() - 4..].eq_ignore_ascii_case(".pdf");
        Some((path, page_of(fragment).filter(|_| is_pdf)?))
    });
    page.map_or((text, None), |(path, page)| (path, Some(page)))
}

fn page_of(fragment: &str) -> Option<u32> {
    fragment.strip_prefix("page=")?.parse().ok()
}

/// A source as it is named in rows and messages, of which image data would make megabytes.
pub(crate) fn short(source: &str) -> Cow<'_, str> {
    if source.len() <= MAX_NAME_CHARS {
        return Cow::Borrowed(source);
    }
    let n_chars = source.chars().count();
    let beginning: String = source.chars().take(SHORT_NAME_CHARS).collect();
    if n_chars <= MAX_NAME_CHARS {
        source.into()
    } else {
        format!("{beginning}… ({n_chars} characters)").into()
    }
}

impl ImageInput {
    /// How it is named in rows and messages: a path, `file.pdf#page=3`, or a URL, shortened where it holds the image; `None`
    /// for bytes and pixels, which have no name.
    pub fn name(&self) -> Option<String> {
        match self {
            Self::Path(path) => Some(short(&path.display().to_string()).into_owned()),
            Self::PdfPage { path, page } => {
                Some(format!("{}#page={page}", short(&path.display().to_string())))
            }
            Self::Url(url) => Some(short(url).into_owned()),
            Self::Bytes(_) | Self::Rgb(_) => None,
        }
    }

    /// The file that it is read from.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::Path(path) | Self::PdfPage { path, .. } => Some(path),
            _ => None,
        }
    }

    /// With another path, where it has one.
    #[must_use]
    pub fn map_file(self, map: impl FnOnce(PathBuf) -> PathBuf) -> Self {
        match self {
            Self::Path(path) => Self::Path(map(path)),
            Self::PdfPage { path, page } => Self::PdfPage { path: map(path), page },
            other => other,
        }
    }
}

/// The number of pages of a PDF.
///
/// # Errors
///
/// [`Error::Io`]; [`Error::Image`] for a file that is no PDF, is encrypted or has no pages, and without the feature `pdf`.
pub fn count_pdf_pages(path: &Path, options: &DecodeOptions) -> Result<u32, Error> {
    let bytes = read_file(path, options.limits.max_file_bytes)?;
    qwen2vl_preprocess::count_pdf_pages(&bytes, options)
        .map_err(|source| Error::Image { input: path.display().to_string(), source })
}

/// The name of an input in rows and messages; of one without a name, its kind and place.
pub(crate) fn input_name(input: &ImageInput, kind: &str, index: usize) -> String {
    input.name().unwrap_or_else(|| format!("{kind} {}", index + 1))
}

/// An image whose bytes are there and whose pixels are not yet.
pub(crate) struct Loaded<'a> {
    data: Data<'a>,
    /// Of a PDF.
    page: Option<u32>,
}

enum Data<'a> {
    Encoded(Cow<'a, [u8]>),
    Pixels(&'a RgbImage),
}

impl<'a> Loaded<'a> {
    pub(crate) fn open(input: &'a ImageInput, options: &DecodeOptions) -> Result<Self, Error> {
        let limit = options.limits.max_file_bytes;
        let encoded = |bytes, page| Ok(Self { data: Data::Encoded(bytes), page });
        match input {
            ImageInput::Path(path) => encoded(Cow::Owned(read_file(path, limit)?), None),
            ImageInput::PdfPage { path, page } => encoded(Cow::Owned(read_file(path, limit)?), Some(*page)),
            ImageInput::Url(url) => {
                let (bytes, page) = read_url(url, limit)?;
                encoded(Cow::Owned(bytes), page)
            }
            ImageInput::Bytes(bytes) => encoded(Cow::Borrowed(bytes.as_slice()), None),
            ImageInput::Rgb(image) => Ok(Self { data: Data::Pixels(image), page: None }),
        }
    }

    pub(crate) fn size(&self, options: &DecodeOptions) -> Result<ImageSize, qwen2vl_preprocess::Error> {
        match &self.data {
            Data::Pixels(image) => Ok(image.size()),
            Data::Encoded(bytes) if self.is_pdf(bytes) => read_pdf_page_size(bytes, self.page, options),
            Data::Encoded(bytes) => read_size(bytes),
        }
    }

    /// The frames of an animation; of a page of a PDF or pixels, none.
    pub(crate) fn animation(&self) -> Result<Option<AnimationInfo>, qwen2vl_preprocess::Error> {
        match &self.data {
            Data::Encoded(bytes) if !self.is_pdf(bytes) => read_animation(bytes).map(Some),
            _ => Ok(None),
        }
    }

    /// The frames themselves.
    pub(crate) fn into_animation(
        self,
        options: &DecodeOptions,
    ) -> Result<Animation<'a>, qwen2vl_preprocess::Error> {
        match self.data {
            Data::Encoded(bytes) => decode_animation(bytes, options),
            Data::Pixels(_) => Err(qwen2vl_preprocess::Error::NoFrames),
        }
    }

    pub(crate) fn decode(
        &self,
        options: &DecodeOptions,
    ) -> Result<Cow<'a, RgbImage>, qwen2vl_preprocess::Error> {
        match &self.data {
            Data::Pixels(image) => Ok(Cow::Borrowed(image)),
            Data::Encoded(bytes) if self.is_pdf(bytes) => {
                decode_pdf_page(bytes, self.page, options).map(Cow::Owned)
            }
            Data::Encoded(bytes) => decode_image(bytes, options).map(Cow::Owned),
        }
    }

    /// Hashes what it is decoded from, and by which options.
    pub(crate) fn hash(&self, options: &DecodeOptions, hasher: &mut blake3::Hasher) {
        let DecodeOptions { limits: _, alpha, pdf_dpi } = options;
        hasher.update(format!("{alpha:?} {pdf_dpi} {:?}", self.page).as_bytes());
        match &self.data {
            Data::Encoded(bytes) => {
                hasher.update(b"encoded").update(&bytes.len().to_le_bytes()).update(bytes)
            }
            Data::Pixels(image) => {
                let ImageSize { height, width } = image.size();
                hasher.update(format!("{height}x{width}").as_bytes()).update(image.as_raw())
            }
        };
    }

    fn is_pdf(&self, bytes: &[u8]) -> bool {
        self.page.is_some() || is_pdf(bytes)
    }
}

fn read_file(path: &Path, limit: u64) -> Result<Vec<u8>, Error> {
    let text = path.as_os_str();
    if text.len() > MAX_PATH_BYTES {
        let reason = format!(
            "a text of {} bytes is no path; image data need \"data:image/png;base64,\" before them",
            text.len()
        );
        return Err(Error::Source { input: short(&path.display().to_string()).into_owned(), reason });
    }
    let wrap = |source| Error::Io { path: path.to_owned(), source };
    let bytes = std::fs::metadata(path).map_err(wrap)?.len();
    if bytes > limit {
        let source = qwen2vl_preprocess::Error::FileTooLarge { bytes, limit };
        return Err(Error::Image { input: path.display().to_string(), source });
    }
    std::fs::read(path).map_err(wrap)
}

/// What a data URL holds, and the page that its fragment names.
fn read_url(url: &str, limit: u64) -> Result<(Vec<u8>, Option<u32>), Error> {
    let refused = |reason: String| Error::Source { input: short(url).into_owned(), reason };
    if scheme(url) != Some("data") {
        return Err(refused("only local files are read; download it first".to_owned()));
    }
    let (head, body) = url[5..]
        .split_once(',')
        .ok_or_else(|| refused("a data URL needs a comma before its data".to_owned()))?;
    let (body, fragment) = body.split_once('#').unwrap_or((body, ""));
    let mut parameters = head.split(';').map(str::trim);
    check_media_type(parameters.next().unwrap_or_default()).map_err(refused)?;
    let is_base64 = parameters.next_back().is_some_and(|p| p.eq_ignore_ascii_case("base64"));
    let n_bytes = if is_base64 { body.len() / 4 * 3 } else { body.len() } as u64;
    if n_bytes > limit {
        let source = qwen2vl_preprocess::Error::FileTooLarge { bytes: n_bytes, limit };
        return Err(Error::Image { input: short(url).into_owned(), source });
    }
    let bytes = if body.contains('%') { Cow::Owned(percent_decoded(body)) } else { body.as_bytes().into() };
    let bytes = if is_base64 { from_base64(&bytes).map_err(refused)? } else { bytes.into_owned() };
    if bytes.is_empty() {
        return Err(refused("the data URL holds no data".to_owned()));
    }
    Ok((bytes, page_of(fragment)))
}

/// Images and PDFs pass, and what names nothing in particular: the bytes tell what they are.
fn check_media_type(media_type: &str) -> Result<(), String> {
    let media_type = media_type.to_ascii_lowercase();
    let advice = match media_type.as_str() {
        "image/svg+xml" => "SVG is not read; render it to PNG",
        "" | "image" | "application/octet-stream" | "application/pdf" => return Ok(()),
        image if image.starts_with("image/") => return Ok(()),
        video if video.starts_with("video/") => "a video is no image; give it as a video",
        _ => "that is no image",
    };
    Err(format!("the data URL says that it holds {}: {advice}", short(&media_type)))
}

fn from_base64(text: &[u8]) -> Result<Vec<u8>, String> {
    let text: Cow<'_, [u8]> = if text.iter().any(u8::is_ascii_whitespace) {
        text.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect()
    } else {
        text.into()
    };
    use base64::DecodeError;
    BASE64.decode(&text).map_err(|error| match error {
        DecodeError::InvalidByte(at, byte) => {
            format!("the data are not base64: {:?} at character {at} of {}", char::from(byte), text.len())
        }
        other => format!("the data are not base64: {other}, in {} characters", text.len()),
    })
}

/// `%41` becomes `A`; what is no such escape stays.
fn percent_decoded(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let digit = |i: usize| bytes.get(at + i).and_then(|b| char::from(*b).to_digit(16));
        match (bytes[at], digit(1), digit(2)) {
            (b'%', Some(high), Some(low)) => {
                decoded.push((high * 16 + low) as u8);
                at += 3;
            }
            (byte, _, _) => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    decoded
}

#[cfg(test)]
mod tests;
