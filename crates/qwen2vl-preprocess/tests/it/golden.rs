//! Equal to the reference to the bit; tools/reference/preprocess.py wrote the data.

use qwen2vl_preprocess::{
    AlphaMode, DecodeOptions, ImageSize, PixelLimits, PixelValues, PreprocessOptions, Preprocessor,
    decode_image, read_size, smart_resize,
};
use qwen2vl_testkit::{check_all, golden, read_jsonl, sha256_f32, sha256_hex};
use qwen2vl_types::{GridThw, PatchGeometry};
use serde::Deserialize;

use crate::{decode, read};

/// What the reference's `pixel_values` are: all of them by hash, a few rows to say where a difference begins.
#[derive(Deserialize)]
struct Expected {
    grid_thw: GridThw,
    sha256: String,
    rows: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    row: usize,
    crc32: u32,
    first: [f64; 4],
}

impl Expected {
    fn check(&self, got: &PixelValues) -> Result<(), String> {
        if got.grid_thw != self.grid_thw {
            return Err(format!("grid: got {}, want {}", got.grid_thw, self.grid_thw));
        }
        if sha256_f32(&got.data) == self.sha256 {
            return Ok(());
        }
        let view = got.view();
        for Row { row, crc32: want, first } in &self.rows {
            let values: Vec<f32> = view.row(*row).to_vec();
            let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            if crc32(&bytes) != *want {
                return Err(format!("row {row} starts with {:?}, want {first:?}", &values[..4]));
            }
        }
        Err("pixel_values differ outside the sampled rows".to_owned())
    }

    fn check_close(&self, got: &PixelValues) -> Result<(), String> {
        for Row { row, first, .. } in &self.rows {
            for (got, want) in got.view().row(*row).iter().zip(first) {
                if (f64::from(*got) - want).abs() > LOSSY_WEBP_TOLERANCE {
                    return Err(format!("row {row}: got {got}, want {want}"));
                }
            }
        }
        if got.grid_thw == self.grid_thw { Ok(()) } else { Err(format!("grid: got {}", got.grid_thw)) }
    }
}

/// The checksum of zip and PNG, bit by bit: only failing tests need many.
pub(crate) fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg()))
    })
}

fn limits([min_pixels, max_pixels]: [u64; 2]) -> PixelLimits {
    PixelLimits { min_pixels, max_pixels }
}

/// The reference's options that a case changes.
#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct Changed {
    patch_size: Option<u32>,
    merge_size: Option<u32>,
    temporal_patch_size: Option<u32>,
    do_resize: Option<bool>,
    do_rescale: Option<bool>,
    do_normalize: Option<bool>,
    image_mean: Option<[f64; 3]>,
    image_std: Option<[f64; 3]>,
}

impl Changed {
    fn preprocessor(&self) -> Preprocessor {
        let usual = PreprocessOptions::default();
        let geometry = PatchGeometry {
            patch_size: self.patch_size.unwrap_or(14),
            merge_size: self.merge_size.unwrap_or(2),
            temporal_patch_size: self.temporal_patch_size.unwrap_or(2),
        };
        let options = PreprocessOptions {
            geometry,
            do_resize: self.do_resize.unwrap_or(true),
            do_rescale: self.do_rescale.unwrap_or(true),
            do_normalize: self.do_normalize.unwrap_or(true),
            image_mean: self.image_mean.unwrap_or(usual.image_mean),
            image_std: self.image_std.unwrap_or(usual.image_std),
            ..usual
        };
        Preprocessor::new(options).unwrap()
    }
}

#[derive(Deserialize)]
struct ImageCase {
    image: String,
    limits: [u64; 2],
    size: [u32; 2],
    rgb_sha256: String,
    #[serde(default)]
    options: Changed,
    #[serde(flatten)]
    expected: Expected,
}

/// Lossy WebP is the one format whose decoder is not the reference's to the bit.
const NOT_BIT_EQUAL: &[&str] = &["cat_lossy.webp"];

/// How far its values may be from the reference's: about five of the 255 levels.
const LOSSY_WEBP_TOLERANCE: f64 = 0.075;

#[test]
fn pixel_values_equal_the_fast_processor() {
    let cases: Vec<ImageCase> = read_jsonl(&golden("preprocess/images.jsonl"));
    assert!(cases.len() >= 60);
    let name = |case: &ImageCase| format!("{} {:?}", case.image, case.limits);
    check_all(&cases, name, |case| {
        let bytes = read(&case.image);
        let image = decode_image(&bytes, &DecodeOptions::default()).map_err(|e| e.to_string())?;
        let size = image.size();
        if [size.height, size.width] != case.size || read_size(&bytes).map_err(|e| e.to_string())? != size {
            return Err(format!("size: got {size}, want [h, w] {:?}", case.size));
        }
        let pixels = case.options.preprocessor().preprocess_with(&image, limits(case.limits));
        let pixels = pixels.map_err(|e| e.to_string())?;
        if NOT_BIT_EQUAL.iter().any(|name| case.image.ends_with(name)) {
            return case.expected.check_close(&pixels);
        }
        if sha256_hex(image.as_raw()) != case.rgb_sha256 {
            return Err(format!("decoded pixels differ; they start with {:?}", &image.as_raw()[..3]));
        }
        case.expected.check(&pixels)
    });
}

#[test]
fn videos_equal_the_video_processor() {
    #[derive(Deserialize)]
    struct Case {
        frames: Vec<String>,
        limits: [u64; 2],
        #[serde(flatten)]
        expected: Expected,
    }
    let cases: Vec<Case> = read_jsonl(&golden("preprocess/videos.jsonl"));
    let preprocessor = Preprocessor::new(PreprocessOptions::default()).unwrap();
    check_all(
        &cases,
        |c| format!("{:?} {:?}", c.frames, c.limits),
        |case| {
            let frames: Vec<_> =
                case.frames.iter().map(|name| decode(&format!("tests/images/{name}")).unwrap()).collect();
            let pixels =
                preprocessor.preprocess_frames(&frames, limits(case.limits)).map_err(|e| e.to_string())?;
            // Frames that come in a stream.
            let mut slice = vec![f32::NAN; preprocessor.slice_len(pixels.resized)];
            for (i, group) in frames.chunks(2).enumerate() {
                preprocessor.write_frames(group, pixels.resized, &mut slice).map_err(|e| e.to_string())?;
                if slice != pixels.data[i * slice.len()..][..slice.len()] {
                    return Err(format!("temporal patch {i} is another by itself"));
                }
            }
            case.expected.check(&pixels)
        },
    );
}

#[test]
fn sizes_equal_smart_resize() {
    type Case = (u32, u32, u32, u64, u64, Option<u32>, Option<u32>);
    let cases: Vec<Case> = read_jsonl(&golden("preprocess/sizes.jsonl"));
    assert!(cases.len() >= 2_000 + 900);
    check_all(
        &cases,
        |c| format!("{c:?}"),
        |&(height, width, factor, min, max, want_height, want_width)| {
            let got = smart_resize(ImageSize { height, width }, factor, limits([min, max])).ok();
            let want = want_height.zip(want_width).map(|(height, width)| ImageSize { height, width });
            if got == want { Ok(()) } else { Err(format!("got {got:?}")) }
        },
    );
}

#[test]
fn transparency_is_composited_as_qwen_vl_utils_does() {
    #[derive(Deserialize)]
    struct Case {
        image: String,
        color: [u8; 3],
        rgb_sha256: String,
    }
    let cases: Vec<Case> = read_jsonl(&golden("preprocess/composite.jsonl"));
    check_all(
        &cases,
        |c| format!("{} on {:?}", c.image, c.color),
        |case| {
            let options = DecodeOptions { alpha: AlphaMode::Composite(case.color), ..Default::default() };
            let image = decode_image(&read(&case.image), &options).map_err(|e| e.to_string())?;
            let same = sha256_hex(image.as_raw()) == case.rgb_sha256;
            if same { Ok(()) } else { Err(format!("starts with {:?}", &image.as_raw()[..6])) }
        },
    );
}

/// Pillow forgives a PNG without its end chunk and a BMP without its last padding; here they are truncated.
const STRICTER: &[&str] = &["tests/images/astronaut.png", "tests/images/palette.png", "tests/images/cat.bmp"];

#[test]
fn files_cut_short_are_errors_as_in_pillow() {
    #[derive(Deserialize)]
    struct Case {
        image: String,
        keep: usize,
        reads: bool,
    }
    let cases: Vec<Case> = read_jsonl(&golden("preprocess/truncation.jsonl"));
    check_all(
        &cases,
        |c| format!("{} cut to {}", c.image, c.keep),
        |case| {
            let result = decode_image(&read(&case.image)[..case.keep], &DecodeOptions::default());
            match result {
                Ok(_) if !case.reads => Err("read, but Pillow refuses it".to_owned()),
                Err(e) if case.reads && !STRICTER.contains(&&*case.image) => {
                    Err(format!("Pillow reads it, but: {e}"))
                }
                _ => Ok(()),
            }
        },
    );
}
