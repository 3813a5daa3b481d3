//! Frame sampling of Hugging Face transformers 4.57.6, `models/qwen2_vl/video_processing_qwen2_vl.py`.

use qwen2vl_types::PatchGeometry;

use super::{FrameSelection, VideoInfo, check_count, check_rate, selection, torch};
use crate::{Error, PixelLimits, smart_resize};

/// Options of `Qwen2VLVideoProcessor`.
///
/// With neither `num_frames` nor `fps` all frames are taken, which is what `do_sample_frames=False`, its default, does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HfSampling {
    /// Frames to choose, rounded to a multiple of `temporal_patch_size`, ties to even. Excludes `fps`.
    pub num_frames: Option<u32>,
    /// Frames a second to choose. Excludes `num_frames`.
    pub fps: Option<f64>,
    /// Fewest frames by `fps`; `max_frames` wins where they contradict.
    pub min_frames: u32,
    /// Most frames by `fps`.
    pub max_frames: u32,
    /// How many pixels a frame may have. The reference takes them from the model's `video_preprocessor_config.json` or
    /// `preprocessor_config.json`, and those of its class only where there is neither.
    pub pixel_limits: PixelLimits,
}

/// The defaults of the class.
impl Default for HfSampling {
    fn default() -> Self {
        Self {
            num_frames: None,
            fps: None,
            min_frames: 4,
            max_frames: 768,
            pixel_limits: PixelLimits::VIDEO_CLASS_DEFAULT,
        }
    }
}

impl HfSampling {
    /// `Qwen2VLVideoProcessor.sample_frames`, then the size of `_preprocess`.
    pub(super) fn select(&self, video: &VideoInfo, geometry: PatchGeometry) -> Result<FrameSelection, Error> {
        let resized = smart_resize(video.size, geometry.factor(), self.pixel_limits)?;
        let indices = match self.count(video, u64::from(geometry.temporal_patch_size))? {
            Some(count) => torch::arange_truncated(video.n_frames, check_count(count)?),
            None => {
                check_count(video.n_frames)?;
                (0..video.n_frames).collect()
            }
        };
        Ok(selection(indices, video.n_frames, video, resized, geometry))
    }

    /// How many frames; `None` for all. At least `factor`, which is `temporal_patch_size`, and at most those there are.
    fn count(&self, video: &VideoInfo, factor: u64) -> Result<Option<u64>, Error> {
        check_rate("fps", self.fps)?;
        let n_frames = video.n_frames;
        match (self.num_frames, self.fps) {
            (Some(_), Some(_)) => Err(Error::Exclusive { first: "num_frames", second: "fps" }),
            (None, None) => Ok(None),
            (Some(asked), None) => {
                let wanted = (f64::from(asked) / factor as f64).round_ties_even() as u64 * factor;
                if wanted == 0 {
                    return Err(Error::TooFewSampled { chosen: asked.into(), needed: factor });
                }
                if wanted > n_frames {
                    return Err(Error::FrameCount { name: "num_frames", wanted, n_frames });
                }
                Ok(Some(wanted))
            }
            (None, Some(fps)) => self.count_by_rate(n_frames, video.fps, fps, factor).map(Some),
        }
    }

    fn count_by_rate(
        &self,
        n_frames: u64,
        video_fps: Option<f64>,
        fps: f64,
        factor: u64,
    ) -> Result<u64, Error> {
        let video_fps = video_fps.ok_or(Error::UnknownFrameRate { option: "fps" })?;
        if n_frames < factor {
            return Err(Error::TooFewFrames { n_frames, needed: factor });
        }
        let most = u64::from(self.max_frames).min(n_frames) / factor * factor;
        let wanted = n_frames as f64 / video_fps * fps;
        let wanted = wanted.max(f64::from(self.min_frames)).min(most as f64);
        // The reference divides by this number next.
        match (wanted / factor as f64).floor() as u64 * factor {
            0 => Err(Error::TooFewSampled { chosen: wanted as u64, needed: factor }),
            count => Ok(count),
        }
    }
}
