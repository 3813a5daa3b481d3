//! `Qwen2VLTransformer`: images and questions to answers, by Spark NLP's names.
//!
//! What it answers follows the pipeline below it, not Spark NLP: the names are those of the original, its defects are
//! not.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use qwen2vl_fetch::{FetchOptions, Fetcher, ModelName, Progress, Reference};
use qwen2vl_pipeline::{
    Annotator, AnnotatorBuilder, CancelToken, DecodeOptions, FinishReason, ModelPackage, Prepared, Processor,
    RequestOptions, open_package,
};

use crate::parameters::{self, Params, Resolved};
use crate::question::{Question, questions};
use crate::{Annotation, AnnotationImage, Cell, DataFrame, DataType, Error, Value};

/// What `pretrained()` loads.
pub const DEFAULT_PRETRAINED_NAME: &str = "qwen2_vl_2b_instruct_int4";
/// The language of what `pretrained()` loads.
pub const DEFAULT_LANG: &str = "en";

/// Where Spark NLP's public models lie in its bucket, and the bucket of its community.
const PUBLIC_MODELS: &str = "public/models";
const COMMUNITY_BUCKET: &str = "https://s3.amazonaws.com/community.johnsnowlabs.com";

const STAGE: &str = "Qwen2VLTransformer";

/// The annotator of Spark NLP, on this project's engine. `Send + Sync`; clones share the loaded model.
///
/// Loading opens the model package; OpenVINO compiles it at the first `transform`, or when
/// [`Qwen2VLTransformer::annotator`] is called.
#[derive(Clone)]
pub struct Qwen2VLTransformer {
    package: Arc<ModelPackage>,
    params: Params,
    /// What there are no parameters for.
    options: RequestOptions,
    builder: AnnotatorBuilder,
    loaded: Arc<Loaded>,
}

/// What is made of the package when it is first needed.
#[derive(Default)]
struct Loaded {
    annotator: Mutex<Option<Arc<Annotator>>>,
    processor: Mutex<Option<Arc<Processor>>>,
}

impl Qwen2VLTransformer {
    /// What Spark NLP saved (an annotator, a pipeline with one, or a zip of either), or an OpenVINO export.
    ///
    /// # Errors
    ///
    /// [`Error::Pipeline`] of what is no usable package.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, Error> {
        Ok(Self::from_package(open_package(path.as_ref())?))
    }

    /// An OpenVINO export: for Spark NLP's import, with `assets/`, or of optimum-intel.
    ///
    /// # Errors
    ///
    /// As [`Qwen2VLTransformer::load`].
    pub fn load_saved_model(folder: impl AsRef<Path>) -> Result<Self, Error> {
        Self::load(folder)
    }

    /// A published model by its name and language, from Spark NLP's cache or fetched into it. `remote_loc` is
    /// `public/models` if it is `None`; with `@` in front it is a folder of the community's bucket.
    ///
    /// # Errors
    ///
    /// [`Error::RemoteLocation`], [`Error::Fetch`], and as [`Qwen2VLTransformer::load`].
    pub fn pretrained(name: &str, lang: &str, remote_loc: Option<&str>) -> Result<Self, Error> {
        Self::pretrained_with(name, lang, remote_loc, FetchOptions::from_env()?)
    }

    /// `pretrained()`: [`DEFAULT_PRETRAINED_NAME`] in [`DEFAULT_LANG`].
    ///
    /// # Errors
    ///
    /// As [`Qwen2VLTransformer::pretrained`].
    pub fn pretrained_default() -> Result<Self, Error> {
        Self::pretrained(DEFAULT_PRETRAINED_NAME, DEFAULT_LANG, None)
    }

    /// [`Qwen2VLTransformer::pretrained`] with other folders, addresses or patience.
    ///
    /// # Errors
    ///
    /// As [`Qwen2VLTransformer::pretrained`].
    pub fn pretrained_with(
        name: &str,
        lang: &str,
        remote_loc: Option<&str>,
        mut options: FetchOptions,
    ) -> Result<Self, Error> {
        match remote_loc {
            None | Some(PUBLIC_MODELS) => {}
            Some(given) => match given.strip_prefix('@').map(|folder| folder.trim_matches('/')) {
                Some(folder) if !folder.is_empty() => {
                    options.base_url = format!("{COMMUNITY_BUCKET}/{folder}");
                }
                _ => return Err(Error::RemoteLocation { given: given.to_owned() }),
            },
        }
        let reference = Reference::Name(ModelName { name: name.to_owned(), language: Some(lang.to_owned()) });
        let fetched = Fetcher::new(options)?.fetch(&reference, &mut |progress| {
            if let Progress::Note(note) = progress {
                tracing::info!("{note}");
            }
        })?;
        Self::load(fetched.path)
    }

    /// A package that is open already.
    pub fn from_package(package: ModelPackage) -> Self {
        Self {
            params: Params::with_saved(&package.parameters),
            package: Arc::new(package),
            options: RequestOptions::default(),
            builder: Annotator::builder(),
            loaded: Arc::default(),
        }
    }

    /// What Spark NLP has no parameters for: device, threads, precision, cache folders.
    ///
    /// ```no_run
    /// use qwen2vl_spark_nlp::Qwen2VLTransformer;
    ///
    /// let transformer = Qwen2VLTransformer::pretrained_default()?.configure(|engine| engine.threads(4));
    /// # Ok::<(), qwen2vl_spark_nlp::Error>(())
    /// ```
    #[must_use]
    pub fn configure(mut self, change: impl FnOnce(AnnotatorBuilder) -> AnnotatorBuilder) -> Self {
        self.builder = change(self.builder);
        self.loaded = Arc::default();
        self
    }

    /// Options of answers that Spark NLP has no parameters for, as stop strings or the bias of single tokens. What a
    /// parameter says comes first, so those that parameters have too do nothing.
    #[must_use]
    pub fn set_options(mut self, options: RequestOptions) -> Self {
        self.options = options;
        self
    }

    /// The model's files and what its configs say.
    pub fn package(&self) -> &ModelPackage {
        &self.package
    }

    /// The annotator below, its model compiled now if it was not yet.
    ///
    /// # Errors
    ///
    /// [`Error::Pipeline`] without a usable OpenVINO, parameters of preprocessing that are out of range.
    pub fn annotator(&self) -> Result<Arc<Annotator>, Error> {
        let mut loaded = lock(&self.loaded.annotator);
        if let Some(annotator) = &*loaded {
            return Ok(Arc::clone(annotator));
        }
        let annotator = Arc::new(self.builder.clone().package(self.preprocessing_package()?).build()?);
        *loaded = Some(Arc::clone(&annotator));
        Ok(annotator)
    }

    /// Checks all parameters, as `transform` does before it looks at any row.
    ///
    /// # Errors
    ///
    /// The first one that is out of range or contradicts another.
    pub fn validate(&self) -> Result<(), Error> {
        self.resolved().map(drop)
    }

    /// Adds the column of answers: for each row an array of annotations, one for each question and answer asked for.
    /// Rows that cannot be answered have one with the error in its metadata.
    ///
    /// # Errors
    ///
    /// Of parameters and columns, and without a usable OpenVINO; never of a row.
    pub fn transform(&self, frame: &DataFrame) -> Result<DataFrame, Error> {
        let resolved = self.resolved()?;
        let images = rows(frame, &resolved)?;
        let mut cells = Vec::with_capacity(images.len());
        self.answer(&images, &resolved, &CancelToken::new(), |row| {
            cells.push(Cell::Annotations(row));
            ControlFlow::Continue(())
        })?;
        frame.clone().with_column(&resolved.output_col, DataType::Annotations, cells)
    }

    /// As [`Qwen2VLTransformer::transform`], handing on `batchSize` rows at a time, in order, so that what is done can be
    /// kept. Ends early when `cancel` is set, or when told to; a batch that is not whole then is not handed on.
    ///
    /// # Errors
    ///
    /// As [`Qwen2VLTransformer::transform`].
    pub fn transform_batches(
        &self,
        frame: &DataFrame,
        cancel: &CancelToken,
        mut on_batch: impl FnMut(DataFrame) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let resolved = self.resolved()?;
        let images = rows(frame, &resolved)?;
        let (mut start, mut cells, mut failed) = (0, Vec::new(), Ok(()));
        self.answer(&images, &resolved, cancel, |row| {
            cells.push(Cell::Annotations(row));
            let end = start + cells.len();
            if cells.len() < resolved.batch_size && end < images.len() {
                return ControlFlow::Continue(());
            }
            let batch = frame.slice(start, end);
            start = end;
            match batch.with_column(&resolved.output_col, DataType::Annotations, std::mem::take(&mut cells)) {
                Ok(batch) => on_batch(batch),
                Err(error) => {
                    failed = Err(error);
                    ControlFlow::Break(())
                }
            }
        })?;
        failed
    }

    /// What the model would be given for a row, without OpenVINO: prompt, ids, positions, pixels.
    ///
    /// # Errors
    ///
    /// Of parameters, and what the row's annotation would tell.
    pub fn prepare(&self, images: &[Option<AnnotationImage>]) -> Result<Vec<Prepared>, Error> {
        let resolved = self.resolved()?;
        let processor = self.processor()?;
        let prepare = |question: Question<'_>| {
            Ok(processor.prepare(&question.request(resolved.task.as_deref(), &resolved.options)?)?)
        };
        questions(images).into_iter().map(prepare).collect()
    }

    /// Answers rows in order, each an array; all are prepared one ahead of the one in inference.
    fn answer(
        &self,
        rows: &[&[Option<AnnotationImage>]],
        resolved: &Resolved,
        cancel: &CancelToken,
        mut on_row: impl FnMut(Vec<Annotation>) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let annotator = self.annotator()?;
        let asked: Vec<(usize, Question<'_>)> = rows
            .iter()
            .enumerate()
            .flat_map(|(row, images)| questions(images).into_iter().map(move |question| (row, question)))
            .collect();
        // What cannot become a request keeps its place: its own error is put in where the pipeline reports one.
        let failures: Mutex<BTreeMap<usize, Error>> = Mutex::default();
        let requests = asked.iter().enumerate().map(|(index, (_, question))| {
            question.request(resolved.task.as_deref(), &resolved.options).map_err(|error| {
                lock(&failures).insert(index, error);
                qwen2vl_pipeline::Error::NoModel
            })
        });
        let mut row = Vec::new();
        annotator.run_all(requests, cancel, |index, result| {
            let (of_row, question) = &asked[index];
            let annotations = match (lock(&failures).remove(&index), result) {
                (Some(error), _) => vec![Annotation::from(&error)],
                (None, Ok(annotation)) if annotation.finish_reason == FinishReason::Cancelled => {
                    return ControlFlow::Break(());
                }
                (None, result) => annotations(result),
            };
            row.extend(annotations.into_iter().map(|a| a.about_image(question.image)));
            if asked.get(index + 1).is_some_and(|(next, _)| next == of_row) {
                return ControlFlow::Continue(());
            }
            on_row(std::mem::take(&mut row))
        });
        Ok(())
    }

    pub(crate) fn resolved(&self) -> Result<Resolved, Error> {
        self.params.resolve(&self.package, &self.options)
    }

    pub(crate) fn params(&self) -> &Params {
        &self.params
    }

    pub(crate) fn params_mut(&mut self) -> &mut Params {
        &mut self.params
    }

    pub(crate) fn put(mut self, name: &'static str, value: Value) -> Self {
        self.params.put(name, value);
        self.changed(name)
    }

    pub(crate) fn set_checked(mut self, name: &str, value: Value) -> Result<Self, Error> {
        self.params.set(name, value)?;
        Ok(self.changed(parameters::find(name)?.name))
    }

    /// What is compiled or loaded with other preprocessing is of no use any more.
    fn changed(mut self, name: &str) -> Self {
        if ["doResize", "doNormalize", "imageMean", "imageStd"].contains(&name) {
            self.loaded = Arc::default();
        }
        self
    }

    fn preprocessing_package(&self) -> Result<ModelPackage, Error> {
        let mut package = (*self.package).clone();
        self.params.apply_to(&mut package)?;
        Ok(package)
    }

    fn processor(&self) -> Result<Arc<Processor>, Error> {
        let mut loaded = lock(&self.loaded.processor);
        if let Some(processor) = &*loaded {
            return Ok(Arc::clone(processor));
        }
        let processor = Arc::new(Processor::new(self.preprocessing_package()?, DecodeOptions::default())?);
        *loaded = Some(Arc::clone(&processor));
        Ok(processor)
    }
}

/// The annotations of one question: its answers, or the error.
fn annotations(result: Result<qwen2vl_pipeline::Annotation, qwen2vl_pipeline::Error>) -> Vec<Annotation> {
    match result {
        Ok(annotation) => Annotation::sequences(annotation),
        Err(error) => vec![Annotation::from(&error)],
    }
}

/// The images of each row.
fn rows<'f>(frame: &'f DataFrame, resolved: &Resolved) -> Result<Vec<&'f [Option<AnnotationImage>]>, Error> {
    let column = frame.expect(STAGE, &resolved.input_col, DataType::AnnotationImages)?;
    let of_cell = |cell: &'f Cell| match cell {
        Cell::AnnotationImages(images) => images.as_slice(),
        _ => &[],
    };
    Ok(column.cells().iter().map(of_cell).collect())
}

/// A panic elsewhere leaves nothing half-done behind these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl std::fmt::Debug for Qwen2VLTransformer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct(STAGE)
            .field("model", &self.package.name)
            .field("params", &self.params)
            .finish_non_exhaustive()
    }
}

/// `Send + Sync` is part of the promise.
const _: () = {
    const fn shared<T: Send + Sync>() {}
    shared::<Qwen2VLTransformer>();
};
