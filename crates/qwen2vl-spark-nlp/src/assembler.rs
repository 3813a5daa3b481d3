//! `ImageAssembler`: images and questions to what the annotator takes.
//!
//! Follows Spark NLP's class, with one difference: `set_text_col` sets the column of texts; in Spark NLP's Python class
//! it sets the column of images.

use std::path::Path;

use crate::{AnnotationImage, Cell, DataFrame, DataType, Error, read};

/// Puts images and their questions together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageAssembler {
    input_col: String,
    output_col: String,
    text_col: String,
}

/// `image`, `image_assembler` and `text`, in Scala and in Python.
impl Default for ImageAssembler {
    fn default() -> Self {
        let [input_col, output_col, text_col] = ["image", "image_assembler", "text"].map(str::to_owned);
        Self { input_col, output_col, text_col }
    }
}

impl ImageAssembler {
    /// With Spark NLP's defaults, which are the same in Scala and in Python.
    pub fn new() -> Self {
        Self::default()
    }

    /// The column of images.
    #[must_use]
    pub fn set_input_col(mut self, name: impl Into<String>) -> Self {
        self.input_col = name.into();
        self
    }

    /// The column to add.
    #[must_use]
    pub fn set_output_col(mut self, name: impl Into<String>) -> Self {
        self.output_col = name.into();
        self
    }

    /// The column of questions, used if the frame has it.
    #[must_use]
    pub fn set_text_col(mut self, name: impl Into<String>) -> Self {
        self.text_col = name.into();
        self
    }

    /// The column of images.
    pub fn get_input_col(&self) -> &str {
        &self.input_col
    }

    /// The column that is added.
    pub fn get_output_col(&self) -> &str {
        &self.output_col
    }

    /// The column of questions.
    pub fn get_text_col(&self) -> &str {
        &self.text_col
    }

    /// Adds the column. A null text is an empty one; a null image is null in its row's array, and its answer will be an
    /// error.
    ///
    /// # Errors
    ///
    /// [`Error::NoColumn`] and [`Error::ColumnType`].
    pub fn transform(&self, frame: &DataFrame) -> Result<DataFrame, Error> {
        const STAGE: &str = "ImageAssembler";
        let images = frame.expect(STAGE, &self.input_col, DataType::Image)?.cells();
        let texts = match frame.column(&self.text_col) {
            Some(_) => Some(frame.expect(STAGE, &self.text_col, DataType::Text)?.cells()),
            None => None,
        };
        let cells = images.iter().enumerate().map(|(row, image)| {
            let text = match texts.map(|texts| &texts[row]) {
                Some(Cell::Text(text)) => text.as_str(),
                _ => "",
            };
            let image = match image {
                Cell::Image(image) => Some(AnnotationImage::new(image.clone(), text)),
                _ => None,
            };
            Cell::AnnotationImages(vec![image])
        });
        let cells = cells.collect();
        frame.clone().with_column(&self.output_col, DataType::AnnotationImages, cells)
    }

    /// The images of a folder, or one, each as the bytes of its file.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] of a file or folder that cannot be read; never of what a file holds.
    pub fn load_images_as_bytes(path: impl AsRef<Path>) -> Result<DataFrame, Error> {
        read::images_as_bytes(path.as_ref())
    }
}
