//! A limit on memory: images are made smaller until a request's plan fits, or the request is refused.
//!
//! What is held to the limit is the plan of one request beside the loaded model, as `Processor::plan` tells it. Caches and
//! requests that are answered at the same time have limits of their own.

use qwen2vl_preprocess::{ImageSize, PixelLimits};
use qwen2vl_types::GridThw;

use crate::render::GivenImage;
use crate::source::Loaded;
use crate::{Error, MediaInfo, Processor, RequestOptions};

/// What becomes of a request whose plan is over the memory limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnExceed {
    /// Its images get fewer pixels, with a warning; it is refused where the fewest that they may have are too many.
    #[default]
    Lower,
    /// It is refused.
    Refuse,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MemoryLimit {
    pub bytes: u64,
    pub on_exceed: OnExceed,
}

impl MemoryLimit {
    /// Nothing for a peak within the limit.
    pub fn check(self, needed_bytes: u64) -> Result<(), Error> {
        match needed_bytes > self.bytes {
            true => Err(Error::MemoryLimit { needed_bytes, limit_bytes: self.bytes }),
            false => Ok(()),
        }
    }

    /// The most pixels an image may have so that `peak` is within the limit; `None` where nothing has to change.
    pub fn lowered(
        self,
        most: u64,
        fewest: u64,
        step: u64,
        peak: impl Fn(u64) -> u64,
    ) -> Result<Option<u64>, Error> {
        let whole = peak(most);
        if whole <= self.bytes {
            return Ok(None);
        }
        if self.on_exceed == OnExceed::Refuse {
            return self.check(whole).map(|()| None);
        }
        // What fits is between `fits` and `fits + steps * step`, the latter left out.
        let mut fits = fewest.min(most);
        self.check(peak(fits))?;
        let mut steps = (most - fits).div_ceil(step.max(1));
        while steps > 1 {
            let half = steps / 2;
            let tried = fits + half * step.max(1);
            match peak(tried) <= self.bytes {
                true => (fits, steps) = (tried, steps - half),
                false => steps = half,
            }
        }
        Ok(Some(fits))
    }

    /// What a row says about images that were made smaller.
    pub fn warning(self, max_pixels: u64) -> String {
        format!(
            "images have at most {max_pixels} pixels to keep to the memory limit of {} MiB",
            self.bytes >> 20
        )
    }
}

/// A picture of a request, before it is decoded: its own size and that of its grid.
struct Sized {
    decoded_bytes: u64,
    grid: GridThw,
}

/// Limits that leave an image no more than so many pixels, or its fewest if those are more.
pub(crate) fn capped(limits: PixelLimits, max_pixels: Option<u64>) -> PixelLimits {
    let most = max_pixels.map_or(limits.max_pixels, |cap| limits.max_pixels.min(cap.max(limits.min_pixels)));
    PixelLimits { max_pixels: most, ..limits }
}

impl Processor {
    /// Holds requests to so much memory of the whole process, the model included, as [`Processor::plan`] predicts it for
    /// one request.
    #[must_use]
    pub fn memory_limit(mut self, bytes: u64, on_exceed: OnExceed) -> Self {
        self.memory_limit = Some(MemoryLimit { bytes, on_exceed });
        self.weights.low_memory = true;
        self
    }

    /// The most pixels of each image by the memory limit; `None` where all fit as they are.
    pub(crate) fn pixels_within_limit(
        &self,
        images: &[(ImageSize, PixelLimits)],
        other_tokens: usize,
        options: &RequestOptions,
    ) -> Result<Option<u64>, Error> {
        let Some(limit) = self.memory_limit else { return Ok(None) };
        let peak = |cap| {
            // A size that is out of range is for the image's own error.
            let grids = images.iter().filter_map(|&(size, limits)| {
                let (_, grid) = self.images.plan(size, capped(limits, Some(cap))).ok()?;
                Some(Sized { decoded_bytes: size.pixels().saturating_mul(3), grid })
            });
            let grids: Vec<_> = grids.collect();
            let tokens = grids.iter().map(|sized| self.tokens(sized.grid)).sum::<usize>();
            self.peak_bytes(&grids, tokens.saturating_add(other_tokens), options)
        };
        let largest = |pixels: fn(&PixelLimits) -> u64| images.iter().map(move |(_, limits)| pixels(limits));
        // Nobody asks for more pixels than an image of its own size has, but sizes can be asked for.
        let most = largest(|limits| limits.max_pixels).max().unwrap_or(0);
        let fewest = largest(|limits| limits.min_pixels).min().unwrap_or(0);
        let geometry = &self.package.model.geometry;
        let side = u64::from(geometry.patch_size) * u64::from(geometry.merge_size);
        limit.lowered(most, fewest, side * side, peak)
    }

    /// [`Processor::pixels_within_limit`] of images that are not read yet.
    pub(crate) fn given_within_limit(
        &self,
        images: &[GivenImage<'_>],
        prompt: &str,
        earlier: &[MediaInfo],
        options: &RequestOptions,
    ) -> Result<Option<u64>, Error> {
        if self.memory_limit.is_none() || images.is_empty() {
            return Ok(None);
        }
        let limits = options.pixel_limits(self.model_pixel_limits());
        let mut sizes = Vec::with_capacity(images.len());
        for given in images {
            // What cannot be read has its error where it is read.
            let Ok(loaded) = Loaded::open(&given.image, &self.decode) else { continue };
            let Ok(size) = loaded.size(&self.decode) else { continue };
            sizes.push((given.sizing.resized.unwrap_or(size), given.limits(limits)));
        }
        let earlier_tokens: usize = earlier.iter().map(|m| m.tokens).sum();
        let text_tokens = self.tokenizer().encode(prompt)?.len();
        self.pixels_within_limit(&sizes, text_tokens.saturating_add(earlier_tokens), options)
    }

    /// Refuses what is over the memory limit with all that is known of it.
    pub(crate) fn check_limit(
        &self,
        media: &[MediaInfo],
        prompt_tokens: usize,
        options: &RequestOptions,
    ) -> Result<(), Error> {
        let Some(limit) = self.memory_limit else { return Ok(()) };
        let grids = media.iter().map(|info| Sized {
            decoded_bytes: info.size.pixels().saturating_mul(3),
            grid: GridThw { t: 1, ..info.grid_thw },
        });
        limit.check(self.peak_bytes(&grids.collect::<Vec<_>>(), prompt_tokens, options))
    }

    /// The peak of a request: that of its largest image, and the pixel values of the others, which wait meanwhile.
    fn peak_bytes(&self, media: &[Sized], prompt_tokens: usize, options: &RequestOptions) -> u64 {
        let patches = |sized: &Sized| sized.grid.n_patches() as u64;
        let largest = media.iter().max_by_key(|sized| patches(sized));
        let waiting = media.iter().map(patches).sum::<u64>() - largest.map_or(0, patches);
        let decoded = media.iter().map(|sized| sized.decoded_bytes).max().unwrap_or(0);
        let config = options.generation(&self.package.generation);
        let plan = self.memory_plan(largest.map(|sized| sized.grid), prompt_tokens, config.max_new_tokens);
        let patch_bytes = self.package.model.geometry.patch_len() as u64 * 4;
        let peak = plan.with_rows(config.num_beams).peak_bytes();
        peak.saturating_add(waiting.saturating_mul(patch_bytes)).saturating_add(decoded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_pixels_that_fit_are_found() {
        // A peak of 1,000 bytes and one for each pixel.
        let peak = |pixels: u64| 1000 + pixels;
        for (bytes, most, fewest, want) in [
            (5000, 4000, 100, Ok(None)),
            (4999, 4000, 100, Ok(Some(3990))),
            (1100, 4000, 100, Ok(Some(100))),
            (1099, 4000, 100, Err((1100, 1099))),
            (1109, 4000, 100, Ok(Some(100))),
            (1110, 4000, 100, Ok(Some(110))),
            (1500, 4000, 9000, Err((5000, 1500))),
            (0, 0, 0, Err((1000, 0))),
        ] {
            let lowered = |on_exceed| match (MemoryLimit { bytes, on_exceed }).lowered(most, fewest, 10, peak)
            {
                Err(Error::MemoryLimit { needed_bytes, limit_bytes }) => Err((needed_bytes, limit_bytes)),
                other => Ok(other.unwrap()),
            };
            assert_eq!(lowered(OnExceed::Lower), want, "{bytes} {most} {fewest}");
            let refused = if want == Ok(None) { Ok(None) } else { Err((1000 + most, bytes)) };
            assert_eq!(lowered(OnExceed::Refuse), refused, "{bytes} {most} {fewest}");
        }
    }

    #[test]
    fn a_cap_never_goes_below_the_fewest_pixels_nor_lifts_the_most() {
        let limits = PixelLimits { min_pixels: 100, max_pixels: 1000 };
        for (cap, want) in [(None, 1000), (Some(2000), 1000), (Some(500), 500), (Some(5), 100)] {
            assert_eq!(capped(limits, cap), PixelLimits { max_pixels: want, ..limits }, "{cap:?}");
        }
    }
}
