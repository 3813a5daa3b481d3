//! `preprocessor_config.json` and `video_preprocessor_config.json` → [`PreprocessOptions`].
//!
//! Follows `Qwen2VLImageProcessorFast` and `Qwen2VLVideoProcessor` of transformers 4.57.6. The pixel limits have two
//! spellings; `min_pixels` and `max_pixels` win over `size.shortest_edge` and `size.longest_edge`, each on its own. A
//! `size` must come out with both edges, and without any of them the class's own limits hold, which differ between
//! images and videos. Without a `video_preprocessor_config.json` videos are read by the image's file, as there; and
//! both may stand inside `processor_config.json`, where newer versions put them.

use std::path::{Path, PathBuf};

use qwen2vl_preprocess::{PixelLimits, PreprocessOptions};
use qwen2vl_types::PatchGeometry;
use serde::Deserialize;

use crate::Error;
use crate::json::{Checker, read_json};

/// Bicubic, the only interpolation that the preprocessing has.
const RESAMPLE_BICUBIC: u64 = 3;
/// Four times what a 100-megapixel photo needs.
const MAX_PIXELS: u64 = 1 << 32;

pub(crate) const IMAGE_FILE: &str = "preprocessor_config.json";
const VIDEO_FILE: &str = "video_preprocessor_config.json";
pub(crate) const NESTED_FILE: &str = "processor_config.json";

/// Fields of either file that are used.
#[derive(Debug, Deserialize)]
struct ProcessorFile {
    min_pixels: Option<u64>,
    max_pixels: Option<u64>,
    size: Option<SizeFields>,
    patch_size: Option<u64>,
    temporal_patch_size: Option<u64>,
    merge_size: Option<u64>,
    resample: Option<u64>,
    do_resize: Option<bool>,
    do_rescale: Option<bool>,
    do_normalize: Option<bool>,
    rescale_factor: Option<f64>,
    image_mean: Option<Vec<f64>>,
    image_std: Option<Vec<f64>>,
}

#[derive(Debug, Deserialize)]
struct SizeFields {
    shortest_edge: Option<u64>,
    longest_edge: Option<u64>,
}

/// Reads one file. Edited for Spark NLP, its `size` may be a number, or height and width.
fn read_file(path: &Path, for_spark: bool) -> Result<Option<ProcessorFile>, Error> {
    if !for_spark {
        return read_json(path);
    }
    let Some(mut value) = read_json::<serde_json::Value>(path)? else { return Ok(None) };
    if value.get("size").is_some_and(|size| size.get("shortest_edge").is_none()) {
        value["size"] = serde_json::Value::Null;
    }
    serde_json::from_value(value).map(Some).map_err(|source| Error::Json { path: path.to_owned(), source })
}

/// `processor_config.json` of newer versions.
#[derive(Debug, Deserialize)]
struct NestedFile {
    image_processor: Option<ProcessorFile>,
    video_processor: Option<ProcessorFile>,
}

/// Options for images and for videos. `geometry` is the model's, which both must share. `for_spark` tells a folder that
/// was edited for Spark NLP, whose import needs one number as `size`; it means nothing to Qwen2-VL.
pub(crate) fn read(
    root: &Path,
    geometry: PatchGeometry,
    for_spark: bool,
) -> Result<(PreprocessOptions, PreprocessOptions), Error> {
    let (image_path, video_path) = (root.join(IMAGE_FILE), root.join(VIDEO_FILE));
    let nested_path = root.join(NESTED_FILE);
    let own_image = read_file(&image_path, for_spark)?.map(|file| (image_path, file));
    let own_video = read_file(&video_path, for_spark)?.map(|file| (video_path, file));
    let nested = match (&own_image, &own_video) {
        (Some(_), _) => None,
        _ => read_json::<NestedFile>(&nested_path)?,
    };
    let (nested_image, nested_video) =
        nested.map_or((None, None), |n| (n.image_processor, n.video_processor));
    let image = own_image.or_else(|| nested_image.map(|file| (nested_path.clone(), file)));
    let Some((image_path, image)) = image else {
        return Err(Error::Incomplete { path: PathBuf::from(root), missing: vec![IMAGE_FILE.to_owned()] });
    };
    let video = own_video.or_else(|| nested_video.map(|file| (nested_path, file)));
    let video_options = match &video {
        Some((path, file)) => file.options(path, PixelLimits::VIDEO_CLASS_DEFAULT, geometry)?,
        None => image.options(&image_path, PixelLimits::VIDEO_CLASS_DEFAULT, geometry)?,
    };
    Ok((image.options(&image_path, PixelLimits::IMAGE_CLASS_DEFAULT, geometry)?, video_options))
}

impl ProcessorFile {
    fn options(
        &self,
        path: &Path,
        class_limits: PixelLimits,
        geometry: PatchGeometry,
    ) -> Result<PreprocessOptions, Error> {
        let at = Checker { path, prefix: "" };
        self.check_geometry(at, geometry)?;
        if let Some(other) = self.resample.filter(|r| *r != RESAMPLE_BICUBIC) {
            return Err(
                at.error("resample", format!("is {other}, only {RESAMPLE_BICUBIC} (bicubic) is supported"))
            );
        }
        let default = PreprocessOptions::default();
        let rescale_factor = self.rescale_factor.unwrap_or(default.rescale_factor);
        if !(rescale_factor.is_finite() && rescale_factor > 0.0) {
            return Err(
                at.error("rescale_factor", format!("is {rescale_factor}, it must be a number above 0"))
            );
        }
        let image_std = channels(at, "image_std", self.image_std.as_deref(), default.image_std)?;
        if image_std.iter().any(|v| *v <= 0.0) {
            return Err(at.error("image_std", format!("is {image_std:?}, all three must be above 0")));
        }
        Ok(PreprocessOptions {
            geometry,
            pixel_limits: self.pixel_limits(at, class_limits)?,
            do_resize: self.do_resize.unwrap_or(true),
            do_rescale: self.do_rescale.unwrap_or(true),
            rescale_factor,
            do_normalize: self.do_normalize.unwrap_or(true),
            image_mean: channels(at, "image_mean", self.image_mean.as_deref(), default.image_mean)?,
            image_std,
        })
    }

    fn check_geometry(&self, at: Checker<'_>, geometry: PatchGeometry) -> Result<(), Error> {
        let sizes = [
            ("patch_size", self.patch_size, geometry.patch_size),
            ("temporal_patch_size", self.temporal_patch_size, geometry.temporal_patch_size),
            ("merge_size", self.merge_size, geometry.merge_size),
        ];
        for (field, own, model) in sizes {
            // The class's defaults are those of every Qwen2-VL, so a missing value is checked against nothing.
            if let Some(own) = own.filter(|own| *own != u64::from(model)) {
                return Err(at.error(field, format!("is {own}, but config.json's vision_config has {model}")));
            }
        }
        Ok(())
    }

    fn pixel_limits(&self, at: Checker<'_>, class_limits: PixelLimits) -> Result<PixelLimits, Error> {
        let (shortest, longest) = match &self.size {
            Some(size) => (size.shortest_edge, size.longest_edge),
            None => (Some(class_limits.min_pixels), Some(class_limits.max_pixels)),
        };
        for (field, found) in [
            ("size.shortest_edge", self.min_pixels.or(shortest)),
            ("size.longest_edge", self.max_pixels.or(longest)),
        ] {
            if found.is_none() {
                return Err(at.error(field, "is missing: `size` needs shortest_edge and longest_edge"));
            }
        }
        let limits =
            PixelLimits::from_spellings(self.min_pixels, self.max_pixels, shortest, longest, class_limits);
        let (field, other) = if self.max_pixels.is_some() {
            ("max_pixels", "min_pixels")
        } else {
            ("size.longest_edge", "size.shortest_edge")
        };
        if limits.max_pixels == 0 || limits.max_pixels > MAX_PIXELS {
            return Err(at.error(field, format!("is {}, it must be 1 to {MAX_PIXELS}", limits.max_pixels)));
        }
        // A limit of the class that crosses the file's own is no mistake in the file: transformers takes both, and
        // `max_pixels` wins.
        let from_file = |own: Option<u64>| own.is_some() || self.size.is_some();
        let both = from_file(self.min_pixels) && from_file(self.max_pixels);
        if both && limits.min_pixels > limits.max_pixels {
            let (max, min) = (limits.max_pixels, limits.min_pixels);
            return Err(at.error(field, format!("is {max}, it must be at least {other}, {min}")));
        }
        Ok(limits)
    }
}

/// Three finite numbers.
fn channels(
    at: Checker<'_>,
    field: &str,
    given: Option<&[f64]>,
    default: [f64; 3],
) -> Result<[f64; 3], Error> {
    let Some(given) = given else { return Ok(default) };
    match <[f64; 3]>::try_from(given) {
        Ok(values) if values.iter().all(|v| v.is_finite() && v.abs() < 1e6) => Ok(values),
        _ => Err(at.error(field, format!("has {} values, it must be 3 finite numbers", given.len()))),
    }
}
