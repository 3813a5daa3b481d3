//! Schemas and rows as Spark writes them, compared with what the real Spark NLP wrote.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use qwen2vl_spark_nlp::{Annotation, AnnotationImage, Cell, DataFrame, DataType, ImageAssembler, SparkImage};
use qwen2vl_testkit::{golden, read_json};
use serde_json::{Value, json};

fn spark() -> Value {
    read_json(&golden("spark-package/schema.json"))
}

/// The frame of the fixture, its answer taken from there.
fn frame() -> DataFrame {
    let row = &spark()["row_toJSON"];
    let image: SparkImage = serde_json::from_value(row["image"].clone()).unwrap();
    let answer: Vec<Annotation> = serde_json::from_value(row["answer"].clone()).unwrap();
    let frame = DataFrame::from_images([image]).with_text("text", row["text"].as_str().unwrap());
    let frame = ImageAssembler::new().transform(&frame).unwrap();
    frame.with_column("answer", DataType::Annotations, vec![Cell::Annotations(answer)]).unwrap()
}

#[test]
fn the_schema_is_spark_s() {
    assert_eq!(frame().schema_json(), spark()["schema"]);
}

#[test]
fn rows_are_spark_s() {
    let row = frame().to_json().next().unwrap();
    let want = &spark()["row_toJSON"];
    assert_eq!(&row, want);
    let names = |row: &Value| row.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&row), names(want));
    assert_eq!(names(&row["answer"][0]), names(&want["answer"][0]));
    assert_eq!(names(&row["image_assembler"][0]), names(&want["image_assembler"][0]));
    // Read again, it is the same.
    let images: Vec<AnnotationImage> = serde_json::from_value(row["image_assembler"].clone()).unwrap();
    assert_eq!(json!(images), want["image_assembler"]);
}

#[test]
fn its_image_is_decoded() {
    let row = &spark()["row_toJSON"]["image"];
    let image: SparkImage = serde_json::from_value(row.clone()).unwrap();
    let rgb =
        image.to_rgb(&qwen2vl_pipeline::DecodeLimits::default(), qwen2vl_pipeline::AlphaMode::Drop).unwrap();
    let bgr = STANDARD.decode(row["data"].as_str().unwrap()).unwrap();
    assert_eq!(rgb.as_raw()[..3], [bgr[2], bgr[1], bgr[0]]);
    assert_eq!(SparkImage::from_rgb(image.origin.clone(), &rgb), image);
}

#[test]
fn the_end_of_real_annotations_is_ours() {
    let expected: Value = read_json(&golden("spark-package/expected.json"));
    let answers = expected["answers_spark_nlp_max_6_tokens"].as_object().unwrap();
    let mut compared = 0;
    for (name, answer) in answers {
        if let Ok(annotation) = serde_json::from_value::<Annotation>(answer.clone()) {
            let ours = Annotation::document(annotation.result.clone(), annotation.metadata.clone());
            assert_eq!(ours, annotation, "{name}");
            compared += 1;
        }
    }
    assert!(compared >= 10, "{compared}");
}
