//! Frames, stages and files: columns, order, what is refused.

use std::ops::ControlFlow;

use qwen2vl_pipeline::CancelToken;
use qwen2vl_spark_nlp::{
    Cell, DataFrame, DataType, Error, ImageAssembler, Pipeline, PixelKind, Qwen2VLTransformer, SparkImage,
};
use qwen2vl_testkit::{demo_model_dir, image};

use crate::demo::{DEMO, ITEMS, assembled, has_openvino, of_task};

fn grey() -> SparkImage {
    SparkImage::new("", PixelKind::Grey, 1, 1, vec![7])
}

#[test]
fn columns_are_checked() {
    let frame = || DataFrame::from_images([grey(), grey()]);
    let error = frame().with_texts("text", [Some("a")]).unwrap_err();
    assert_eq!(error.to_string(), "the column text has 1 rows, the frame has 2");
    let error =
        frame().with_column("id", DataType::Long, vec![Cell::Long(1), Cell::Boolean(true)]).unwrap_err();
    assert_eq!(error.to_string(), "with_column: the column id is of booleans, expected is longs");
    let error = ImageAssembler::new().set_input_col("picture").transform(&frame()).unwrap_err();
    assert_eq!(error.to_string(), "ImageAssembler: there is no column picture; there are image");
    let error =
        ImageAssembler::new().set_input_col("text").transform(&frame().with_text("text", "?")).unwrap_err();
    assert!(error.to_string().contains("is of strings, expected is image structs"), "{error}");
    let transformer = Qwen2VLTransformer::load(demo_model_dir()).unwrap();
    let error = transformer.transform(&frame()).unwrap_err();
    assert!(matches!(&error, Error::NoColumn { name, .. } if name == "image_assembler"), "{error}");
    assert_eq!(error.kind(), "frame");
}

#[test]
fn the_column_of_texts_can_be_named() {
    let frame = DataFrame::from_images([grey()]).with_text("question", "Who?").with_text("text", "What?");
    for (assembler, want) in [
        (ImageAssembler::new(), "What?"),
        (ImageAssembler::new().set_text_col("question"), "Who?"),
        (ImageAssembler::new().set_text_col("nowhere"), ""),
    ] {
        let with = assembler.set_output_col("images").transform(&frame).unwrap();
        let Cell::AnnotationImages(images) = &with.column("images").unwrap().cells()[0] else { panic!() };
        assert_eq!(images[0].as_ref().unwrap().text, want);
    }
}

#[test]
fn pipelines_are_checked_before_anything_is_loaded() {
    let transformer = || Qwen2VLTransformer::load(demo_model_dir()).unwrap();
    let frame = DataFrame::from_images([grey()]);
    let fit = |stages: Vec<qwen2vl_spark_nlp::Stage>| Pipeline::new().set_stages(stages).fit(&frame);
    fit(vec![ImageAssembler::new().into(), transformer().into()]).unwrap();
    let error = fit(vec![transformer().into(), ImageAssembler::new().into()]).unwrap_err();
    assert!(error.to_string().contains("the stages are Qwen2VLTransformer, ImageAssembler"), "{error}");
    assert!(matches!(fit(vec![]), Err(Error::Stages { .. })));
    let error =
        fit(vec![ImageAssembler::new().set_output_col("images").into(), transformer().into()]).unwrap_err();
    assert!(matches!(error, Error::NoColumn { .. }), "{error}");
    let error = fit(vec![ImageAssembler::new().into(), transformer().set_top_p(2.0).into()]).unwrap_err();
    assert!(error.to_string().contains("topP is 2"), "{error}");
}

#[test]
fn batches_are_handed_on_in_order_and_other_columns_with_them() {
    if !has_openvino() {
        return;
    }
    let items: Vec<_> = ITEMS.iter().filter(|i| i.task == "vqa").take(5).collect();
    let rows = items.iter().map(|i| (Some(i.spark_image()), Some(i.question.clone())));
    let ids = (0..items.len() as i64).map(Cell::Long).collect();
    let frame = assembled(rows).with_column("id", DataType::Long, ids).unwrap();
    let transformer = DEMO.clone().set_batch_size(2).set_output_col("said");
    let mut batches = Vec::new();
    let mut collect = |batch: DataFrame| {
        let ids = batch.column("id").unwrap().cells().to_vec();
        let said = batch.results("said").unwrap().into_iter().map(|r| r[0].to_owned()).collect::<Vec<_>>();
        batches.push((ids, said));
        ControlFlow::Continue(())
    };
    transformer.transform_batches(&frame, &CancelToken::new(), &mut collect).unwrap();
    let want: Vec<_> = items.iter().map(|i| i.answer.clone()).collect();
    assert_eq!(batches.iter().map(|(ids, _)| ids.len()).collect::<Vec<_>>(), [2, 2, 1]);
    assert_eq!(batches.iter().flat_map(|(_, said)| said.clone()).collect::<Vec<_>>(), want);
    assert_eq!(batches[2].0, [Cell::Long(4)]);

    let mut seen = 0;
    let stop = |_| {
        seen += 1;
        ControlFlow::Break(())
    };
    transformer.transform_batches(&frame, &CancelToken::new(), stop).unwrap();
    assert_eq!(seen, 1);
    let cancelled = CancelToken::new();
    cancelled.cancel();
    transformer.transform_batches(&frame, &cancelled, |_| panic!("nothing is whole")).unwrap();
}

#[test]
fn a_whole_pipeline_answers() {
    if !has_openvino() {
        return;
    }
    let item = of_task("caption");
    let frame = DataFrame::read_images(item.path(), true).unwrap().with_text("text", &item.question);
    let stages = [ImageAssembler::new().into(), DEMO.clone().into()];
    let result = Pipeline::new().set_stages(stages).fit(&frame).unwrap().transform(&frame).unwrap();
    assert_eq!(result.results("answer").unwrap(), [[item.answer.as_str()]]);
    let names: Vec<_> = result.columns().iter().map(qwen2vl_spark_nlp::Column::name).collect();
    assert_eq!(names, ["image", "text", "image_assembler", "answer"]);
}

#[test]
fn folders_are_read_in_order_and_what_is_no_image_is_invalid_or_left_out() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(image("size_3x2.png"), dir.path().join("b.png")).unwrap();
    std::fs::copy(image("cat_lossy.webp"), dir.path().join("c.webp")).unwrap();
    std::fs::write(dir.path().join("a.txt"), "no image").unwrap();
    std::fs::write(dir.path().join("_SUCCESS"), "").unwrap();
    std::fs::write(dir.path().join(".b.png.crc"), "crc").unwrap();
    std::fs::create_dir(dir.path().join("below")).unwrap();
    let images = |frame: &DataFrame| {
        let cells = frame.column("image").unwrap().cells();
        let image = |cell: &Cell| match cell {
            Cell::Image(image) => image.clone(),
            other => panic!("{other:?}"),
        };
        cells.iter().map(image).collect::<Vec<_>>()
    };
    let read = images(&DataFrame::read_images(dir.path(), false).unwrap());
    assert!(read[0].is_invalid() && read[0].origin.ends_with("/a.txt"), "{:?}", read[0]);
    assert_eq!((read[1].width, read[1].height, read[1].mode, read[1].data.len()), (3, 2, 16, 18));
    assert!(read[2].origin.starts_with("file:///") && read.len() == 3);
    assert_eq!(images(&DataFrame::read_images(dir.path(), true).unwrap()).len(), 2);

    let bytes = images(&ImageAssembler::load_images_as_bytes(dir.path()).unwrap());
    assert_eq!((bytes[1].width, bytes[1].height), (3, 2));
    assert_eq!(bytes[1].data[..], std::fs::read(image("size_3x2.png")).unwrap()[..]);
    assert!(bytes[1].is_encoded() && bytes[2].is_encoded());
    assert_eq!((bytes[0].mode, &bytes[0].data[..]), (-1, &b"no image"[..]));
    let error = DataFrame::read_images(dir.path().join("nowhere"), false).unwrap_err();
    assert!(matches!(error, Error::Io { .. }) && error.to_string().contains("nowhere"), "{error}");
}
