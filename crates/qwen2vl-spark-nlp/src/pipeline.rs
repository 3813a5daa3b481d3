//! `Pipeline` and `PipelineModel`: the two stages one after the other.

use crate::{DataFrame, Error, ImageAssembler, Qwen2VLTransformer};

/// A stage of a pipeline.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Stage {
    /// Images and questions put together.
    ImageAssembler(ImageAssembler),
    /// Answers.
    Qwen2VLTransformer(Box<Qwen2VLTransformer>),
}

impl From<ImageAssembler> for Stage {
    fn from(stage: ImageAssembler) -> Self {
        Self::ImageAssembler(stage)
    }
}

impl From<Qwen2VLTransformer> for Stage {
    fn from(stage: Qwen2VLTransformer) -> Self {
        Self::Qwen2VLTransformer(Box::new(stage))
    }
}

/// Spark's `Pipeline`, of the two stages that there are here.
#[derive(Debug, Clone, Default)]
pub struct Pipeline {
    stages: Vec<Stage>,
}

impl Pipeline {
    /// A pipeline without stages yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The stages, in order.
    #[must_use]
    pub fn set_stages(mut self, stages: impl IntoIterator<Item = Stage>) -> Self {
        self.stages = stages.into_iter().collect();
        self
    }

    /// Checks the stages against each other and against the frame; there is nothing to learn.
    ///
    /// # Errors
    ///
    /// [`Error::Stages`] unless they are an assembler and a transformer, [`Error::NoColumn`] and [`Error::ColumnType`] of
    /// columns that are not there, and those of parameters.
    pub fn fit(&self, frame: &DataFrame) -> Result<PipelineModel, Error> {
        let [Stage::ImageAssembler(assembler), Stage::Qwen2VLTransformer(transformer)] =
            self.stages.as_slice()
        else {
            return Err(self.wrong_stages());
        };
        let model = PipelineModel { assembler: assembler.clone(), transformer: (**transformer).clone() };
        let resolved = transformer.resolved()?;
        let assembled = assembler.transform(&frame.slice(0, 0))?;
        assembled.expect("Qwen2VLTransformer", &resolved.input_col, crate::DataType::AnnotationImages)?;
        Ok(model)
    }

    fn wrong_stages(&self) -> Error {
        let name = |stage: &Stage| match stage {
            Stage::ImageAssembler(_) => "ImageAssembler",
            Stage::Qwen2VLTransformer(_) => "Qwen2VLTransformer",
        };
        let names: Vec<&str> = self.stages.iter().map(name).collect();
        Error::Stages { given: if names.is_empty() { "none".to_owned() } else { names.join(", ") } }
    }
}

/// Spark's `PipelineModel`.
#[derive(Debug, Clone)]
pub struct PipelineModel {
    assembler: ImageAssembler,
    transformer: Qwen2VLTransformer,
}

impl PipelineModel {
    pub(crate) fn new(assembler: ImageAssembler, transformer: Qwen2VLTransformer) -> Self {
        Self { assembler, transformer }
    }

    /// Adds the columns of both stages.
    ///
    /// # Errors
    ///
    /// As the stages' own `transform`.
    pub fn transform(&self, frame: &DataFrame) -> Result<DataFrame, Error> {
        self.transformer.transform(&self.assembler.transform(frame)?)
    }

    /// The first stage.
    pub fn assembler(&self) -> &ImageAssembler {
        &self.assembler
    }

    /// The second stage.
    pub fn transformer(&self) -> &Qwen2VLTransformer {
        &self.transformer
    }
}
