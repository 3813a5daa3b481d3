//! Bytes from anywhere never panic; a batch equals its images one by one, whatever the threads.

use std::sync::OnceLock;

use proptest::prelude::*;
use qwen2vl_preprocess::{
    DecodeLimits, DecodeOptions, ImageSize, PixelLimits, PreprocessOptions, Preprocessor, RgbImage,
    decode_animation, decode_image, read_animation, read_size, smart_resize,
};

use crate::{animations, read};

/// Small real files of every format and decoder path.
const SEEDS: &[&str] = &[
    "exif_6.jpg",
    "cat_progressive_444.jpg",
    "astronaut_cmyk.jpg",
    "cat_restart.jpg",
    "rgba_16bit.png",
    "palette_4bit.png",
    "bilevel.png",
    "offset_transparent.gif",
    "animated.gif",
    "interlaced.gif",
    "palette.bmp",
    "rgb_565.bmp",
    "rgba.tif",
    "cmyk.tif",
    "deflate.tif",
    "bilevel.tif",
    "rgba_lossless.webp",
    "animated.webp",
    "rgb.ppm",
    "bilevel.pbm",
];

/// Neither call may panic; limits hold for what is read, and the header's size is the image's.
fn attack(bytes: &[u8]) -> Result<(), TestCaseError> {
    let limits = DecodeLimits { max_pixels: 200_000, max_alloc_bytes: 8 << 20, ..Default::default() };
    let size = read_size(bytes);
    if let Ok(image) = decode_image(bytes, &DecodeOptions { limits, ..Default::default() }) {
        prop_assert!(image.size().pixels() <= limits.max_pixels);
        prop_assert_eq!(image.as_raw().len() as u64, image.size().pixels() * 3);
        prop_assert_eq!(size.ok(), Some(image.size()));
    }
    Ok(())
}

static ANIMATIONS: OnceLock<Vec<Vec<u8>>> = OnceLock::new();

/// As many frames as were counted, each of the size that was read, then one error where the file is not whole.
fn attack_animation(bytes: &[u8]) -> Result<(), TestCaseError> {
    let limits = DecodeLimits { max_pixels: 200_000, max_alloc_bytes: 8 << 20, ..Default::default() };
    let info = read_animation(bytes).ok();
    if let Ok(frames) = decode_animation(bytes, &DecodeOptions { limits, ..Default::default() }) {
        let info = info.expect("what can be opened can be counted");
        prop_assert_eq!(frames.info(), &info);
        prop_assert!(info.size.pixels() <= limits.max_pixels && info.n_frames() > 0);
        let frames: Vec<_> = frames.take(50).collect();
        let whole = frames.iter().take_while(|f| f.is_ok()).count();
        prop_assert!(frames.len() - whole <= 1 && whole <= info.n_frames());
        prop_assert!(frames.len() == 50 || info.complete || whole < frames.len());
        prop_assert!(frames.iter().flatten().all(|f| f.size() == info.size));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn mutated_files_never_panic(
        seed in 0..SEEDS.len(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        early in prop::collection::vec((0_usize..64, any::<u8>()), 0..4),
        cut in prop::option::weighted(0.3, any::<prop::sample::Index>()),
    ) {
        let mut bytes = read(&format!("tests/images/{}", SEEDS[seed]));
        let len = bytes.len();
        for (at, value) in changes {
            bytes[at.index(len)] = value;
        }
        for (at, value) in early {
            bytes[at.min(len - 1)] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(len));
        }
        attack(&bytes)?;
    }

    #[test]
    fn mutated_animations_never_panic(
        seed in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in prop::option::weighted(0.2, any::<prop::sample::Index>()),
    ) {
        let rows = ANIMATIONS.get_or_init(|| animations::rows().iter().map(animations::Row::bytes).collect());
        let mut bytes = rows[seed.index(rows.len())].clone();
        let len = bytes.len();
        for (at, value) in changes {
            bytes[at.index(len)] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(len));
        }
        attack(&bytes)?;
        attack_animation(&bytes)?;
    }

    #[test]
    fn random_bytes_never_panic(
        magic in prop::sample::select(vec![
            &b""[..], b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"II\x2a\0", b"MM\0\x2a", b"RIFF\xff\0\0\0WEBPVP8 ",
            b"RIFF\xff\0\0\0WEBPVP8L", b"P6 ", b"P5\n",
        ]),
        rest in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        attack(&[magic, &rest].concat())?;
    }

    #[test]
    fn sizes_are_multiples_within_the_limits(
        height in 1_u32..30_000, width in 1_u32..30_000, factor in 1_u32..64, min in 1_u64..1_000_000, more in 0_u64..20_000_000,
    ) {
        let limits = PixelLimits { min_pixels: min, max_pixels: min + more };
        if let Ok(ImageSize { height: h, width: w }) = smart_resize(ImageSize { height, width }, factor, limits) {
            prop_assert!(h % factor == 0 && w % factor == 0 && h > 0 && w > 0);
            // One side may be a single strip, which no limit makes thinner; an enlarged image is rounded up.
            let pixels = u64::from(h) * u64::from(w);
            let rounded_up = u64::from(h - factor) * u64::from(w - factor);
            prop_assert!(pixels <= limits.max_pixels || h == factor || w == factor || rounded_up < min);
            prop_assert!(pixels >= min || limits.max_pixels < u64::from(factor) * u64::from(h.max(w) + factor) * 2
                || u64::from(h + factor) * u64::from(w + factor) > limits.max_pixels);
        }
    }
}

#[test]
fn a_batch_equals_its_images_one_by_one() {
    let image = |i: u32| {
        let (height, width) = (20 + 37 * i, 50 + 23 * i);
        let data = (0..height * width * 3).map(|k| (k.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        RgbImage::new(height, width, data).unwrap()
    };
    let images: Vec<_> = (0..9).map(image).collect();
    let preprocessor = Preprocessor::new(PreprocessOptions::default()).unwrap();
    let limits = PixelLimits { min_pixels: 3136, max_pixels: 60_000 };
    let single: Vec<_> =
        images.iter().map(|image| preprocessor.preprocess_with(image, limits).unwrap()).collect();
    for threads in [1, 2, 3] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let batch = pool.install(|| preprocessor.preprocess_batch(&images, limits));
        for (i, (batch, single)) in batch.iter().zip(&single).enumerate() {
            assert!(batch.as_ref().unwrap() == single, "image {i} on {threads} threads");
        }
    }
}
