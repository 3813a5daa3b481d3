//! Bad input gets an error that names the input, the value and the limit; the annotator stays usable.

use std::path::Path;

use qwen2vl_pipeline::{Annotator, DecodeLimits, Request, RequestOptions, RgbImage};
use qwen2vl_testkit::{check_all, demo_model_dir};

use crate::set::{INT4, SET, has_openvino};

struct Case {
    name: &'static str,
    request: Request,
    kind: &'static str,
    /// All must be in the message.
    says: &'static [&'static str],
}

fn image(bytes: &[u8]) -> Request {
    Request::question("What is this?").image(bytes)
}

fn solid(height: u32, width: u32) -> RgbImage {
    RgbImage::new(height, width, vec![90; height as usize * width as usize * 3]).unwrap()
}

/// A PNG whose header claims a size that its file cannot hold.
fn png_header(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
    bytes.extend(width.to_be_bytes());
    bytes.extend(height.to_be_bytes());
    bytes.extend([8, 2, 0, 0, 0]);
    bytes.extend(crc32(&bytes[12..]).to_be_bytes());
    bytes.extend(b"\0\0\0\0IDAT\x35\xaf\x06\x1e");
    bytes
}

/// A thousand frames of 169 megapixels, of which only a few are ever in memory, and whose pixels are missing.
fn long_video() -> Request {
    let frame = png_header(13_000, 13_000);
    let mut request = Request::question("?").video(std::iter::repeat_n(frame, 1000).collect());
    request.options.max_pixels = Some(3136);
    request
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xEDB8_8320 * (crc & 1)))
    })
}

fn cases() -> Vec<Case> {
    let (item, _) = SET.iter().find(|(item, _)| item.task == "caption").unwrap();
    let whole = std::fs::read(item.image_paths().next().unwrap()).unwrap();
    let options = |set: fn(&mut RequestOptions)| {
        let mut options = RequestOptions::default();
        set(&mut options);
        item.request().options(options)
    };
    let case = |name, request, kind, says| Case { name, request, kind, says };
    vec![
        case("empty file", image(&[]), "image", &["image 1"]),
        case("text file", image(b"hello, I am not an image"), "image", &["image 1"]),
        case("truncated", image(&whole[..whole.len() / 2]), "image", &["image 1"]),
        case("bomb", image(&png_header(100_000, 100_000)), "image", &["image 1", "100000"]),
        case("aspect", Request::question("?").image(solid(2, 401)), "image", &["200"]),
        case("missing", Request::question("?").image("nowhere/x.png"), "io", &["nowhere/x.png"]),
        case(
            "placeholders",
            Request::raw("<|image_pad|>").image(solid(56, 56)).image(solid(56, 56)),
            "prompt",
            &["1 image placeholders", "2 images"],
        ),
        case("empty prompt", Request::raw(""), "prompt", &["empty"]),
        case(
            "temperature",
            options(|o| {
                o.do_sample = Some(true);
                o.temperature = Some(-1.0);
            }),
            "options",
            &["temperature", "-1"],
        ),
        case(
            "top_p",
            options(|o| {
                o.do_sample = Some(true);
                o.top_p = Some(1.5);
            }),
            "options",
            &["top_p", "1.5"],
        ),
        case("no tokens", options(|o| o.max_new_tokens = Some(0)), "options", &["max_new_tokens", "0"]),
        case("limits", options(|o| o.max_pixels = Some(0)), "image", &["max_pixels"]),
        case("context", Request::question("word ".repeat(40_000)), "context", &["32768"]),
        case("many frames", long_video(), "image", &["frame of video 1", "truncated"]),
        case(
            "many images",
            (0..200).fold(Request::question("?"), |r, _| r.image(solid(448, 448))),
            "context",
            &["32768"],
        ),
    ]
}

#[test]
fn each_request_gets_its_own_error() {
    if !has_openvino() {
        return;
    }
    check_all(
        &cases(),
        |c| c.name.to_owned(),
        |case| {
            let error = INT4.run(&case.request).err().ok_or("no error")?;
            let text = error.to_string();
            if error.kind() != case.kind || !case.says.iter().all(|part| text.contains(part)) {
                return Err(format!("{}: {text}", error.kind()));
            }
            Ok(())
        },
    );
    let (item, golden) = &SET[0];
    assert_eq!(INT4.run(&item.request()).unwrap().token_ids, golden.int4.ids, "still usable");
}

#[test]
fn decode_limits_can_be_set() {
    if !has_openvino() {
        return;
    }
    let limits = DecodeLimits { max_pixels: 1000, ..DecodeLimits::default() };
    let annotator = Annotator::builder().model(demo_model_dir()).decode_limits(limits).build().unwrap();
    let error = annotator.run(&SET[0].0.request()).unwrap_err().to_string();
    assert!(error.contains("1000"), "{error}");

    // Without limits what does not fit into memory is refused, from the header.
    let limits = DecodeLimits::NONE;
    let annotator = Annotator::builder().model(demo_model_dir()).decode_limits(limits).build().unwrap();
    let mut huge = Request::question("?").image(png_header(400_000, 400_000));
    huge.options.max_pixels = Some(3136);
    let error = annotator.run(&huge).unwrap_err();
    assert_eq!(error.kind(), "memory", "{error}");
    assert!(error.to_string().contains("MiB") && error.to_string().contains("max_pixels"), "{error}");
}

#[test]
fn models_that_cannot_be_used_are_named() {
    let open = |path: &Path| Annotator::builder().model(path).build().unwrap_err().to_string();
    assert!(open(Path::new("no-such-model")).contains("no-such-model"));
    let empty = tempfile::tempdir().unwrap();
    let error = open(empty.path());
    assert!(error.contains(&empty.path().display().to_string()), "{error}");

    for missing in
        ["openvino_language_model.xml", "openvino_text_embeddings_model.bin", "config.json", "tokenizer.json"]
    {
        let copy = tempfile::tempdir().unwrap();
        for entry in std::fs::read_dir(demo_model_dir()).unwrap() {
            let entry = entry.unwrap();
            if entry.file_name() != missing {
                std::fs::hard_link(entry.path(), copy.path().join(entry.file_name())).unwrap();
            }
        }
        let error = open(copy.path());
        assert!(error.contains(missing), "{missing}: {error}");
    }
}

#[test]
fn an_openvino_that_is_not_there_is_named() {
    let error =
        Annotator::builder().model(demo_model_dir()).openvino("no-such-openvino").build().unwrap_err();
    assert_eq!(error.kind(), "openvino");
    assert!(error.to_string().contains("no-such-openvino"), "{error}");
}
