//! Each parameter has an effect or is refused by its name. Spark NLP obeys `maxOutputLength` alone.

use std::collections::BTreeSet;

use qwen2vl_pipeline::{Prepared, RequestOptions};
use qwen2vl_spark_nlp::{
    Annotation, AnnotationImage, Defaults, Error, PARAMETERS, PixelKind, Qwen2VLTransformer, SparkImage,
    Value,
};
use qwen2vl_testkit::{check_all, demo_model_dir};
use qwen2vl_tokenizer::Tokenizer;

use crate::demo::{DEMO, Item, ask, has_openvino, of_task, row};

fn answer_of(transformer: &Qwen2VLTransformer, item: &Item) -> Annotation {
    ask(transformer, &row(&[(item.spark_image(), item.question.as_str())])).remove(0)
}

fn text(transformer: &Qwen2VLTransformer, item: &Item) -> String {
    let annotation = answer_of(transformer, item);
    assert_eq!(annotation.error(), None);
    annotation.result
}

fn tokens(text: &str) -> Vec<u32> {
    Tokenizer::from_file(demo_model_dir().join("tokenizer.json")).unwrap().encode(text).unwrap()
}

fn int(id: u32) -> i32 {
    i32::try_from(id).unwrap()
}

type Effect = fn(&Qwen2VLTransformer, &Item, &str) -> Result<(), String>;

fn ensure(fits: bool, got: impl std::fmt::Debug) -> Result<(), String> {
    if fits { Ok(()) } else { Err(format!("{got:?}")) }
}

/// Effects on answers; `want` is the answer without any parameter.
const EFFECTS: [(&str, Effect); 16] = [
    ("beamSize", |demo, item, want| {
        let beams = answer_of(&demo.clone().set_beam_size(3), item);
        let score = beams.metadata.get("score").and_then(|s| s.parse::<f32>().ok());
        ensure(score.is_some_and(|s| s <= 0.0) && beams.result == want, beams)
    }),
    ("nReturnSequences", |demo, item, want| {
        let frame = row(&[(item.spark_image(), item.question.as_str())]);
        let three = ask(&demo.clone().set_beam_size(4).set_n_return_sequences(3), &frame);
        let numbers: Vec<_> = three.iter().map(|a| a.metadata["sequence"].as_str()).collect();
        let scores: Vec<f32> = three.iter().map(|a| a.metadata["score"].parse().unwrap()).collect();
        let differ = three[0].result != three[1].result && three[1].result != three[2].result;
        ensure(
            numbers == ["0", "1", "2"]
                && three[0].result == want
                && differ
                && scores.is_sorted_by(|a, b| a >= b),
            &three,
        )?;
        let drawn = demo.clone().set_do_sample(true).set_temperature(30.0).set_max_output_length(6);
        let drawn = ask(&drawn.set_n_return_sequences(2), &frame);
        ensure(drawn.len() == 2 && drawn[0].result != drawn[1].result, drawn)
    }),
    ("maxOutputLength", |demo, item, _| {
        let cut = answer_of(&demo.clone().set_max_output_length(3), item);
        ensure(cut.metadata["output_tokens"] == "3" && cut.metadata["finish_reason"] == "length", cut)
    }),
    ("minOutputLength", |demo, item, want| {
        let least = tokens(want).len() + 5;
        let long = answer_of(&demo.clone().set_min_output_length(least as i32), item);
        ensure(long.metadata["output_tokens"].parse::<usize>().unwrap() >= least, long)
    }),
    ("maxInputLength", |demo, item, _| {
        let error = answer_of(&demo.clone().set_max_input_length(10), item);
        ensure(error.error().is_some_and(|(kind, says)| kind == "context" && says.contains("10")), error)
    }),
    ("doSample", |demo, item, want| {
        let got =
            text(&demo.clone().set_do_sample(true).set_temperature(30.0).set_top_k(-1).set_top_p(1.0), item);
        ensure(got != want, got)
    }),
    ("temperature", |demo, item, want| {
        let got = text(&demo.clone().set_do_sample(true).set_temperature(1e-3).set_top_k(-1), item);
        ensure(got == want, got)
    }),
    ("topK", |demo, item, want| {
        let got = text(&demo.clone().set_do_sample(true).set_temperature(30.0).set_top_k(1), item);
        ensure(got == want, got)
    }),
    ("topP", |demo, item, want| {
        let got = text(&demo.clone().set_do_sample(true).set_top_p(1e-4).set_top_k(-1), item);
        ensure(got == want, got)
    }),
    ("randomSeed", |demo, item, _| {
        let drawn = demo.clone().set_do_sample(true).set_temperature(30.0).set_max_output_length(8);
        let [a, b, c] = [1, 1, 2].map(|seed| text(&drawn.clone().set_random_seed(seed), item));
        ensure(a == b && a != c, [a, b, c])
    }),
    ("repetitionPenalty", |demo, item, want| {
        let got = text(&demo.clone().set_repetition_penalty(50.0).set_max_output_length(30), item);
        ensure(got != want, got)
    }),
    ("noRepeatNgramSize", |demo, item, want| {
        let got = text(&demo.clone().set_no_repeat_ngram_size(2).set_max_output_length(40), item);
        ensure(got != want, got)
    }),
    ("ignoreTokenIds", |demo, item, want| {
        let first = tokens(want)[0];
        let got = text(&demo.clone().set_ignore_token_ids([int(first)]).set_max_output_length(8), item);
        ensure(!tokens(&got).contains(&first), got)
    }),
    ("stopTokenIds", |demo, item, want| {
        let third = tokens(want)[2];
        let stopped = answer_of(&demo.clone().set_stop_token_ids([int(third)]), item);
        let fits = stopped.metadata["finish_reason"] == "stop" && want.starts_with(&stopped.result);
        ensure(fits && stopped.metadata["output_tokens"] == "2", stopped)
    }),
    ("outputCol", |demo, item, want| {
        let frame = row(&[(item.spark_image(), item.question.as_str())]);
        let answered = demo.clone().set_output_col("said").transform(&frame).unwrap();
        let got = answered.results("said").unwrap();
        ensure(got == [[want]], got)
    }),
    ("inputCols", |demo, item, _| {
        let frame = row(&[(item.spark_image(), item.question.as_str())]);
        let error = demo.clone().set_input_cols(["pictures"]).transform(&frame).unwrap_err();
        ensure(error.to_string().contains("pictures"), error)
    }),
];

#[test]
fn parameters_change_answers() {
    if !has_openvino() {
        return;
    }
    let item = of_task("json");
    let want = text(&DEMO, &item);
    assert_eq!(want, item.answer);
    check_all(&EFFECTS, |(name, _)| (*name).to_owned(), |(_, effect)| effect(&DEMO, &item, &want));
}

fn grey(height: i32, width: i32) -> Option<AnnotationImage> {
    let data = vec![128; (height * width) as usize];
    Some(AnnotationImage::new(SparkImage::new("", PixelKind::Grey, height, width, data), "What?"))
}

fn prepared(transformer: &Qwen2VLTransformer, image: Option<AnnotationImage>) -> Prepared {
    transformer.prepare(&[image]).unwrap().remove(0)
}

type Preparation = fn(&Qwen2VLTransformer) -> Result<(), String>;

/// Effects on what the model is given.
const PREPARATIONS: [(&str, Preparation); 8] = [
    ("minPixelValue", |demo| {
        // On a loaded model, where it does nothing in Spark NLP.
        let got = [3136, 12_544].map(|min| prepared(&demo.clone().set_min_pixel_value(min), grey(28, 28)));
        let heights = got.map(|p| p.images[0].resized.height);
        ensure(heights == [56, 112], heights)
    }),
    ("maxPixelValue", |demo| {
        let got =
            [12_544, 50_176].map(|max| prepared(&demo.clone().set_max_pixel_value(max), grey(280, 280)));
        let heights = got.map(|p| p.images[0].resized.height);
        ensure(heights == [112, 224], heights)
    }),
    ("doResize", |demo| {
        let off = demo.clone().set_do_resize(false);
        let error = off.prepare(&[grey(56, 60)]).unwrap_err().to_string();
        let kept = prepared(&off, grey(28, 28)).images[0].resized.height;
        ensure(error.contains("60x56") && kept == 28, (error, kept))
    }),
    ("doNormalize", |demo| {
        let value = prepared(&demo.clone().set_do_normalize(false), grey(56, 56)).images[0].data[0];
        ensure((value - 128.0 / 255.0).abs() < 1e-6, value)
    }),
    ("imageMean", |demo| {
        let set = demo.clone().set_image_mean([128.0 / 255.0; 3]);
        let value = prepared(&set, grey(56, 56)).images[0].data[0];
        ensure(value.abs() < 1e-6, value)
    }),
    ("imageStd", |demo| {
        let set = demo.clone().set_image_mean([0.0; 3]).set_image_std([0.5; 3]);
        let value = prepared(&set, grey(56, 56)).images[0].data[0];
        ensure((value - 256.0 / 255.0).abs() < 1e-6, value)
    }),
    ("task", |demo| {
        let prompt = prepared(&demo.clone().set_task("Be brief."), grey(56, 56)).prompt;
        ensure(prompt.contains("<|vision_end|>Be brief. What?<|im_end|>"), prompt)
    }),
    ("resample", |demo| {
        let error = demo.clone().set_resample(2).validate().unwrap_err().to_string();
        ensure(demo.clone().set_resample(3).validate().is_ok() && error.contains("resample is 2"), error)
    }),
];

#[test]
fn parameters_change_what_the_model_is_given() {
    check_all(&PREPARATIONS, |(name, _)| (*name).to_owned(), |(_, effect)| effect(&DEMO));
}

#[test]
fn options_without_a_parameter_are_passed_on() {
    if !has_openvino() {
        return;
    }
    let item = of_task("caption");
    let want = text(&DEMO, &item);
    let mut options = RequestOptions::default();
    options.stop_strings = Some(vec![want.split(' ').nth(2).unwrap().to_owned()]);
    // What is a parameter, too, is not taken from here.
    options.max_new_tokens = Some(1);
    let stopped = text(&DEMO.clone().set_options(options.clone()), &item);
    assert!(want.starts_with(&stopped) && stopped.split_whitespace().count() == 2, "{stopped:?} of {want:?}");
    options.stop_strings = Some(vec![String::new()]);
    let error = DEMO.clone().set_options(options).validate().unwrap_err();
    assert!(error.kind() == "options" && error.to_string().contains("stop_strings"), "{error}");
}

#[test]
fn every_parameter_is_tested() {
    // The rest: batches (table.rs), `LightPipeline` (light.rs), what is refused.
    let elsewhere = ["batchSize", "lazyAnnotator"];
    let refused = ["engine", "size", "featureExtractorType"];
    let tested: BTreeSet<&str> =
        EFFECTS.iter().map(|(name, _)| *name).chain(PREPARATIONS.map(|(name, _)| name)).collect();
    let tested = tested.into_iter().chain(elsewhere).chain(refused).collect::<BTreeSet<_>>();
    assert_eq!(tested, PARAMETERS.iter().map(|p| p.name).collect());
}

#[test]
fn wrong_values_are_told_before_any_row_is_looked_at() {
    let demo = || Qwen2VLTransformer::load(demo_model_dir()).unwrap();
    let cases: [(Qwen2VLTransformer, &str); 16] = [
        (demo().set_beam_size(0), "beamSize is 0, allowed is 1 to 64"),
        (demo().set_beam_size(2).set_do_sample(true), "beamSize is 2, allowed is 1 with doSample"),
        (demo().set_n_return_sequences(2), "nReturnSequences is 2, allowed is 1 without doSample"),
        (
            demo().set_beam_size(2).set_n_return_sequences(3),
            "nReturnSequences is 3, allowed is 1 to beamSize, 2",
        ),
        (demo().set_max_output_length(0), "maxOutputLength is 0"),
        (demo().set_min_output_length(21), "minOutputLength is 21, allowed is 0 to maxOutputLength, 20"),
        (demo().set_temperature(-1.0), "temperature is -1"),
        (demo().set_top_k(-2), "topK is -2"),
        (demo().set_ignore_token_ids([151_936]), "ignoreTokenIds is 151936"),
        (demo().set_stop_token_ids([1, 200_000]), "stopTokenIds is 200000"),
        (
            demo().set_min_pixel_value(99).set_max_pixel_value(98),
            "minPixelValue is 99, allowed is 1 to maxPixelValue, 98",
        ),
        (demo().set_engine("onnx"), "engine is \"onnx\""),
        (demo().set_size(224), "size has no effect"),
        (demo().set_feature_extractor_type("ViTFeatureExtractor"), "featureExtractorType has no effect"),
        (demo().set_input_cols(["a", "b"]), "inputCols is [\"a\", \"b\"]"),
        (demo().set_image_std([0.0; 3]), "imageStd is"),
    ];
    for (transformer, want) in cases {
        let error = transformer.validate().unwrap_err();
        assert_eq!(error.kind(), "options");
        assert!(error.to_string().contains(want), "{want}: {error}");
        // No column is there: the parameters come first.
        let error = transformer.transform(&qwen2vl_spark_nlp::DataFrame::default()).unwrap_err();
        assert!(error.to_string().contains(want), "{want}: {error}");
    }
    // The default for the fewest gives way.
    demo().set_max_pixel_value(1000).validate().unwrap();
}

#[test]
fn parameters_are_set_by_name_and_unknown_names_lead_to_the_nearest() {
    let demo = || Qwen2VLTransformer::load(demo_model_dir()).unwrap();
    let set =
        demo().set("maxOutputLength", 64).unwrap().set("top_p", 0.5).unwrap().set("temperature", 1).unwrap();
    assert_eq!((set.get_max_output_length(), set.get_top_p(), set.get_temperature()), (64, 0.5, 1.0));
    assert_eq!(set.get("inputCols").unwrap(), Some(Value::Texts(vec!["image_assembler".to_owned()])));
    for (name, value, want) in [
        ("maxOutputLenght", Value::from(64), "did you mean maxOutputLength?"),
        ("maxOutputLength", "64".into(), "maxOutputLength is \"64\", expected is a whole number"),
        ("candidateLabels", "cat".into(), "candidateLabels exists in Spark NLP's Python class alone"),
        ("maxSentenceSize", 50.into(), "use maxInputLength"),
        ("size", 224.into(), "size has no effect"),
    ] {
        let error = demo().set(name, value).unwrap_err();
        assert!(error.to_string().contains(want), "{want}: {error}");
    }
    assert!(matches!(demo().get("nothing"), Err(Error::UnknownParameter { nearest: None, .. })));
}

#[test]
fn defaults_are_those_of_the_class_that_is_asked_for() {
    let scala = Qwen2VLTransformer::load(demo_model_dir()).unwrap();
    let python = scala.clone().set_defaults(Defaults::Python);
    assert_eq!((scala.get_max_output_length(), python.get_max_output_length()), (20, 200));
    assert_eq!((scala.get_batch_size(), python.get_batch_size()), (1, 2));
    assert_eq!((scala.get_temperature(), python.get_temperature()), (0.6, 1.0));
    assert_eq!((scala.get_top_k(), python.get_top_k()), (-1, 50));
    assert_eq!((scala.get_top_p(), python.get_top_p()), (0.9, 1.0));
    for transformer in [scala, python] {
        // Declared otherwise, never obeyed, and harmful if they were.
        assert_eq!(transformer.get_no_repeat_ngram_size(), 0);
        assert_eq!(transformer.get_stop_token_ids(), [0; 0]);
        assert_eq!(transformer.get_max_input_length(), None);
        let own = transformer.package().preprocess.pixel_limits;
        assert_eq!(transformer.get_min_pixel_value() as u64, own.min_pixels);
        assert_eq!(transformer.get_max_pixel_value() as u64, own.max_pixels);
        assert_eq!((transformer.get_min_output_length(), transformer.get_beam_size()), (0, 1));
        assert!(
            !transformer.get_do_sample() && transformer.get_do_resize() && transformer.get_do_normalize()
        );
        assert_eq!(transformer.get_repetition_penalty(), 1.0);
        assert_eq!((transformer.get_task(), transformer.get_random_seed()), (None, None));
        assert_eq!(
            (transformer.get_input_cols(), transformer.get_output_col()),
            (vec!["image_assembler".to_owned()], "answer".to_owned())
        );
        assert!(transformer.get_ignore_token_ids().is_empty() && !transformer.get_lazy_annotator());
        assert_eq!((transformer.get_engine().as_str(), transformer.get_resample()), ("openvino", 3));
        assert_eq!(transformer.get_n_return_sequences(), 1);
        assert_eq!(transformer.get_image_std(), transformer.package().preprocess.image_std);
    }
}
