//! HEIC and AVIF against pillow-heif and Pillow; tools/reference/heif.py wrote the data.

use qwen2vl_preprocess::{DecodeOptions, Error, decode_image, read_size};
use qwen2vl_testkit::{golden, read_jsonl};
use serde::Deserialize;

use crate::animations::base64;

#[derive(Deserialize)]
struct Row {
    name: String,
    file: String,
    #[cfg(feature = "heif")]
    size: [u32; 2],
    #[cfg(feature = "heif")]
    rgb: String,
}

fn rows() -> Vec<Row> {
    read_jsonl(&golden("heif/heif.jsonl"))
}

#[cfg(not(feature = "heif"))]
#[test]
fn without_the_feature_it_is_named() {
    for row in rows() {
        let file = base64(&row.file);
        let format = if row.name.starts_with("avif") { "AVIF" } else { "HEIC" };
        let want = format!(
            "this is a {format} file, which this build does not read; build it with the feature `heif`: \
             cargo build --features heif"
        );
        let error = decode_image(&file, &DecodeOptions::default()).unwrap_err();
        assert!(matches!(error, Error::FeatureMissing { feature: "heif", .. }), "{error}");
        assert_eq!(error.to_string(), want, "{}", row.name);
        assert_eq!(read_size(&file).unwrap_err().to_string(), want, "{}", row.name);
    }
}

#[test]
fn brands_tell_what_a_file_is() {
    let file = |brands: &str| [&[0, 0, 0, 8 + brands.len() as u8][..], b"ftyp", brands.as_bytes()].concat();
    for (brands, want) in [
        ("avif\0\0\0\0avifmif1", Some("AVIF")),
        ("mif1\0\0\0\0mif1avif", Some("AVIF")),
        ("mif1\0\0\0\0mif1heic", Some("HEIC")),
        ("heix\0\0\0\0", Some("HEIC")),
        ("mif1avifheic", Some("HEIC")),
        ("isom\0\0\0\0avif", None),
        ("qt  \0\0\0\0", None),
    ] {
        let text = decode_image(&file(brands), &DecodeOptions::default()).unwrap_err().to_string();
        match want {
            Some(format) => assert!(text.contains(format), "{brands}: {text}"),
            None => assert!(text.contains("not an image"), "{brands}: {text}"),
        }
    }
}

#[cfg(feature = "heif")]
mod with_libheif {
    use qwen2vl_preprocess::{AlphaMode, DecodeLimits, ImageSize, RgbImage, decode_animation};
    use qwen2vl_testkit::check_all;

    use super::*;

    /// Other versions of the libraries, or another library, turn YUV into RGB with another rounding.
    const TOLERANCE: u8 = 2;

    fn decoded(row: &Row) -> Result<RgbImage, String> {
        decode_image(&base64(&row.file), &DecodeOptions::default()).map_err(|e| e.to_string())
    }

    #[test]
    fn pixels_are_those_of_pillow() {
        check_all(
            &rows(),
            |row| row.name.clone(),
            |row| {
                let image = decoded(row)?;
                let size = ImageSize { height: row.size[0], width: row.size[1] };
                if image.size() != size || read_size(&base64(&row.file)).ok() != Some(size) {
                    return Err(format!("it is {}, want {size}", image.size()));
                }
                let want = base64(&row.rgb);
                let differences: Vec<u8> =
                    image.as_raw().iter().zip(&want).map(|(a, b)| a.abs_diff(*b)).collect();
                let largest = differences.iter().copied().max().unwrap_or_default();
                let mean = differences.iter().map(|d| f64::from(*d)).sum::<f64>() / differences.len() as f64;
                println!("{}: differs by {largest} at most, {mean:.3} on average", row.name);
                if largest <= TOLERANCE {
                    Ok(())
                } else {
                    Err(format!("differs by {largest}, {mean:.3} on average"))
                }
            },
        );
    }

    #[test]
    fn transparency_is_laid_over_a_color_where_asked() {
        for row in rows().iter().filter(|row| row.name.ends_with("alpha")) {
            let white = DecodeOptions { alpha: AlphaMode::Composite([255; 3]), ..Default::default() };
            let image = decode_image(&base64(&row.file), &white).unwrap();
            // Transparent in the upper right, opaque in the left half.
            let width = image.size().width as usize;
            assert!(image.as_raw()[(width - 1) * 3..width * 3].iter().all(|c| *c >= 253), "{}", row.name);
            assert_eq!(image.as_raw()[..3], decoded(row).unwrap().as_raw()[..3], "{}", row.name);
        }
    }

    #[test]
    fn limits_hold_and_damage_is_an_error() {
        for row in rows() {
            let file = base64(&row.file);
            let limits = DecodeLimits { max_pixels: 383, ..Default::default() };
            let error = decode_image(&file, &DecodeOptions { limits, ..Default::default() }).unwrap_err();
            assert!(matches!(error, Error::TooManyPixels { limit: 383, .. }), "{error}");
            for len in [20, 100, file.len() / 2] {
                let error = decode_image(&file[..len], &DecodeOptions::default()).unwrap_err();
                assert!(
                    matches!(error, Error::Truncated { .. } | Error::Corrupt { .. }),
                    "{}: {error}",
                    row.name
                );
            }
            let frames: Vec<_> = decode_animation(&file[..], &DecodeOptions::default()).unwrap().collect();
            assert!(matches!(&frames[..], [Ok(frame)] if *frame == decoded(&row).unwrap()));
        }
    }
}
