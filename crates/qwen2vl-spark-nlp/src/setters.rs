//! Setters and getters, one of each for a parameter, by Spark NLP's names in Rust's spelling. A value out of its range is
//! told when it is used, since setters return the object as Spark NLP's do; [`Qwen2VLTransformer::set`] tells at once.

use crate::{Defaults, Error, Qwen2VLTransformer, Value, parameters};

macro_rules! numbers {
    ($($(#[$doc:meta])* $set:ident $get:ident $name:literal $type:ty => $as:ident;)*) => {
        impl Qwen2VLTransformer {$(
            $(#[$doc])*
            #[must_use]
            pub fn $set(self, value: $type) -> Self {
                self.put($name, value.into())
            }

            /// What holds: the caller's value, that saved with the model, or the default.
            pub fn $get(&self) -> $type {
                self.params().value($name).and_then(|v| v.$as()).and_then(|v| v.try_into().ok()).unwrap_or_default()
            }
        )*}
    };
}

numbers! {
    /// Whether `LightPipeline` passes the annotator over.
    set_lazy_annotator get_lazy_annotator "lazyAnnotator" bool => as_boolean;
    /// Rows that [`Qwen2VLTransformer::transform_batches`] hands on together, from 1.
    set_batch_size get_batch_size "batchSize" i32 => as_int;
    /// The most tokens of an answer, from 1.
    set_max_output_length get_max_output_length "maxOutputLength" i32 => as_int;
    /// No stop token ends an answer before it has so many tokens, from 0.
    set_min_output_length get_min_output_length "minOutputLength" i32 => as_int;
    /// Whether answers are drawn.
    set_do_sample get_do_sample "doSample" bool => as_boolean;
    /// Divides the logits before drawing, above 0.
    set_temperature get_temperature "temperature" f64 => as_double;
    /// Draws among so many tokens; -1 and 0: among all.
    set_top_k get_top_k "topK" i32 => as_int;
    /// Draws up to this probability mass, above 0 and at most 1.
    set_top_p get_top_p "topP" f64 => as_double;
    /// Penalty on tokens of prompt and answer, above 0; 1 is off.
    set_repetition_penalty get_repetition_penalty "repetitionPenalty" f64 => as_double;
    /// Runs of so many tokens come once in prompt and answer; 0 is off.
    set_no_repeat_ngram_size get_no_repeat_ngram_size "noRepeatNgramSize" i32 => as_int;
    /// Beams that are followed at once, 1 to 64.
    set_beam_size get_beam_size "beamSize" i32 => as_int;
    /// Answers to each question, 1 to 64: drawn, or the best beams.
    set_n_return_sequences get_n_return_sequences "nReturnSequences" i32 => as_int;
    /// Whether images are resized; their sides must be multiples of 28 otherwise.
    set_do_resize get_do_resize "doResize" bool => as_boolean;
    /// Whether `imageMean` and `imageStd` are applied.
    set_do_normalize get_do_normalize "doNormalize" bool => as_boolean;
    /// The filter of resizing: 3, bicubic.
    set_resample get_resample "resample" i32 => as_int;
}

impl Qwen2VLTransformer {
    /// Sets a parameter by its name, in Spark NLP's spelling or in Rust's.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownParameter`] with the nearest name, [`Error::PythonOnly`], [`Error::NoEffect`],
    /// [`Error::ParameterType`] and [`Error::ParameterRange`].
    pub fn set(self, name: &str, value: impl Into<Value>) -> Result<Self, Error> {
        self.set_checked(name, value.into())
    }

    /// What holds for a parameter, by its name: the caller's value, that saved with the model, or the default.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownParameter`] with the nearest name, [`Error::PythonOnly`].
    pub fn get(&self, name: &str) -> Result<Option<Value>, Error> {
        Ok(self.params().value(parameters::find(name)?.name))
    }

    /// Whose defaults hold; the Scala class's if this is not called.
    #[must_use]
    pub fn set_defaults(mut self, defaults: Defaults) -> Self {
        self.params_mut().defaults = defaults;
        self
    }

    /// The column of images, one.
    #[must_use]
    pub fn set_input_cols<T: Into<String>>(self, names: impl IntoIterator<Item = T>) -> Self {
        self.put("inputCols", Value::Texts(names.into_iter().map(Into::into).collect()))
    }

    /// The column of images.
    pub fn get_input_cols(&self) -> Vec<String> {
        self.params()
            .value("inputCols")
            .and_then(|v| v.as_texts().map(<[String]>::to_vec))
            .unwrap_or_default()
    }

    /// The column of answers.
    #[must_use]
    pub fn set_output_col(self, name: impl Into<String>) -> Self {
        self.put("outputCol", Value::Text(name.into()))
    }

    /// The column of answers.
    pub fn get_output_col(&self) -> String {
        self.text("outputCol").unwrap_or_default()
    }

    /// The most tokens of a prompt, those of its images included, from 1: a longer one is its row's error.
    #[must_use]
    pub fn set_max_input_length(self, value: i32) -> Self {
        self.put("maxInputLength", value.into())
    }

    /// The most tokens of a prompt; `None` where the model's context is the limit.
    pub fn get_max_input_length(&self) -> Option<i32> {
        self.params().value("maxInputLength")?.as_int()?.try_into().ok()
    }

    /// Larger images are reduced to so many pixels, from 1.
    #[must_use]
    pub fn set_max_pixel_value(self, value: i32) -> Self {
        self.put("maxPixelValue", value.into())
    }

    /// The most pixels of an image.
    pub fn get_max_pixel_value(&self) -> i32 {
        self.pixels("maxPixelValue", self.package().preprocess.pixel_limits.max_pixels)
    }

    /// Smaller images are enlarged to so many pixels, from 1.
    #[must_use]
    pub fn set_min_pixel_value(self, value: i32) -> Self {
        self.put("minPixelValue", value.into())
    }

    /// The fewest pixels of an image.
    pub fn get_min_pixel_value(&self) -> i32 {
        self.pixels("minPixelValue", self.package().preprocess.pixel_limits.min_pixels)
    }

    /// Tokens that are never chosen.
    #[must_use]
    pub fn set_ignore_token_ids(self, ids: impl AsRef<[i32]>) -> Self {
        self.put("ignoreTokenIds", ids.as_ref().into())
    }

    /// Tokens that are never chosen.
    pub fn get_ignore_token_ids(&self) -> Vec<i32> {
        self.ids("ignoreTokenIds")
    }

    /// Tokens that end an answer, beside the model's own.
    #[must_use]
    pub fn set_stop_token_ids(self, ids: impl AsRef<[i32]>) -> Self {
        self.put("stopTokenIds", ids.as_ref().into())
    }

    /// Tokens that end an answer, beside the model's own.
    pub fn get_stop_token_ids(&self) -> Vec<i32> {
        self.ids("stopTokenIds")
    }

    /// A text that is put in front of each question.
    #[must_use]
    pub fn set_task(self, task: impl Into<String>) -> Self {
        self.put("task", Value::Text(task.into()))
    }

    /// The text in front of each question.
    pub fn get_task(&self) -> Option<String> {
        self.text("task")
    }

    /// Seed of the draws: the same seed gives the same answer, whatever else is asked.
    #[must_use]
    pub fn set_random_seed(self, seed: i64) -> Self {
        self.put("randomSeed", seed.into())
    }

    /// Seed of the draws.
    pub fn get_random_seed(&self) -> Option<i64> {
        self.params().value("randomSeed")?.as_int()
    }

    /// Mean of red, green and blue, from 0 to 1.
    #[must_use]
    pub fn set_image_mean(self, mean: impl AsRef<[f64]>) -> Self {
        self.put("imageMean", mean.as_ref().into())
    }

    /// Mean of red, green and blue.
    pub fn get_image_mean(&self) -> Vec<f64> {
        self.channels("imageMean").unwrap_or_else(|| self.package().preprocess.image_mean.to_vec())
    }

    /// Standard deviation of red, green and blue, above 0.
    #[must_use]
    pub fn set_image_std(self, std: impl AsRef<[f64]>) -> Self {
        self.put("imageStd", std.as_ref().into())
    }

    /// Standard deviation of red, green and blue.
    pub fn get_image_std(&self) -> Vec<f64> {
        self.channels("imageStd").unwrap_or_else(|| self.package().preprocess.image_std.to_vec())
    }

    /// The engine: `openvino`, and no other.
    #[must_use]
    pub fn set_engine(self, engine: impl Into<String>) -> Self {
        self.put("engine", Value::Text(engine.into()))
    }

    /// The engine.
    pub fn get_engine(&self) -> String {
        self.text("engine").unwrap_or_default()
    }

    /// Refused, see [`Error::NoEffect`]: Qwen2-VL keeps an image's proportions.
    #[must_use]
    pub fn set_size(self, size: i32) -> Self {
        self.put("size", size.into())
    }

    /// Refused, see [`Error::NoEffect`]: it names a class of Spark NLP.
    #[must_use]
    pub fn set_feature_extractor_type(self, name: impl Into<String>) -> Self {
        self.put("featureExtractorType", Value::Text(name.into()))
    }

    fn pixels(&self, name: &str, own: u64) -> i32 {
        let given = self.params().value(name).and_then(|v| v.as_int()?.try_into().ok());
        given.unwrap_or_else(|| i32::try_from(own).unwrap_or(i32::MAX))
    }

    fn text(&self, name: &str) -> Option<String> {
        self.params().value(name)?.as_text().map(str::to_owned)
    }

    fn channels(&self, name: &str) -> Option<Vec<f64>> {
        self.params().value(name)?.as_doubles().map(<[f64]>::to_vec)
    }

    fn ids(&self, name: &str) -> Vec<i32> {
        let value = self.params().value(name);
        let ids = value.as_ref().and_then(Value::as_ints).unwrap_or_default();
        ids.iter().filter_map(|id| i32::try_from(*id).ok()).collect()
    }
}
