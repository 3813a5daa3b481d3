//! Spark's image struct, and what becomes of it.
//!
//! Follows `ImageSchema` of Apache Spark 3.5: rows of pixels from the top, each pixel its bytes in OpenCV's order (blue
//! first), the kind of pixel by OpenCV's number. Spark NLP's `ImageAssembler.loadImagesAsBytes` puts the bytes of the
//! file in place of the pixels and leaves the other fields as they were; so data that begin as an image file does are
//! one, unless they are exactly as many as the pixels need and their header tells another size.

use std::sync::Arc;

use qwen2vl_pipeline::{AlphaMode, DecodeLimits, ImageInput, ImageSize, RgbImage};
use qwen2vl_preprocess::read_size;
use serde::{Deserialize, Serialize};

use crate::{Error, bytes};

/// OpenCV's number for one channel of bytes, `CV_8UC1`.
pub const MODE_GREY: i32 = 0;
/// OpenCV's number for three channels of bytes, `CV_8UC3`: blue, green, red.
pub const MODE_BGR: i32 = 16;
/// OpenCV's number for four channels of bytes, `CV_8UC4`: blue, green, red, alpha.
pub const MODE_BGRA: i32 = 24;
/// Spark's number for what is no image.
pub const MODE_UNDEFINED: i32 = -1;

/// A row of the column `image` that `spark.read.format("image")` makes.
///
/// All fields may be null in Spark, whose JSON leaves nulls out: read from there, they are as in [`SparkImage::invalid`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SparkImage {
    /// Where the image comes from, a URI as a rule.
    pub origin: String,
    /// Height in pixels.
    pub height: i32,
    /// Width in pixels.
    pub width: i32,
    /// Bytes of a pixel.
    pub n_channels: i32,
    /// OpenCV's number for the kind of pixel.
    pub mode: i32,
    /// `[height, width, nChannels]`, or the bytes of an image file.
    #[serde(with = "bytes")]
    pub data: Arc<[u8]>,
}

/// What cannot be decoded, of no origin.
impl Default for SparkImage {
    fn default() -> Self {
        Self::invalid("")
    }
}

/// The kinds of pixels that Spark's reader makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PixelKind {
    /// One byte.
    Grey,
    /// Blue, green, red.
    Bgr,
    /// Blue, green, red, alpha.
    Bgra,
}

impl PixelKind {
    /// By OpenCV's number.
    pub fn from_mode(mode: i32) -> Option<Self> {
        match mode {
            MODE_GREY => Some(Self::Grey),
            MODE_BGR => Some(Self::Bgr),
            MODE_BGRA => Some(Self::Bgra),
            _ => None,
        }
    }

    /// OpenCV's number.
    pub fn mode(self) -> i32 {
        match self {
            Self::Grey => MODE_GREY,
            Self::Bgr => MODE_BGR,
            Self::Bgra => MODE_BGRA,
        }
    }

    /// Bytes of a pixel.
    pub fn channels(self) -> i32 {
        match self {
            Self::Grey => 1,
            Self::Bgr => 3,
            Self::Bgra => 4,
        }
    }
}

impl SparkImage {
    /// An image of these pixels, `[height, width, channels]` in OpenCV's order.
    pub fn new(
        origin: impl Into<String>,
        kind: PixelKind,
        height: i32,
        width: i32,
        data: impl Into<Arc<[u8]>>,
    ) -> Self {
        let (n_channels, mode) = (kind.channels(), kind.mode());
        Self { origin: origin.into(), height, width, n_channels, mode, data: data.into() }
    }

    /// What Spark's reader makes of a file that it cannot decode.
    pub fn invalid(origin: impl Into<String>) -> Self {
        let [height, width, n_channels, mode] = [-1; 4];
        Self { origin: origin.into(), height, width, n_channels, mode, data: Arc::default() }
    }

    /// An image file. Fields besides `origin` and `data` are those of what cannot be decoded, until somebody does.
    pub fn encoded(origin: impl Into<String>, file: impl Into<Arc<[u8]>>) -> Self {
        Self { data: file.into(), ..Self::invalid(origin) }
    }

    /// An image as Spark's reader would give it, blue first.
    pub fn from_rgb(origin: impl Into<String>, image: &RgbImage) -> Self {
        let ImageSize { height, width } = image.size();
        let bgr: Vec<u8> =
            image.as_raw().as_chunks::<3>().0.iter().flat_map(|[r, g, b]| [*b, *g, *r]).collect();
        // No image in memory has sides beyond i32.
        let side = |side: u32| i32::try_from(side).unwrap_or(i32::MAX);
        Self::new(origin, PixelKind::Bgr, side(height), side(width), bgr)
    }

    /// Whether it marks a file that was not decoded.
    pub fn is_invalid(&self) -> bool {
        self.data.is_empty()
            && (self.mode == MODE_UNDEFINED || self.height == -1 || self.width == -1 || self.n_channels == -1)
    }

    /// Whether its data are an image file, not pixels.
    pub fn is_encoded(&self) -> bool {
        // Without a size they can only be a file.
        if self.mode == MODE_UNDEFINED && self.height == -1 && self.width == -1 && !self.data.is_empty() {
            return true;
        }
        if !is_encoded_image(&self.data) {
            return false;
        }
        // Pixels may begin as a file does (`BM` is a dark blue), but then no header follows that tells their size.
        let as_pixels = self.kind().ok().and_then(|kind| self.expected_bytes(kind));
        let sizes_fit = |size: ImageSize| {
            let [h, w] = [size.height, size.width].map(i64::from);
            let own = [self.height, self.width].map(i64::from);
            own == [h, w] || own == [w, h]
        };
        as_pixels != Some(self.data.len() as u64) || read_size(&self.data).is_ok_and(sizes_fit)
    }

    /// The pixels as the model takes them. Alpha is forgotten, as Hugging Face's `convert("RGB")` does, or laid over a
    /// color.
    ///
    /// # Errors
    ///
    /// Of everything that does not fit: [`Error::InvalidImage`], [`Error::ImageSize`], [`Error::Mode`],
    /// [`Error::Channels`], [`Error::TooManyPixels`], [`Error::DataLength`]; and [`Error::Pipeline`] of an image file
    /// that cannot be decoded.
    pub fn to_rgb(&self, limits: &DecodeLimits, alpha: AlphaMode) -> Result<RgbImage, Error> {
        if self.is_encoded() {
            let options = qwen2vl_preprocess::DecodeOptions { limits: *limits, alpha, ..Default::default() };
            return qwen2vl_preprocess::decode_image(&self.data, &options).map_err(|e| self.image_error(e));
        }
        let kind = self.check(limits)?;
        let pixels = |rgb: Vec<u8>| {
            RgbImage::new(self.height.unsigned_abs(), self.width.unsigned_abs(), rgb)
                .map_err(|e| self.image_error(e))
        };
        let mut rgb = Vec::with_capacity(self.height as usize * self.width as usize * 3);
        match kind {
            PixelKind::Grey => rgb.extend(self.data.iter().flat_map(|&grey| [grey; 3])),
            PixelKind::Bgr => rgb.extend(self.data.as_chunks().0.iter().flat_map(|&[b, g, r]| [r, g, b])),
            PixelKind::Bgra => {
                rgb.extend(
                    self.data.as_chunks().0.iter().flat_map(|&[b, g, r, a]| over(alpha, [r, g, b], a)),
                );
            }
        }
        pixels(rgb)
    }

    /// The image as the pipeline takes it: a file as it is, to be decoded when its turn comes, or pixels.
    ///
    /// # Errors
    ///
    /// As [`SparkImage::to_rgb`], but for those of decoding a file.
    pub fn to_input(&self, limits: &DecodeLimits, alpha: AlphaMode) -> Result<ImageInput, Error> {
        if self.is_encoded() {
            return Ok(ImageInput::Bytes(self.data.to_vec()));
        }
        self.to_rgb(limits, alpha).map(ImageInput::Rgb)
    }

    /// The kind of pixel, of mode and channels together.
    fn kind(&self) -> Result<PixelKind, Error> {
        let kind = PixelKind::from_mode(self.mode)
            .ok_or_else(|| Error::Mode { origin: self.origin.clone(), mode: self.mode })?;
        if kind.channels() != self.n_channels {
            return Err(Error::Channels {
                origin: self.origin.clone(),
                mode: self.mode,
                expected: kind.channels(),
                given: self.n_channels,
            });
        }
        Ok(kind)
    }

    fn expected_bytes(&self, kind: PixelKind) -> Option<u64> {
        let [h, w, c] = [self.height, self.width, kind.channels()].map(u64::try_from);
        h.ok()?.checked_mul(w.ok()?)?.checked_mul(c.ok()?)
    }

    /// Everything that can be known before any memory is asked for.
    fn check(&self, limits: &DecodeLimits) -> Result<PixelKind, Error> {
        if self.is_invalid() {
            return Err(Error::InvalidImage { origin: self.origin.clone() });
        }
        if self.height <= 0 || self.width <= 0 {
            return Err(Error::image_size(self));
        }
        let kind = self.kind()?;
        let pixels = u64::from(self.height.unsigned_abs()) * u64::from(self.width.unsigned_abs());
        if pixels > limits.max_pixels {
            let (height, width) = (self.height, self.width);
            let origin = self.origin.clone();
            return Err(Error::TooManyPixels { origin, height, width, pixels, limit: limits.max_pixels });
        }
        let expected = pixels * kind.channels().unsigned_abs() as u64;
        if self.data.len() as u64 != expected {
            return Err(Error::DataLength {
                origin: self.origin.clone(),
                height: self.height,
                width: self.width,
                channels: self.n_channels,
                expected,
                given: self.data.len(),
            });
        }
        Ok(kind)
    }

    fn image_error(&self, source: qwen2vl_preprocess::Error) -> Error {
        qwen2vl_pipeline::Error::Image { input: self.origin.clone(), source }.into()
    }
}

/// An RGB image, as Spark's reader would give it; without an origin.
impl From<&RgbImage> for SparkImage {
    fn from(image: &RgbImage) -> Self {
        Self::from_rgb("", image)
    }
}

/// One pixel over a color, or without its alpha.
fn over(alpha: AlphaMode, rgb: [u8; 3], a: u8) -> [u8; 3] {
    match alpha {
        AlphaMode::Drop => rgb,
        AlphaMode::Composite(back) => std::array::from_fn(|i| {
            let sum = u32::from(rgb[i]) * u32::from(a) + u32::from(back[i]) * u32::from(255 - a);
            // Rounded as Pillow does.
            u8::try_from((sum + 127) / 255).unwrap_or(u8::MAX)
        }),
    }
}

/// Whether bytes begin as a file of a known image format does.
pub fn is_encoded_image(bytes: &[u8]) -> bool {
    const STARTS: [&[u8]; 11] = [
        b"\xff\xd8\xff",
        b"\x89PNG\r\n\x1a\n",
        b"GIF87a",
        b"GIF89a",
        b"BM",
        b"II*\0",
        b"MM\0*",
        b"P4",
        b"P5",
        b"P6",
        b"%PDF-",
    ];
    let within = |at: usize, text: &[u8]| bytes.get(at..).is_some_and(|rest| rest.starts_with(text));
    STARTS.iter().any(|start| bytes.starts_with(start))
        || (within(0, b"RIFF") && within(8, b"WEBP"))
        // HEIC and AVIF.
        || within(4, b"ftyp")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(kind: PixelKind, height: i32, width: i32, data: &[u8]) -> SparkImage {
        SparkImage::new("file:///a.png", kind, height, width, data)
    }

    fn rgb(image: &SparkImage) -> Result<Vec<u8>, Error> {
        image.to_rgb(&DecodeLimits::default(), AlphaMode::Drop).map(RgbImage::into_raw)
    }

    #[test]
    fn pixels_become_rgb() {
        assert_eq!(rgb(&image(PixelKind::Grey, 1, 2, &[7, 200])).unwrap(), [7, 7, 7, 200, 200, 200]);
        assert_eq!(rgb(&image(PixelKind::Bgr, 2, 1, &[1, 2, 3, 4, 5, 6])).unwrap(), [3, 2, 1, 6, 5, 4]);
        assert_eq!(rgb(&image(PixelKind::Bgra, 1, 1, &[1, 2, 3, 0])).unwrap(), [3, 2, 1]);
        let half = image(PixelKind::Bgra, 1, 1, &[0, 0, 200, 128]);
        let white = half.to_rgb(&DecodeLimits::default(), AlphaMode::Composite([255; 3])).unwrap();
        assert_eq!(white.as_raw(), [227, 127, 127]);
    }

    #[test]
    fn what_does_not_fit_is_named_with_its_values() {
        let bgr = image(PixelKind::Bgr, 2, 2, &[0; 12]);
        let with = |change: fn(&mut SparkImage)| {
            let mut image = bgr.clone();
            change(&mut image);
            image
        };
        let cases: [(SparkImage, &str); 11] = [
            (SparkImage::invalid("file:///b.webp"), "file:///b.webp: the image is invalid (mode -1)"),
            (
                with(|i| i.data = vec![0; 11].into()),
                "11 bytes of data for 2x2 pixels of 3 channels, which need 12",
            ),
            (with(|i| i.data = Arc::default()), "0 bytes of data"),
            (with(|i| i.data = vec![0; 13].into()), "13 bytes"),
            (with(|i| i.n_channels = 4), "mode is 16, which has 3 channels, but nChannels is 4"),
            (with(|i| i.mode = 24), "mode is 24, which has 4 channels, but nChannels is 3"),
            (with(|i| i.mode = 21), "mode is 21, allowed are 0 (grey), 16 (BGR) and 24 (BGRA)"),
            (with(|i| i.mode = -1), "mode is -1"),
            (with(|i| i.height = 0), "2x0"),
            (with(|i| i.width = i32::MIN), "-2147483648x2"),
            (with(|i| (i.height, i.width) = (i32::MAX, i32::MAX)), "4611686014132420609 pixels"),
        ];
        for (image, want) in cases {
            let error = rgb(&image).unwrap_err();
            assert_eq!(error.kind(), "image", "{error}");
            assert!(error.to_string().contains(want), "{want}: {error}");
        }
    }

    #[test]
    fn files_are_known_by_their_first_bytes_and_pixels_that_begin_alike_are_not() {
        let png = std::fs::read(qwen2vl_testkit::image("size_3x2.png")).unwrap();
        let spark = SparkImage { data: png.clone().into(), ..image(PixelKind::Bgr, 2, 3, &[]) };
        assert!(spark.is_encoded() && SparkImage::encoded("", png).is_encoded());
        assert_eq!(rgb(&spark).unwrap().len(), 18);
        let blue = image(PixelKind::Bgr, 1, 2, b"BM\0BM\0");
        assert!(!blue.is_encoded());
        assert_eq!(rgb(&blue).unwrap(), [0, b'M', b'B', 0, b'M', b'B']);
        // Of another length, it can only be a damaged file.
        let error = rgb(&image(PixelKind::Bgr, 1, 2, b"BM\0BM\0x")).unwrap_err();
        assert!(matches!(error, Error::Pipeline(_)), "{error}");
    }

    #[test]
    fn its_json_is_spark_s() {
        let json = serde_json::to_string(&image(PixelKind::Grey, 1, 2, &[1, 2])).unwrap();
        let want = r#"{"origin":"file:///a.png","height":1,"width":2,"nChannels":1,"mode":0,"data":"AQI="}"#;
        assert_eq!(json, want);
        assert_eq!(serde_json::from_str::<SparkImage>(want).unwrap(), image(PixelKind::Grey, 1, 2, &[1, 2]));
    }

    #[test]
    fn nulls_are_left_out_by_spark() {
        let image: SparkImage = serde_json::from_str(r#"{"origin":"a","height":1}"#).unwrap();
        assert_eq!(image, SparkImage { height: 1, ..SparkImage::invalid("a") });
        assert!(rgb(&image).is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_struct_is_an_image_of_its_size_or_an_error(
            height in -2..9i32, width in -2..9i32, n_channels in -1..5i32, mode in 0..4usize, length in 0..260usize,
            file in proptest::bool::ANY,
        ) {
            let mode = [MODE_UNDEFINED, MODE_GREY, MODE_BGR, MODE_BGRA][mode];
            let mut data = vec![200u8; length];
            if file {
                data.splice(..length.min(3), *b"\xff\xd8\xff");
            }
            let image = SparkImage { origin: String::new(), height, width, n_channels, mode, data: data.into() };
            if let Ok(rgb) = rgb(&image) {
                let bytes = (height * width) as usize;
                proptest::prop_assert_eq!((rgb.len(), length), (bytes * 3, bytes * n_channels as usize));
                proptest::prop_assert!(PixelKind::from_mode(mode).is_some_and(|k| k.channels() == n_channels));
            }
        }
    }
}
