//! The known defects of Spark NLP's annotator, one after the other: each test has its number and what goes wrong there,
//! and shows that it does not here. The last ones are about what it writes.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use qwen2vl_pipeline::{GridThw, ImageSize, PixelValues, Prepared, Request};
use qwen2vl_runtime::{MemoryPlan, WeightBytes};
use qwen2vl_spark_nlp::{
    Annotation, AnnotationImage, Cell, DEFAULT_PROMPT, DataFrame, DataType, Defaults, ImageAssembler,
    PixelKind, Qwen2VLTransformer, SparkImage,
};
use qwen2vl_testkit::{check_all, demo_model_dir, demo_spark_zip, golden, image, read_json};
use serde_json::Value;

use crate::demo::{DEMO, ITEMS, ask, assembled, has_openvino, of_task, row};

const IMAGE_PAD: u32 = 151_655;
const END_OF_TEXT: u32 = 151_643;

/// The demo model with no least size, so that small images are what they are.
static UNLIMITED: LazyLock<Qwen2VLTransformer> = LazyLock::new(|| DEMO.clone().set_min_pixel_value(1));

fn bgr(height: i32, width: i32, pixel: impl Fn(i32, i32) -> [u8; 3]) -> SparkImage {
    let data: Vec<u8> =
        (0..height).flat_map(|y| (0..width).map(move |x| (y, x))).flat_map(|(y, x)| pixel(y, x)).collect();
    SparkImage::new("file:///made.png", PixelKind::Bgr, height, width, data)
}

fn grey(height: i32, width: i32) -> SparkImage {
    bgr(height, width, |_, _| [128; 3])
}

fn prepare(transformer: &Qwen2VLTransformer, image: SparkImage, text: &str) -> Prepared {
    transformer.prepare(&[Some(AnnotationImage::new(image, text))]).unwrap().remove(0)
}

/// `pixel_values` as an image again, `[height, width]` of RGB.
fn unpatched(values: &PixelValues) -> Vec<[u8; 3]> {
    let own = qwen2vl_package::ModelPackage::open(&demo_model_dir(), &qwen2vl_package::cache_root().unwrap());
    let own = own.unwrap().preprocess;
    let (rows, columns) = (values.grid_thw.h as usize, values.grid_thw.w as usize);
    let width = columns * 14;
    let mut image = vec![[0; 3]; rows * 14 * width];
    let mut patches = values.data.chunks_exact(3 * 2 * 14 * 14);
    // Patches come in blocks of two by two; in a patch: channel, frame, row, column.
    for (block_y, block_x) in (0..rows / 2).flat_map(|y| (0..columns / 2).map(move |x| (y, x))) {
        for (in_y, in_x) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            let patch = patches.next().unwrap();
            let (top, left) = ((block_y * 2 + in_y) * 14, (block_x * 2 + in_x) * 14);
            for (channel, y, x) in
                (0..3).flat_map(|c| (0..14).flat_map(move |y| (0..14).map(move |x| (c, y, x))))
            {
                let value = f64::from(patch[channel * 392 + y * 14 + x]);
                let value = (value * own.image_std[channel] + own.image_mean[channel]) * 255.0;
                image[(top + y) * width + left + x][channel] = value.round() as u8;
            }
        }
    }
    image
}

/// 1: width and height are swapped in resizing, so that everything but squares goes through a raster with the sides
/// exchanged.
#[test]
fn defect_01_sides_are_not_swapped() {
    let pixel = |y: i32, x: i32| [(x * 7 + y) as u8, (x * 31 + y * 5) as u8, (x * 3 + y * 17) as u8];
    let (height, width) = (56, 280);
    let prepared = prepare(&UNLIMITED, bgr(height, width, pixel), "What?");
    assert_eq!(prepared.images[0].resized, ImageSize { height: 56, width: 280 });
    // Sides of whole patches need no resizing: every pixel is there again, alternating columns of the long side included.
    let want: Vec<[u8; 3]> =
        (0..height).flat_map(|y| (0..width).map(move |x| pixel(y, x))).map(|[b, g, r]| [r, g, b]).collect();
    assert_eq!(qwen2vl_testkit::first_difference(&unpatched(&prepared.images[0]), &want), None);
}

#[derive(serde::Deserialize)]
struct Prompt {
    prompt: String,
    image_tokens: usize,
    spark_nlp: Value,
    hugging_face: Vec<u32>,
}

/// The ids that Spark NLP and transformers made of prompts.
fn prompts() -> BTreeMap<String, Prompt> {
    let expected: Value = read_json(&golden("spark-package/expected.json"));
    serde_json::from_value(expected["prompt_tokens"].clone()).unwrap()
}

fn ids(prompt: &Prompt) -> Vec<u32> {
    let n_images = prompt.prompt.matches("<|image_pad|>").count();
    // 28 by 28 pixels are a token.
    let made = grey(28, 28 * prompt.image_tokens as i32);
    let images: Vec<_> =
        (0..n_images).map(|_| Some(AnnotationImage::new(made.clone(), prompt.prompt.as_str()))).collect();
    UNLIMITED.prepare(&images).unwrap().remove(0).encoded.input_ids
}

/// Compares the ids of prompts with transformers', and with what Spark NLP made of them.
fn check_prompts(names: &[&str]) {
    let prompts = prompts();
    check_all(
        names,
        |name| (*name).to_owned(),
        |name| {
            let prompt = &prompts[*name];
            let got = ids(prompt);
            if Value::from(got.clone()) == prompt.spark_nlp {
                return Err("the ids are Spark NLP's".to_owned());
            }
            qwen2vl_testkit::first_difference(&got, &prompt.hugging_face).map_or(Ok(()), Err)
        },
    );
}

/// 2: a space is put behind every special token: ` system`, ` user`, ` assistant`, ` Describe`.
#[test]
fn defect_02_no_space_is_put_behind_special_tokens() {
    check_prompts(&["default", "plain", "contr", "cjk"]);
}

/// 3: the first special token of each chunk is lost, `<|im_start|>` and `<|vision_end|>` of the default prompt among them;
/// two equal ones become one.
#[test]
fn defect_03_no_special_token_is_lost() {
    check_prompts(&["default", "double", "lead_special", "vision_pairs"]);
    let ids = ids(&prompts()["default"]);
    assert_eq!(ids[0], 151_644, "<|im_start|>");
    assert_eq!(ids.iter().filter(|id| **id == 151_653).count(), 1, "<|vision_end|>");
}

/// 4: `<|endoftext|>` is put in front of every prompt, which Qwen2-VL does not do.
#[test]
fn defect_04_nothing_is_put_in_front() {
    for (name, prompt) in prompts() {
        if prompt.prompt.contains("<|image_pad|>") {
            assert!(!ids(&prompt).contains(&END_OF_TEXT), "{name}");
        }
    }
}

/// 5: positions count up on all three axes, so that image tokens have no row and no column, and the text behind them
/// begins too late.
#[test]
fn defect_05_image_tokens_have_rows_and_columns() {
    let encoded = prepare(&UNLIMITED, grey(56, 84), DEFAULT_PROMPT).encoded;
    let start = encoded.input_ids.iter().position(|id| *id == IMAGE_PAD).unwrap();
    let (rows, columns) = (2, 3);
    let mut want = [const { Vec::new() }; 3];
    let mut next = 0;
    for i in 0..encoded.input_ids.len() {
        let in_image = (start..start + rows * columns).contains(&i);
        let (row, column) = ((i.saturating_sub(start)) / columns, (i.saturating_sub(start)) % columns);
        let at = if in_image { [0, row, column].map(|o| start + o) } else { [next; 3] };
        want.iter_mut().zip(at).for_each(|(axis, at)| axis.push(at as i64));
        next = at.into_iter().max().unwrap().max(next) + 1;
        if in_image {
            next = start + rows.max(columns);
        }
    }
    assert_eq!(encoded.position_ids, want);
    assert_eq!(encoded.rope_delta, next as i64 - encoded.input_ids.len() as i64);
}

/// 6: bytes of images with alpha are read in the wrong order: red becomes alpha, green red, blue green.
#[test]
fn defect_06_images_with_alpha_keep_their_colors() {
    let data: Vec<u8> = [10, 20, 200, 255].repeat(56 * 56);
    let prepared = prepare(&UNLIMITED, SparkImage::new("", PixelKind::Bgra, 56, 56, data), "What?");
    let pixels = unpatched(&prepared.images[0]);
    assert!(pixels.iter().all(|p| *p == [200, 20, 10]), "{:?}", pixels[0]);
}

/// 7: grey images are brightened: 16 becomes 71, 64 becomes 137, 128 becomes 188.
#[test]
fn defect_07_grey_images_keep_their_brightness() {
    let data: Vec<u8> = (0..56 * 56).map(|i| [16, 64, 128, 192][i % 56 / 14]).collect();
    let prepared = prepare(&UNLIMITED, SparkImage::new("", PixelKind::Grey, 56, 56, data), "What?");
    let pixels = unpatched(&prepared.images[0]);
    for (x, want) in [(0, 16), (14, 64), (28, 128), (42, 192)] {
        assert_eq!(pixels[x], [want; 3]);
    }
}

/// 8: text is not normalized, white space is that of ASCII alone, blanks between images are dropped, a space before
/// `<|im_end|>` is stripped, digits are split as Llama 3 does.
#[test]
fn defect_08_text_is_cut_as_the_model_learned_it() {
    check_prompts(&["nfd", "blank_between", "space_before_end", "digits", "ws", "nbsp"]);
}

/// 9: one token alone ends an answer, `<|endoftext|>` does not; and 20 tokens are the limit, without a word about it.
#[test]
fn defect_09_answers_end_where_the_model_ends_them() {
    if !has_openvino() {
        return;
    }
    for path in [demo_model_dir(), demo_spark_zip()] {
        let transformer = Qwen2VLTransformer::load(path).unwrap().set_stop_token_ids([9]);
        let options = &transformer.package().generation.stop_token_ids;
        assert!(options.contains(&END_OF_TEXT) && options.contains(&151_645), "{options:?}");
    }
    let item = ITEMS.iter().filter(|i| i.task == "json").max_by_key(|i| i.answer.len()).unwrap();
    let mut request = Request::question(&item.question).image(item.path());
    request.options.logit_bias = Some([(END_OF_TEXT, 1000.0)].into());
    let ended: Annotation = DEMO.annotator().unwrap().run(&request).into();
    assert_eq!((ended.result.as_str(), ended.metadata["finish_reason"].as_str()), ("", "stop"));

    let frame = row(&[(item.spark_image(), item.question.as_str())]);
    let scala = ask(&DEMO.clone().set_defaults(Defaults::Scala), &frame).remove(0);
    let python = ask(&DEMO, &frame).remove(0);
    assert_eq!(scala.metadata["output_tokens"], "20");
    assert_eq!(scala.metadata["finish_reason"], "length", "it is told that the answer was cut");
    assert_eq!(python.metadata["finish_reason"], "stop");
    assert_eq!(python.result, item.answer);
}

/// 10: the vision tower has 4 bits, whatever the model.
#[test]
fn defect_10_models_with_a_better_vision_tower_are_taken() {
    let transformer = Qwen2VLTransformer::load_saved_model(demo_model_dir()).unwrap();
    let report = transformer.package().report().unwrap();
    let merger = report.models.iter().find(|m| m.name.contains("merger")).unwrap();
    assert!(
        merger.constants.contains_key("i8") && !merger.constants.contains_key("u4"),
        "{:?}",
        merger.constants
    );
    let of_spark = Qwen2VLTransformer::load(demo_spark_zip()).unwrap().package().report().unwrap();
    let merger = of_spark.models.iter().find(|m| m.name.contains("merger")).unwrap();
    assert!(merger.constants.contains_key("u4"), "{:?}", merger.constants);
}

/// 11: a mask of patches times patches, whose size overflows from 46,341 patches on: a photo of 12 megapixels fails.
/// 12: logits of the whole prompt: 9 GB for that photo.
#[test]
fn defects_11_and_12_a_photo_of_12_megapixels_fits_into_memory() {
    let transformer = DEMO.clone().set_max_pixel_value(12_845_056);
    let prepared = prepare(&transformer, grey(3000, 4000), "");
    let (grid, tokens) = (prepared.images[0].grid_thw, prepared.encoded.input_ids.len());
    assert_eq!((grid.h, grid.w), (214, 286));
    let package = transformer.package();
    let plan = |grid, tokens| {
        MemoryPlan::new(&package.model, &WeightBytes::default(), Some(grid), tokens, 200, 1024)
    };
    let mask_bytes = (grid.n_patches() as u64).pow(2) * 4;
    let logits_bytes = (tokens * package.model.vocab_size * 4) as u64;
    let needed = plan(grid, tokens).request_bytes();
    assert!(needed < mask_bytes / 8 && needed < logits_bytes / 4, "{} MiB", needed >> 20);
    // Twice the patches are twice the memory, not four times.
    let half = plan(GridThw { h: grid.h / 2, ..grid }, tokens / 2).vision.work;
    assert!(plan(grid, tokens).vision.work <= half * 2, "{} MiB", half >> 20);
}

/// 11 and 12, run: 3 megapixels take 1 GB of mask, twice, and 2.4 GB of logits there.
#[test]
fn defects_11_and_12_photos_are_answered_within_memory() {
    if !has_openvino() {
        return;
    }
    let transformer = DEMO.clone().set_max_pixel_value(12_845_056).set_max_output_length(4);
    let photo = bgr(1500, 2000, |y, x| [(x / 16) as u8, (y / 12) as u8, 90]);
    let answer = ask(&transformer, &row(&[(photo, "")])).remove(0);
    assert_eq!(answer.error(), None);
    assert_eq!(answer.metadata["grid_thw"], "[[1,108,142]]");
    if let Some(peak) = peak_bytes() {
        assert!(peak < 3 << 29, "{} MiB", peak >> 20);
        println!("peak of all tests: {} MiB", peak >> 20);
    }
}

/// The most memory that this process ever had, all its tests included.
fn peak_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
}

/// The answers to rows, one each.
fn answers(transformer: &Qwen2VLTransformer, frame: &DataFrame) -> Vec<Annotation> {
    let answered = transformer.transform(frame).unwrap();
    let rows = answered.annotations("answer").unwrap();
    rows.into_iter().map(|row| <[Annotation; 1]>::try_from(row.to_vec()).unwrap()).map(|[a]| a).collect()
}

/// 13: a prompt without `<|image_pad|>` fails the whole job, and there are no questions without an image.
#[test]
fn defect_13_prompts_need_no_placeholder_and_questions_no_image() {
    if !has_openvino() {
        return;
    }
    let item = of_task("caption");
    let image = || Some(item.spark_image());
    let template =
        |question: &str| format!("<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n");
    let frame = assembled([
        (image(), Some(item.question.clone())),
        (image(), Some(template(&item.question))),
        (image(), None),
    ]);
    let [plain, verbatim, default] = answers(&DEMO, &frame).try_into().unwrap();
    assert_eq!(plain.result, item.answer);
    assert_eq!(verbatim.result, item.answer);
    assert!(verbatim.metadata["warnings"].contains("<|image_pad|>"), "{:?}", verbatim.metadata);
    assert_eq!(default.error(), None);
    let alone = DEMO.prepare(&[Some(AnnotationImage::of_text("Hello"))]).unwrap().remove(0);
    assert!(alone.images.is_empty() && !alone.encoded.input_ids.contains(&IMAGE_PAD));
}

/// 14: of a prompt that ends in `<|image_pad|>`, the image is not used; one that is nothing else fails; too many of them
/// take what is beyond the image.
#[test]
fn defect_14_images_are_used_wherever_their_placeholder_is() {
    for text in ["Look: <|image_pad|>", "<|image_pad|>"] {
        let prepared = prepare(&UNLIMITED, grey(56, 56), text);
        assert_eq!(prepared.encoded.input_ids.iter().filter(|id| **id == IMAGE_PAD).count(), 4, "{text}");
    }
    if !has_openvino() {
        return;
    }
    let item = of_task("caption");
    let question = || Some(item.question.clone());
    let two = Some("<|image_pad|> and <|image_pad|>?".to_owned());
    let frame = assembled([question(), two, question()].map(|text| (Some(item.spark_image()), text)));
    let [before, wrong, after] = answers(&DEMO, &frame).try_into().unwrap();
    assert_eq!((before.result.as_str(), after.result.as_str()), (item.answer.as_str(), item.answer.as_str()));
    let (kind, message) = wrong.error().unwrap();
    assert_eq!(kind, "prompt");
    assert!(message.contains("2 image placeholders"), "{message}");
}

/// 15: a row without a valid image, or with a null, ends the job.
#[test]
fn defect_15_bad_rows_have_errors_and_end_no_job() {
    if !has_openvino() {
        return;
    }
    let item = of_task("caption");
    let question = || Some(item.question.clone());
    let short = SparkImage { data: vec![1, 2, 3].into(), ..grey(56, 56) };
    let frame = assembled([
        (None, question()),
        (Some(SparkImage::invalid("file:///photo.webp")), question()),
        (Some(short), question()),
        (Some(SparkImage::encoded("file:///broken.jpg", &b"\xff\xd8\xff\xe0nothing"[..])), question()),
        (Some(item.spark_image()), None),
        (Some(item.spark_image()), question()),
    ]);
    let rows = answers(&DEMO, &frame);
    for (row, says) in rows[..4].iter().zip(["no image", "file:///photo.webp", "3 bytes", "JPEG"]) {
        let (kind, message) = row.error().unwrap();
        assert_eq!(kind, "image");
        assert!(message.contains(says), "{says}: {message}");
        assert_eq!((row.result.as_str(), row.begin, row.end), ("", 0, -1));
    }
    assert_eq!(rows[4].error(), None, "a null text is no text");
    assert_eq!(rows[5].result, item.answer);
    let nulls =
        DataFrame::default().with_column("image_assembler", DataType::AnnotationImages, vec![Cell::Null; 2]);
    let nulls = answers(&DEMO, &nulls.unwrap());
    assert!(nulls.iter().all(|row| row.error().is_some_and(|(kind, _)| kind == "image")), "{nulls:?}");
    let answered = DEMO.transform(&frame).unwrap();
    let failed: Vec<usize> = answered.errors("answer").unwrap().into_iter().map(|(row, ..)| row).collect();
    assert_eq!(failed, [0, 1, 2, 3]);
}

/// 16: several images of a row must be of one size; two become the frames of one, three fail; the first question alone
/// is answered.
#[test]
fn defect_16_several_images_are_several_images() {
    let (a, b, c) = (grey(56, 56), grey(84, 28), grey(28, 112));
    let of_text = |text: &str| {
        let images = [&a, &b, &c].map(|image| Some(AnnotationImage::new(image.clone(), text)));
        UNLIMITED.prepare(&images).unwrap()
    };
    let [together] = <[Prepared; 1]>::try_from(of_text("Compare.")).unwrap();
    let grids: Vec<_> = together.images.iter().map(|i| (i.grid_thw.t, i.grid_thw.h, i.grid_thw.w)).collect();
    assert_eq!(grids, [(1, 4, 4), (1, 6, 2), (1, 2, 8)]);
    assert_eq!(together.encoded.input_ids.iter().filter(|id| **id == IMAGE_PAD).count(), 4 + 3 + 4);
    if !has_openvino() {
        return;
    }
    let items: Vec<_> = ITEMS.iter().filter(|i| i.task == "vqa").take(3).collect();
    let asked: Vec<_> = items.iter().map(|i| (i.spark_image(), i.question.as_str())).collect();
    let answers = ask(&DEMO, &row(&asked));
    let got: Vec<_> = answers.iter().map(|a| (a.result.as_str(), a.metadata["image"].as_str())).collect();
    let want: Vec<_> =
        items.iter().zip(["0", "1", "2"]).map(|(i, image)| (i.answer.as_str(), image)).collect();
    assert_eq!(got, want);
}

/// 17: an id without an entry in the vocabulary, as 151848, makes decoding fail.
#[test]
fn defect_17_ids_without_a_word_are_no_error() {
    if !has_openvino() {
        return;
    }
    let item = of_task("caption");
    let mut request = Request::question(&item.question).image(item.path());
    request.options.logit_bias = Some([(151_848, 1000.0)].into());
    request.options.max_new_tokens = Some(3);
    let annotation: Annotation = DEMO.annotator().unwrap().run(&request).into();
    assert_eq!(annotation.error(), None);
    assert_eq!((annotation.result.as_str(), annotation.metadata["output_tokens"].as_str()), ("", "3"));
}

/// 18: larger batches change nothing but failures, and concurrent tasks multiply memory and fight for the CPU.
#[test]
fn defect_18_threads_share_a_model_and_batches_keep_answers() {
    if !has_openvino() {
        return;
    }
    let frame = assembled(ITEMS.iter().step_by(8).map(|i| (Some(i.spark_image()), Some(i.question.clone()))));
    let texts = |transformer: &Qwen2VLTransformer| {
        answers(transformer, &frame).into_iter().map(|a| a.result).collect::<Vec<_>>()
    };
    let want = texts(&DEMO);
    for batch_size in [1, 3] {
        assert_eq!(texts(&DEMO.clone().set_batch_size(batch_size)), want);
    }
    let annotator = DEMO.annotator().unwrap();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| texts(&DEMO.clone()))).collect();
        for thread in threads {
            assert_eq!(thread.join().unwrap(), want);
        }
    });
    assert!(std::sync::Arc::ptr_eq(&annotator, &DEMO.clone().annotator().unwrap()), "one model for all");
}

/// 19: photos are not turned as their EXIF data say, and of 16-bit grey the low byte is taken.
#[test]
fn defect_19_photos_are_turned_and_16_bits_are_scaled() {
    let first = |frame: &DataFrame| match &frame.columns()[0].cells()[0] {
        Cell::Image(image) => image.clone(),
        other => panic!("{other:?}"),
    };
    // The same pixels, told to be turned by half and by a quarter (clockwise).
    let plain = first(&DataFrame::read_images(image("exif_1.jpg"), false).unwrap());
    let (height, width) = (plain.height, plain.width);
    let at = |y: i32, x: i32| plain.data.as_chunks::<3>().0[(y * width + x) as usize];
    for (name, turned) in [
        ("exif_3.jpg", bgr(height, width, |y, x| at(height - 1 - y, width - 1 - x))),
        ("exif_6.jpg", bgr(width, height, |y, x| at(height - 1 - x, y))),
    ] {
        let read = first(&DataFrame::read_images(image(name), false).unwrap());
        assert_eq!((read.height, read.width), (turned.height, turned.width), "{name}");
        assert_eq!(qwen2vl_testkit::first_difference(&read.data, &turned.data), None, "{name}");
        let file = first(&ImageAssembler::load_images_as_bytes(image(name)).unwrap());
        let [read, file] = [read, file].map(|image| prepare(&UNLIMITED, image, "What?").images.remove(0));
        assert_eq!(read, file, "{name}");
    }
    let path = image("grey_16bit.png");
    let frame = DataFrame::read_images(&path, false).unwrap();
    let read = first(&frame);
    let want: Vec<u8> = image::open(&path)
        .unwrap()
        .into_luma16()
        .as_raw()
        .iter()
        .flat_map(|grey| [(grey >> 8) as u8; 3])
        .collect();
    assert_eq!(qwen2vl_testkit::first_difference(&read.data, &want), None);
}

/// Output: begin 0, end the UTF-16 length minus 1, and nothing about how the answer came about: no token counts, no
/// reason why it ended, no error.
#[test]
fn output_says_how_the_answer_came_about() {
    if !has_openvino() {
        return;
    }
    let item = of_task("caption");
    let answer = ask(&DEMO, &row(&[(item.spark_image(), item.question.as_str())])).remove(0);
    assert_eq!((answer.annotator_type.as_str(), answer.result.as_str()), ("document", item.answer.as_str()));
    assert_eq!((answer.begin, answer.end), (0, item.answer.encode_utf16().count() as i32 - 1));
    assert!(answer.embeddings.is_empty());
    let prepared = prepare(&DEMO, item.spark_image(), &item.question);
    assert_eq!(answer.metadata["prompt_tokens"], prepared.encoded.input_ids.len().to_string());
    let times: Value = serde_json::from_str(&answer.metadata["time_ms"]).unwrap();
    // Another test may have asked about the same picture.
    assert!(times["vision"].as_f64().unwrap() >= 0.0 && times["prefill"].as_f64().unwrap() > 0.0);
    for (key, want) in [("finish_reason", "stop"), ("image", "0"), ("model", DEMO.package().name.as_str())] {
        assert_eq!(answer.metadata[key], want);
    }
    let grid = prepared.images[0].grid_thw;
    assert_eq!(answer.metadata["grid_thw"], format!("[[{},{},{}]]", grid.t, grid.h, grid.w));
}
