//! `LightPipeline`: what goes in and what comes out.

use std::path::PathBuf;

use qwen2vl_spark_nlp::{DataFrame, Error, ImageAssembler, LightPipeline, Pipeline, Qwen2VLTransformer};

use crate::demo::{DEMO, ITEMS, has_openvino, of_task};

fn light(transformer: Qwen2VLTransformer) -> LightPipeline {
    let empty = DataFrame::from_images(Vec::<qwen2vl_spark_nlp::SparkImage>::new());
    let stages = [ImageAssembler::new().into(), transformer.into()];
    LightPipeline::new(Pipeline::new().set_stages(stages).fit(&empty).unwrap())
}

#[test]
fn one_image_has_both_columns() {
    if !has_openvino() {
        return;
    }
    let item = of_task("caption");
    let row = light(DEMO.clone()).full_annotate_image(item.path(), item.question.as_str()).unwrap();
    assert_eq!(row.keys().collect::<Vec<_>>(), ["answer", "image_assembler"]);
    assert_eq!(row["answer"].annotations()[0].result, item.answer);
    let image = &row["image_assembler"].images()[0];
    assert_eq!((image.n_channels, image.mode, image.text.as_str()), (3, 16, item.question.as_str()));
    assert_eq!(image.result, item.spark_image().data);
    assert!(image.metadata.is_empty(), "as Spark NLP has it here");

    let texts = light(DEMO.clone()).annotate(item.path(), item.question.as_str()).unwrap();
    assert_eq!(
        (texts["answer"].as_slice(), texts["image_assembler"].as_slice()),
        (&[item.answer][..], &[String::new()][..])
    );
}

#[test]
fn lists_keep_their_order_and_errors_their_place() {
    if !has_openvino() {
        return;
    }
    let items: Vec<_> = ITEMS.iter().filter(|i| i.task == "vqa").take(2).collect();
    let text = qwen2vl_testkit::golden("spark-package/expected.json");
    let paths = [items[0].path(), "nowhere/x.png".into(), text, items[1].path()];
    let texts = [items[0].question.as_str(), "What?", "What?", items[1].question.as_str()];
    let rows = light(DEMO.clone()).full_annotate_images(&paths, &texts).unwrap();
    assert_eq!(rows[0]["answer"].annotations()[0].result, items[0].answer);
    assert!(rows[1].is_empty(), "a path without a file is an empty map");
    let (kind, message) = rows[2]["answer"].annotations()[0].error().unwrap();
    assert_eq!(kind, "image");
    assert!(message.contains("not an image"), "{message}");
    assert_eq!(rows[3]["answer"].annotations()[0].result, items[1].answer);

    let error = light(DEMO.clone()).full_annotate_images(&paths, &texts[..3]).unwrap_err();
    assert!(matches!(error, Error::Lengths { paths: 4, texts: 3 }), "{error}");
    let none: &[&str] = &[];
    let rows = light(DEMO.clone()).full_annotate_images(&paths[..1], none).unwrap();
    assert_eq!(rows[0]["answer"].annotations()[0].error(), None, "the default question");
}

#[test]
fn a_text_alone_needs_no_image_and_a_lazy_annotator_is_passed_over() {
    if !has_openvino() {
        return;
    }
    let row = light(DEMO.clone()).full_annotate_image("", "Hello").unwrap();
    assert_eq!(row["answer"].annotations()[0].result, "Hello! Show me an image.");
    assert!(light(DEMO.clone()).full_annotate_image("", None).unwrap().is_empty());
    let item = of_task("caption");
    let row = light(DEMO.clone().set_lazy_annotator(true)).full_annotate_image(item.path(), None).unwrap();
    assert_eq!(row.keys().collect::<Vec<_>>(), ["image_assembler"]);
    let none: &[PathBuf] = &[];
    assert!(light(DEMO.clone()).full_annotate_images(none, &["x"][..0]).unwrap().is_empty());
}
