//! From parameters to the options of requests and of preprocessing.

use qwen2vl_pipeline::{ModelPackage, RequestOptions};

use super::{Params, Value};
use crate::Error;

/// What the parameters come to for a model.
#[derive(Debug, Clone)]
pub(crate) struct Resolved {
    pub options: RequestOptions,
    pub task: Option<String>,
    pub batch_size: usize,
    pub lazy: bool,
    pub input_col: String,
    pub output_col: String,
}

impl Params {
    /// Checks all values and the options that are no parameters, alone and against each other, and against the model.
    ///
    /// # Errors
    ///
    /// The first parameter that does not fit, by its name in Spark NLP.
    pub fn resolve(&self, package: &ModelPackage, others: &RequestOptions) -> Result<Resolved, Error> {
        self.check()?;
        let (min_pixels, max_pixels) = self.pixel_limits(package)?;
        let mut options = RequestOptions::default();
        options.min_pixels = Some(min_pixels);
        options.max_pixels = Some(max_pixels);
        // Spark NLP leaves special tokens out; boxes between them are in the metadata.
        options.skip_special_tokens = Some(others.skip_special_tokens.unwrap_or(true));
        self.lengths(&mut options)?;
        self.choice(package, &mut options)?;
        self.sequences(&mut options)?;
        let options = options.or(others);
        options.validate(package)?;
        let task = self.text("task");
        Ok(Resolved {
            options,
            task,
            batch_size: self.count("batchSize").unwrap_or(1),
            lazy: self.boolean("lazyAnnotator").unwrap_or(false),
            input_col: self.columns().into_iter().next().unwrap_or_default(),
            output_col: self.text("outputCol").unwrap_or_default(),
        })
    }

    fn lengths(&self, options: &mut RequestOptions) -> Result<(), Error> {
        let max = self.count("maxOutputLength").unwrap_or(1);
        let min = self.count("minOutputLength").unwrap_or(0);
        if min > max {
            let allowed = format!("0 to maxOutputLength, {max}");
            return Err(Error::ParameterRange { name: "minOutputLength", given: min.to_string(), allowed });
        }
        options.max_new_tokens = Some(max);
        options.min_new_tokens = Some(min);
        options.max_input_tokens = self.count("maxInputLength");
        Ok(())
    }

    fn choice(&self, package: &ModelPackage, options: &mut RequestOptions) -> Result<(), Error> {
        let single = |name| self.value(name).and_then(|v| v.as_double()).map(|v| v as f32);
        options.do_sample = self.boolean("doSample");
        options.temperature = single("temperature");
        options.top_p = single("topP");
        options.top_k = self.value("topK").and_then(|v| v.as_int()).map(|k| usize::try_from(k).unwrap_or(0));
        options.repetition_penalty = single("repetitionPenalty");
        options.no_repeat_ngram_size = self.count("noRepeatNgramSize");
        options.suppress_tokens = Some(self.token_ids("ignoreTokenIds", package)?);
        let mut stop = package.generation.stop_token_ids.clone();
        stop.extend(self.token_ids("stopTokenIds", package)?);
        stop.sort_unstable();
        stop.dedup();
        options.stop_token_ids = Some(stop);
        // Any 64 bits are a seed.
        options.seed = Some(self.value("randomSeed").and_then(|v| v.as_int()).unwrap_or(0) as u64);
        Ok(())
    }

    /// Beams and number of answers, which bear on each other and on drawing.
    fn sequences(&self, options: &mut RequestOptions) -> Result<(), Error> {
        let (beams, n) = (self.count("beamSize").unwrap_or(1), self.count("nReturnSequences").unwrap_or(1));
        let drawn = self.boolean("doSample").unwrap_or(false);
        let wrong = |name, given: usize, allowed: String| {
            Err(Error::ParameterRange { name, given: given.to_string(), allowed })
        };
        match (beams > 1, n > 1) {
            (true, _) if drawn => {
                wrong("beamSize", beams, "1 with doSample: beams are not drawn".to_owned())?;
            }
            (true, true) if n > beams => wrong("nReturnSequences", n, format!("1 to beamSize, {beams}"))?,
            (false, true) if !drawn => {
                let allowed = "1 without doSample or beamSize: all answers would be the same";
                wrong("nReturnSequences", n, allowed.to_owned())?;
            }
            _ => {}
        }
        options.num_beams = Some(beams);
        options.num_return_sequences = Some(n);
        Ok(())
    }

    /// Fewest and most pixels; the model's own where they are not set. The fewest give way to a lower limit for the most,
    /// unless both are set.
    pub fn pixel_limits(&self, package: &ModelPackage) -> Result<(u64, u64), Error> {
        let given = |name| self.value(name).and_then(|v| v.as_int()).and_then(|v| u64::try_from(v).ok());
        let own = package.preprocess.pixel_limits;
        let (min, max) = match (given("minPixelValue"), given("maxPixelValue")) {
            (min, Some(max)) => (min.unwrap_or(own.min_pixels.min(max)), max),
            (min, None) => (min.unwrap_or(own.min_pixels), own.max_pixels),
        };
        if min > max {
            let allowed = format!("1 to maxPixelValue, {max}");
            return Err(Error::ParameterRange { name: "minPixelValue", given: min.to_string(), allowed });
        }
        Ok((min, max))
    }

    /// The package with the preprocessing that was set on this object; what was saved with the model is in it already.
    pub fn apply_to(&self, package: &mut ModelPackage) -> Result<(), Error> {
        self.check()?;
        for options in [&mut package.preprocess, &mut package.video_preprocess] {
            let boolean = |name| self.own(name).and_then(Value::as_boolean);
            let channels =
                |name| self.own(name).and_then(Value::as_doubles).and_then(|v| <[f64; 3]>::try_from(v).ok());
            options.do_resize = boolean("doResize").unwrap_or(options.do_resize);
            options.do_normalize = boolean("doNormalize").unwrap_or(options.do_normalize);
            options.image_mean = channels("imageMean").unwrap_or(options.image_mean);
            options.image_std = channels("imageStd").unwrap_or(options.image_std);
        }
        Ok(())
    }

    fn token_ids(&self, name: &'static str, package: &ModelPackage) -> Result<Vec<u32>, Error> {
        let vocab_size = package.model.vocab_size;
        let value = self.value(name);
        let ids = value.as_ref().and_then(Value::as_ints).unwrap_or_default();
        let one = |id: &i64| u32::try_from(*id).ok().filter(|id| (*id as usize) < vocab_size);
        let bad = |id: &i64| Error::ParameterRange {
            name,
            given: id.to_string(),
            allowed: format!("token ids below the vocabulary size, {vocab_size}"),
        };
        ids.iter().map(|id| one(id).ok_or_else(|| bad(id))).collect()
    }

    fn count(&self, name: &str) -> Option<usize> {
        usize::try_from(self.value(name)?.as_int()?).ok()
    }

    fn boolean(&self, name: &str) -> Option<bool> {
        self.value(name)?.as_boolean()
    }

    fn text(&self, name: &str) -> Option<String> {
        self.value(name)?.as_text().map(str::to_owned)
    }

    fn columns(&self) -> Vec<String> {
        self.value("inputCols").and_then(|v| v.as_texts().map(<[String]>::to_vec)).unwrap_or_default()
    }
}
