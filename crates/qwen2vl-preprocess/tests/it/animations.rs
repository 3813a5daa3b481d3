//! Frames as Pillow shows them, and animations that are not whole; tools/reference/animations.py wrote the data.

use std::time::Duration;

use qwen2vl_preprocess::{
    AlphaMode, DecodeLimits, DecodeOptions, Error, ImageSize, RgbImage, decode_animation, decode_image,
    read_animation, read_size,
};
use qwen2vl_testkit::{check_all, golden, read_jsonl};
use serde::Deserialize;

use crate::golden::crc32;
use crate::read;

/// libwebp and image-webp turn YUV into RGB with a different rounding.
const LOSSY_WEBP_TOLERANCE: i16 = 3;

#[derive(Deserialize)]
pub(crate) struct Row {
    pub name: String,
    file: String,
    /// Height and width of each frame; in Pillow they grow where frames stick out.
    sizes: Vec<[u32; 2]>,
    delays_us: Vec<u64>,
    /// Checksums of the frames' pixels, of lossy files the pixels themselves.
    #[serde(default)]
    rgb: Vec<u32>,
    #[serde(default)]
    white: Vec<u32>,
    #[serde(default)]
    pixels: Vec<String>,
}

impl Row {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        base64(&self.file)
    }
}

pub(crate) fn rows() -> Vec<Row> {
    read_jsonl(&golden("animations/animations.jsonl"))
}

/// The standard alphabet, padded.
pub(crate) fn base64(text: &str) -> Vec<u8> {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes = Vec::new();
    for group in text.trim_end_matches('=').as_bytes().chunks(4) {
        let digit = |c: &u8| alphabet.iter().position(|a| a == c).unwrap() as u32;
        let value = group.iter().enumerate().fold(0, |v, (i, c)| v | digit(c) << (26 - 6 * i));
        bytes.extend_from_slice(&value.to_be_bytes()[..group.len() - 1]);
    }
    bytes
}

fn white() -> DecodeOptions {
    DecodeOptions { alpha: AlphaMode::Composite([255; 3]), ..Default::default() }
}

/// The top left corner of a frame.
fn cut(image: &RgbImage, [height, width]: [u32; 2]) -> Vec<u8> {
    let rows = image.as_raw().chunks_exact(image.size().width as usize * 3).take(height as usize);
    rows.flat_map(|row| &row[..width as usize * 3]).copied().collect()
}

fn check_frames(row: &Row, options: &DecodeOptions, want: &[u32]) -> Result<(), String> {
    let frames = decode_animation(row.bytes(), options).map_err(|e| e.to_string())?;
    let last = *row.sizes.last().unwrap();
    let mut n_frames = 0;
    for (i, frame) in frames.enumerate() {
        let frame = frame.map_err(|e| format!("frame {i}: {e}"))?;
        if [frame.size().height, frame.size().width] != last {
            return Err(format!("frame {i} is {}, want {last:?}", frame.size()));
        }
        let pixels = cut(&frame, row.sizes[i]);
        if want.get(i) != Some(&crc32(&pixels)) {
            return Err(format!("frame {i} differs; it starts with {:?}", &pixels[..12]));
        }
        n_frames += 1;
    }
    if n_frames == want.len() { Ok(()) } else { Err(format!("{n_frames} frames, want {}", want.len())) }
}

#[test]
fn frames_equal_pillows() {
    let exact: Vec<Row> = rows().into_iter().filter(|row| row.pixels.is_empty()).collect();
    check_all(&exact, |r| r.name.clone(), |r| check_frames(r, &DecodeOptions::default(), &r.rgb));
}

#[test]
fn frames_over_white_equal_those_of_qwen_vl_utils() {
    let exact: Vec<Row> = rows().into_iter().filter(|row| !row.white.is_empty()).collect();
    check_all(&exact, |r| r.name.clone(), |r| check_frames(r, &white(), &r.white));
}

#[test]
fn lossy_frames_are_close_to_pillows() {
    let lossy: Vec<Row> = rows().into_iter().filter(|row| !row.pixels.is_empty()).collect();
    check_all(
        &lossy,
        |r| r.name.clone(),
        |row| {
            let frames =
                decode_animation(row.bytes(), &DecodeOptions::default()).map_err(|e| e.to_string())?;
            for (i, (frame, want)) in frames.zip(&row.pixels).enumerate() {
                let frame = frame.map_err(|e| e.to_string())?;
                let want = base64(want);
                let differences = frame.as_raw().iter().zip(&want);
                let largest = differences.map(|(a, b)| (i16::from(*a) - i16::from(*b)).abs()).max();
                if largest.is_none_or(|d| d > LOSSY_WEBP_TOLERANCE) {
                    return Err(format!("frame {i} differs by {largest:?}"));
                }
            }
            Ok(())
        },
    );
}

#[test]
fn delays_and_frames_are_known_without_decoding() {
    check_all(
        &rows(),
        |r| r.name.clone(),
        |row| {
            let info = read_animation(&row.bytes()).map_err(|e| e.to_string())?;
            let delays: Vec<u64> = info.delays.iter().map(|d| d.as_micros() as u64).collect();
            let close = |(got, want): (&u64, &u64)| got.abs_diff(*want) <= 1;
            if delays.len() != row.delays_us.len() || !delays.iter().zip(&row.delays_us).all(close) {
                return Err(format!("delays {delays:?}, want {:?}", row.delays_us));
            }
            let expected = info.n_frames() as f64 / info.duration().as_secs_f64();
            let consistent = info.complete && info.is_animated() && info.fps() == expected;
            if consistent { Ok(()) } else { Err(format!("{info:?}")) }
        },
    );
}

#[test]
fn the_first_frame_is_what_the_file_is_as_an_image() {
    let same = |row: &Row| {
        let first = decode_animation(row.bytes(), &DecodeOptions::default())
            .and_then(|mut frames| frames.next().ok_or(Error::NoFrames)?)
            .map_err(|e| e.to_string())?;
        let still = decode_image(&row.bytes(), &DecodeOptions::default()).map_err(|e| e.to_string())?;
        let size = read_size(&row.bytes()).map_err(|e| e.to_string())?;
        let equal = still.size() == size && cut(&first, [size.height, size.width]) == still.as_raw();
        if equal { Ok(()) } else { Err("the first frame is another image".to_owned()) }
    };
    // An APNG's image may be none of its frames.
    let rows: Vec<Row> = rows().into_iter().filter(|r| !r.name.starts_with("apng")).collect();
    check_all(&rows, |r| r.name.clone(), same);
}

#[test]
fn still_images_have_one_frame() {
    for name in ["coffee_420.jpg", "exif_6.jpg", "astronaut.png", "cat.gif", "cat_lossless.webp", "rgb.ppm"] {
        let bytes = read(&format!("tests/images/{name}"));
        let info = read_animation(&bytes).unwrap();
        assert!(!info.is_animated() && info.complete, "{name}: {info:?}");
        let frames: Vec<_> = decode_animation(&bytes[..], &DecodeOptions::default()).unwrap().collect();
        let [Ok(frame)] = &frames[..] else { panic!("{name}: {frames:?}") };
        assert_eq!(frame, &decode_image(&bytes, &DecodeOptions::default()).unwrap(), "{name}");
        assert_eq!(frame.size(), info.size, "{name}");
    }
}

#[test]
fn frames_skipped_are_those_of_one_after_the_other() {
    for row in rows() {
        let frames = || decode_animation(row.bytes(), &DecodeOptions::default()).unwrap().map(Result::unwrap);
        let all: Vec<_> = frames().collect();
        for step in 1..4 {
            let stepped: Vec<_> = frames().step_by(step).collect();
            let want: Vec<_> = all.iter().step_by(step).cloned().collect();
            assert!(stepped == want, "{}, step {step}", row.name);
        }
        assert!(frames().nth(all.len()).is_none());
    }
}

/// Whatever is cut off: whole frames as they are, then one error, then nothing.
#[test]
fn what_is_there_of_a_truncated_animation_is_decoded() {
    let mut partial = 0;
    for row in rows() {
        let bytes = row.bytes();
        let options = DecodeOptions::default();
        let whole: Vec<_> = decode_animation(&bytes[..], &options).unwrap().map(Result::unwrap).collect();
        for len in (0..bytes.len()).step_by(11) {
            let Ok(mut frames) = decode_animation(&bytes[..len], &options) else { continue };
            let info = frames.info().clone();
            let mut n_frames = 0;
            let end = loop {
                match frames.next() {
                    Some(Ok(frame)) => {
                        // A GIF's canvas is smaller without the frames that stick out.
                        let size = [info.size.height, info.size.width];
                        assert!(cut(&whole[n_frames], size) == frame.as_raw(), "{} at {len}", row.name);
                        n_frames += 1;
                    }
                    other => break other,
                }
            };
            assert!(frames.next().is_none(), "{} at {len}", row.name);
            assert_eq!(n_frames, info.n_frames(), "{} at {len}", row.name);
            // Between two of its blocks, Pillow takes the end of a GIF for its end.
            assert!(info.complete == end.is_none(), "{} at {len}: {end:?}", row.name);
            partial += usize::from(n_frames > 0 && end.is_some());
        }
    }
    assert!(partial > 500, "{partial}");
}

#[test]
fn canvases_are_checked_before_anything_is_decoded() {
    for row in rows() {
        let limits = DecodeLimits { max_pixels: 47, ..Default::default() };
        let error =
            decode_animation(row.bytes(), &DecodeOptions { limits, ..Default::default() }).unwrap_err();
        assert!(matches!(error, Error::TooManyPixels { limit: 47, .. }), "{}: {error}", row.name);
        let limits = DecodeLimits { max_alloc_bytes: 700, ..Default::default() };
        let error =
            decode_animation(row.bytes(), &DecodeOptions { limits, ..Default::default() }).unwrap_err();
        assert!(matches!(error, Error::MemoryLimit { limit: 700, .. }), "{}: {error}", row.name);
    }
    // Counting needs no canvas.
    let mut huge = b"GIF89a\xff\xff\xff\xff\x80\0\0\0\0\0\xff\xff\xff".to_vec();
    let frame = b"!\xf9\x04\0\x05\0\0\0,\0\0\0\0\x01\0\x01\0\0\x02\x02\x4c\x01\0";
    huge.extend(frame.repeat(3));
    let info = read_animation(&huge).unwrap();
    assert_eq!((info.n_frames(), info.size), (3, ImageSize { height: 65_535, width: 65_535 }));
    assert_eq!(info.delays, [Duration::from_millis(50); 3]);
    let error = decode_animation(huge, &DecodeOptions::default()).unwrap_err();
    assert!(matches!(error, Error::TooManyPixels { .. }), "{error}");
}

#[test]
fn an_endless_animation_is_refused() {
    let mut file = b"GIF89a\x01\0\x01\0\x80\0\0\0\0\0\xff\xff\xff".to_vec();
    file.extend(b",\0\0\0\0\x01\0\x01\0\0\x02\x02\x4c\x01\0".repeat(100_001));
    let error = read_animation(&file).unwrap_err();
    assert_eq!(error.to_string(), "the animation has more than 100000 frames; cut it into shorter ones");
}

#[test]
fn short_delays_count_as_browsers_count_them() {
    let gif = |delay: u8| {
        let mut file = b"GIF89a\x01\0\x01\0\x80\0\0\0\0\0\xff\xff\xff".to_vec();
        for _ in 0..4 {
            file.extend([b'!', 0xF9, 4, 0, delay, 0, 0, 0]);
            file.extend(b",\0\0\0\0\x01\0\x01\0\0\x02\x02\x4c\x01\0");
        }
        read_animation(&file).unwrap()
    };
    for (delay, fps) in [(0, 10.0), (1, 10.0), (2, 50.0), (4, 25.0), (50, 2.0)] {
        assert!((gif(delay).fps() - fps).abs() < 1e-9, "delay {delay}: {}", gif(delay).fps());
    }
}

#[test]
fn frames_are_turned_as_exif_says() {
    let row = rows().into_iter().find(|r| r.name == "webp 0").unwrap();
    let mut file = row.bytes();
    file[20] |= 0x08;
    file.extend(b"EXIF\x1a\0\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0");
    let len = (file.len() - 8) as u32;
    file[4..8].copy_from_slice(&len.to_le_bytes());
    let frames = decode_animation(&file[..], &DecodeOptions::default()).unwrap();
    let size = frames.info().size;
    assert_eq!(size, ImageSize { height: row.sizes[0][1], width: row.sizes[0][0] });
    let plain = decode_animation(row.bytes(), &DecodeOptions::default()).unwrap();
    for (turned, plain) in frames.map(Result::unwrap).zip(plain.map(Result::unwrap)) {
        assert_eq!(turned.size(), size);
        // The top right is what was top left.
        assert_eq!(turned.as_raw()[(size.width as usize - 1) * 3..][..3], plain.as_raw()[..3]);
    }
    let first = decode_image(&file, &DecodeOptions::default()).unwrap();
    assert_eq!((first.size(), read_size(&file).unwrap()), (size, size));
}

#[test]
fn an_apng_whose_animation_is_not_valid_is_its_default_image() {
    let mut file = read("tests/images/astronaut.png");
    let control = b"\0\0\0\x08acTL\0\0\0\x05\0\0\0\0";
    let checksum = crc32(&control[4..]).to_be_bytes();
    file.splice(33..33, control.iter().chain(&checksum).copied());
    let frames: Vec<_> = decode_animation(&file[..], &DecodeOptions::default()).unwrap().collect();
    let [Ok(frame)] = &frames[..] else { panic!("{frames:?}") };
    assert_eq!(frame, &decode_image(&file, &DecodeOptions::default()).unwrap());
}
