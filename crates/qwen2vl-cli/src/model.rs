//! Which model, and how many pixels it is given.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use qwen2vl_fetch::{FetchOptions, Fetcher, Reference};
use qwen2vl_pipeline::{
    Annotator, AnnotatorBuilder, DecodeOptions, ImageSize, ModelPackage, Processor, RequestOptions,
    cache_root, open_package,
};

use crate::args::{EngineArgs, LimitArgs, MaxPixels, ModelArgs, ModelSourceArgs};

/// The most pixels after resizing on a CPU unless asked otherwise: 1280 tokens, what Hugging Face's processor class
/// defaults to. The 2B's own limit lets a 12-megapixel photo through at full size, which takes a CPU hours.
const CPU_MAX_PIXELS: u64 = 1_003_520;

/// The package that was asked for, or the embedded demo model.
pub fn package(args: &ModelArgs) -> Result<ModelPackage> {
    named_package(args.model.as_deref())
}

/// The package at a path or of a fetched model's name; without one, the embedded demo model.
pub fn named_package<P: AsRef<Path> + ?Sized>(model: Option<&P>) -> Result<ModelPackage> {
    match model {
        Some(model) => Ok(open_package(&resolve(model)?)?),
        None => demo_package(),
    }
}

/// The path that `model` is, or that a fetched model of this name has. Nothing is fetched.
pub fn resolve<P: AsRef<Path> + ?Sized>(model: &P) -> Result<PathBuf> {
    let path = model.as_ref();
    if path.exists() {
        return Ok(path.to_owned());
    }
    // What is no name, or leads nowhere as a path, is for the package to say.
    let Some(reference) = path.to_str().and_then(|text| Reference::parse(text).ok()) else {
        return Ok(path.to_owned());
    };
    let found = Fetcher::new(fetch_options(&ModelSourceArgs::from_env())?)?.find(&reference);
    match found {
        Some(found) => Ok(found),
        None => bail!(
            "model {} is no path and not in a cache: fetch it by `qwen2vl model fetch {reference}`, or see \
             `qwen2vl model list`",
            path.display()
        ),
    }
}

/// The environment's options with those that were typed.
pub fn fetch_options(args: &ModelSourceArgs) -> Result<FetchOptions> {
    let mut options = FetchOptions::from_env()?;
    if let Some(dir) = &args.dir {
        options.models_dir.clone_from(dir);
    }
    if let Some(url) = &args.base_url {
        options.base_url.clone_from(url);
    }
    options.language.clone_from(&args.lang);
    options.offline |= args.offline;
    Ok(options)
}

/// The embedded demo model, unpacked into the cache at its first use.
pub fn demo_package() -> Result<ModelPackage> {
    ModelPackage::open_zip_bytes(qwen2vl_demo_model::NAME, qwen2vl_demo_model::INT4_ZIP, &cache_root()?)
        .context("the embedded demo model cannot be unpacked")
}

/// The processor alone, for commands that need no inference.
pub fn processor(args: &ModelArgs, pdf_dpi: u32) -> Result<Processor> {
    let processor = Processor::new(package(args)?, DecodeOptions { pdf_dpi, ..Default::default() })?;
    Ok(args.engine.memory.limit(processor))
}

/// A builder with the engine's options.
pub fn builder(package: ModelPackage, args: &EngineArgs) -> AnnotatorBuilder {
    args.apply(Annotator::builder().package(package))
}

/// The pixel limits of one run, and the one notice about them.
pub struct Limits {
    capped: bool,
    model_max_pixels: u64,
    noticed: std::cell::Cell<bool>,
}

impl Limits {
    /// Puts the limits into `options`.
    pub fn apply(
        args: &LimitArgs,
        device: &str,
        model_max_pixels: u64,
        options: &mut RequestOptions,
    ) -> Self {
        options.min_pixels = args.min_pixels;
        options.max_pixels = match args.max_pixels {
            Some(MaxPixels::Pixels(pixels)) => Some(pixels),
            Some(MaxPixels::Model) => None,
            None if device.starts_with("CPU") => Some(CPU_MAX_PIXELS.min(model_max_pixels)),
            None => None,
        };
        let capped = args.max_pixels.is_none() && options.max_pixels.is_some_and(|p| p < model_max_pixels);
        Self { capped, model_max_pixels, noticed: std::cell::Cell::new(false) }
    }

    /// The notice for the first image that the cap, not the model's own limit, makes smaller.
    pub fn notice(&self, size: ImageSize) -> Option<String> {
        let pixels = u64::from(size.height) * u64::from(size.width);
        if !self.capped || self.noticed.get() || pixels <= CPU_MAX_PIXELS {
            return None;
        }
        self.noticed.set(true);
        Some(format!(
            "note: images are reduced to {CPU_MAX_PIXELS} pixels on a CPU, the first is {}x{}; the model takes {} \
             (--max-pixels model), which is slower",
            size.width, size.height, self.model_max_pixels
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(max_pixels: Option<MaxPixels>, device: &str, model: u64) -> (Limits, RequestOptions) {
        let mut options = RequestOptions::default();
        let args = LimitArgs { min_pixels: None, max_pixels };
        (Limits::apply(&args, device, model, &mut options), options)
    }

    #[test]
    fn a_cpu_is_capped_once_said_and_the_cap_can_be_lifted() {
        let photo = ImageSize { height: 3024, width: 4032 };
        let (limits, options) = apply(None, "CPU", 12_845_056);
        assert_eq!(options.max_pixels, Some(1_003_520));
        assert_eq!(limits.notice(ImageSize { height: 480, width: 640 }), None);
        assert!(limits.notice(photo).is_some_and(|n| n.contains("4032x3024") && n.contains("12845056")));
        assert_eq!(limits.notice(photo), None);

        let (limits, options) = apply(Some(MaxPixels::Model), "CPU", 12_845_056);
        assert_eq!((options.max_pixels, limits.notice(photo)), (None, None));
        let (limits, options) = apply(Some(MaxPixels::Pixels(5_000_000)), "CPU", 12_845_056);
        assert_eq!((options.max_pixels, limits.notice(photo)), (Some(5_000_000), None));
        let (limits, options) = apply(None, "GPU", 12_845_056);
        assert_eq!((options.max_pixels, limits.notice(photo)), (None, None));
        // A model whose own limit is lower is not lifted.
        let (limits, options) = apply(None, "CPU", 200_704);
        assert_eq!((options.max_pixels, limits.notice(photo)), (Some(200_704), None));
    }
}
