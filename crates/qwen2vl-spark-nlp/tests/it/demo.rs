//! The demo model behind the compatibility types, and rows to ask it about.

use std::path::PathBuf;
use std::sync::LazyLock;

use qwen2vl_pipeline::{Precision, library};
use qwen2vl_spark_nlp::{
    Annotation, AnnotationImage, Cell, DataFrame, DataType, Defaults, ImageAssembler, PixelKind,
    Qwen2VLTransformer, SparkImage,
};
use qwen2vl_testkit::{demo_model_dir, evaluation, read_jsonl};
use serde::Deserialize;

/// A question of the demo model's evaluation set.
#[derive(Deserialize, Clone)]
pub struct Item {
    pub task: String,
    #[serde(default)]
    pub images: Vec<String>,
    pub question: String,
    pub answer: String,
    /// Whether optimum-intel answers it right with the INT4 export.
    pub int4_right: bool,
}

impl Item {
    pub fn path(&self) -> PathBuf {
        evaluation(&self.images[0])
    }

    /// Its image as Spark's reader gives it.
    pub fn spark_image(&self) -> SparkImage {
        spark_image(&self.path())
    }
}

/// An image as Spark's reader gives it.
pub fn spark_image(path: &std::path::Path) -> SparkImage {
    let image = image::open(path).unwrap().into_rgb8();
    let (width, height) = image.dimensions();
    let bgr: Vec<u8> = image.pixels().flat_map(|p| [p.0[2], p.0[1], p.0[0]]).collect();
    let origin = format!("file://{}", path.display());
    SparkImage::new(origin, PixelKind::Bgr, height as i32, width as i32, bgr)
}

/// The questions about one image that the INT4 export answers right.
pub static ITEMS: LazyLock<Vec<Item>> = LazyLock::new(|| {
    let items: Vec<Item> = read_jsonl(&evaluation("eval.jsonl"));
    items.into_iter().filter(|item| item.images.len() == 1 && item.int4_right).collect()
});

pub fn of_task(task: &str) -> Item {
    ITEMS.iter().find(|item| item.task == task).unwrap().clone()
}

/// Whether OpenVINO is there; where the tests must run in full, its absence fails them.
pub fn has_openvino() -> bool {
    let found = library::locate(None);
    if let Err(error) = &found {
        qwen2vl_testkit::skip(error);
    }
    found.is_ok()
}

/// The demo model; answers of up to 200 tokens.
pub static DEMO: LazyLock<Qwen2VLTransformer> = LazyLock::new(|| {
    Qwen2VLTransformer::load(demo_model_dir())
        .unwrap()
        .configure(|engine| engine.precision(Precision::F32))
        .set_defaults(Defaults::Python)
});

/// A frame of images and texts, assembled.
pub fn assembled(rows: impl IntoIterator<Item = (Option<SparkImage>, Option<String>)>) -> DataFrame {
    let (images, texts): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
    let frame = DataFrame::from_images(images).with_texts("text", texts).unwrap();
    ImageAssembler::new().transform(&frame).unwrap()
}

/// A frame of one row: some images, each with its text.
pub fn row(images: &[(SparkImage, &str)]) -> DataFrame {
    let images =
        images.iter().map(|(image, text)| Some(AnnotationImage::new(image.clone(), *text))).collect();
    let cells = vec![Cell::AnnotationImages(images)];
    DataFrame::default().with_column("image_assembler", DataType::AnnotationImages, cells).unwrap()
}

/// The answers to a frame of one row.
pub fn ask(transformer: &Qwen2VLTransformer, frame: &DataFrame) -> Vec<Annotation> {
    let answered = transformer.transform(frame).unwrap();
    answered.annotations("answer").unwrap()[0].to_vec()
}
