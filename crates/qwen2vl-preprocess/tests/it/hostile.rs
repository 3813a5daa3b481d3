//! Every bad input gets an error that says what is wrong and what is allowed.

use qwen2vl_preprocess::{
    DecodeLimits, DecodeOptions, Error, ImageSize, PixelLimits, PreprocessOptions, Preprocessor, RgbImage,
    decode_image, read_size,
};

use crate::read;

fn error(bytes: &[u8], limits: DecodeLimits) -> Error {
    decode_image(bytes, &DecodeOptions { limits, ..Default::default() }).expect_err("it must be refused")
}

fn png_header(width: u32, height: u32) -> Vec<u8> {
    let mut ihdr = b"IHDR".to_vec();
    ihdr.extend([width.to_be_bytes(), height.to_be_bytes()].concat());
    ihdr.extend([8, 2, 0, 0, 0]);
    let crc = ihdr.iter().fold(!0_u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg()))
    });
    let mut file = b"\x89PNG\r\n\x1a\n\0\0\0\x0d".to_vec();
    file.extend(ihdr);
    file.extend((!crc).to_be_bytes());
    file.extend(b"\0\0\0\x10IDAT");
    file.extend([0; 20]);
    file
}

fn bmp_header(width: i32, height: i32) -> Vec<u8> {
    let mut file = b"BM\xff\xff\xff\xff\0\0\0\0\x36\0\0\0\x28\0\0\0".to_vec();
    file.extend([width.to_le_bytes(), height.to_le_bytes()].concat());
    file.extend(b"\x01\0\x18\0\0\0\0\0");
    file.extend([0; 40]);
    file
}

/// An uncompressed RGB TIFF that claims a size.
fn tiff_header(width: u32, height: u32) -> Vec<u8> {
    let entries: [(u16, u16, u32, u32); 9] = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, 1, 8),
        (259, 3, 1, 1),
        (262, 3, 1, 1),
        (273, 4, 1, 8),
        (277, 3, 1, 1),
        (278, 4, 1, height),
        (279, 4, 1, 100),
    ];
    let mut file = b"II\x2a\0\x08\0\0\0".to_vec();
    file.extend((entries.len() as u16).to_le_bytes());
    for (tag, kind, count, value) in entries {
        file.extend([tag.to_le_bytes(), kind.to_le_bytes()].concat());
        file.extend([count.to_le_bytes(), value.to_le_bytes()].concat());
    }
    file.extend([0; 4]);
    file
}

fn webp_header(width: u32, height: u32) -> Vec<u8> {
    // VP8L: 14 bits each of width - 1 and height - 1.
    let bits = (width - 1) | ((height - 1) << 14);
    let mut file = b"RIFF\x20\0\0\0WEBPVP8L\x14\0\0\0\x2f".to_vec();
    file.extend(bits.to_le_bytes());
    file.extend([0; 24]);
    file
}

fn gif_header(width: u16, height: u16) -> Vec<u8> {
    let mut file = b"GIF89a\x01\0\x01\0\x80\0\0\0\0\0\xff\xff\xff,\0\0\0\0".to_vec();
    file.extend([width.to_le_bytes(), height.to_le_bytes()].concat());
    file.extend(b"\0\x08\x02\x4c\x01\0;");
    file
}

/// A real JPEG whose frame header claims another size.
fn jpeg_header(width: u16, height: u16) -> Vec<u8> {
    let mut file = read("tests/images/exif_1.jpg");
    let at = file.windows(2).position(|w| w == [0xFF, 0xC0]).unwrap() + 5;
    file[at..at + 2].copy_from_slice(&height.to_be_bytes());
    file[at + 2..at + 4].copy_from_slice(&width.to_be_bytes());
    file
}

#[test]
fn bombs_are_refused_from_the_header() {
    let limits = DecodeLimits::default();
    let files = [
        ("PNG", png_header(100_000, 100_000)),
        ("BMP", bmp_header(60_000, 60_000)),
        ("TIFF", tiff_header(100_000, 100_000)),
        ("WebP", webp_header(16_383, 16_383)),
        ("GIF", gif_header(65_535, 65_535)),
        ("JPEG", jpeg_header(65_500, 65_500)),
        ("PNM", b"P6 100000 100000 255\n...".to_vec()),
    ];
    for (format, file) in files {
        let size = read_size(&file).unwrap_or_else(|e| panic!("{format}: {e}"));
        let error = error(&file, limits);
        assert!(matches!(error, Error::TooManyPixels { .. }), "{format}: {error}");
        let text = error.to_string();
        for part in [&size.pixels().to_string(), &size.to_string(), "178956970", "max_pixels"] {
            assert!(text.contains(part), "{format}: {text}");
        }
    }
}

#[test]
fn limits_can_be_set() {
    let file = read("tests/images/astronaut.png");
    let size = ImageSize { height: 210, width: 200 };
    let pixels = DecodeLimits { max_pixels: size.pixels(), ..Default::default() };
    let all = |limits| decode_image(&file, &DecodeOptions { limits, ..Default::default() });
    assert_eq!(all(pixels).unwrap().size(), size);
    let fewer = DecodeLimits { max_pixels: size.pixels() - 1, ..Default::default() };
    assert!(matches!(error(&file, fewer), Error::TooManyPixels { limit: 41_999, .. }));
    let short = DecodeLimits { max_file_bytes: 1000, ..Default::default() };
    assert!(matches!(error(&file, short), Error::FileTooLarge { limit: 1000, .. }));
    let poor = DecodeLimits { max_alloc_bytes: 1000, ..Default::default() };
    for name in
        ["astronaut.png", "cat.gif", "cat.bmp", "cat_lzw.tif", "cat_lossless.webp", "exif_1.jpg", "rgb.ppm"]
    {
        let error = error(&read(&format!("tests/images/{name}")), poor);
        assert!(matches!(error, Error::MemoryLimit { limit: 1000, .. }), "{name}: {error}");
    }
    assert!(all(DecodeLimits::NONE).is_ok());
}

#[test]
fn what_is_no_image_is_named() {
    let limits = DecodeLimits::default();
    for (bytes, want) in [
        (&b""[..], "empty (0 bytes)"),
        (b"hello", "starts with 68 65 6c 6c 6f"),
        (b"not%PDF-1.7", if cfg!(feature = "pdf") { "no pages can be found" } else { "PDF" }),
        (b"\0\0\0\x20ftypavif\0\0\0\0", "AVIF"),
        (b"\xff\xd8\xff", "truncated"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF", "truncated"),
        (b"\x89PNG\r\n\x1a\n", "truncated"),
        (b"GIF89a", "truncated"),
    ] {
        let text = error(bytes, limits).to_string();
        assert!(text.contains(want), "{bytes:02x?}: {text}");
        assert!(read_size(bytes).is_err());
    }
}

#[test]
fn truncation_is_called_truncation() {
    for name in [
        "coffee_420.jpg",
        "cat_progressive.jpg",
        "astronaut.png",
        "cat.gif",
        "cat.bmp",
        "grey.tif",
        "rgb.ppm",
    ] {
        let file = read(&format!("tests/images/{name}"));
        let error = error(&file[..file.len() / 2], DecodeLimits::default());
        assert!(matches!(error, Error::Truncated { .. }), "{name}: {error}");
    }
}

#[test]
fn a_jpeg_of_a_thousand_scans_is_refused() {
    let file = read("tests/images/cat_progressive.jpg");
    let end = file.len() - 2;
    let scan = file.windows(2).rposition(|w| w == [0xFF, 0xDA]).unwrap();
    let mut bomb = file[..end].to_vec();
    for _ in 0..1000 {
        bomb.extend_from_slice(&file[scan..scan + 20]);
    }
    bomb.extend([0xFF, 0xD9]);
    let error = error(&bomb, DecodeLimits::default());
    assert!(matches!(error, Error::TooManyScans { limit: 500, .. }), "{error}");
}

#[test]
fn one_bad_image_does_not_lose_the_others() {
    let image = |height: u32, width: u32| {
        RgbImage::new(height, width, vec![77; (height * width * 3) as usize]).unwrap()
    };
    let images = [image(30, 40), image(1, 201), image(10, 10)];
    let preprocessor = Preprocessor::new(PreprocessOptions::default()).unwrap();
    let results = preprocessor.preprocess_batch(&images, PixelLimits::default());
    assert!(results[0].is_ok() && results[2].is_ok());
    let error = results[1].as_ref().unwrap_err().to_string();
    assert_eq!(
        error,
        "the image is 201x1, an aspect ratio of 201.00; at most 200 is allowed: crop or pad it"
    );
}

#[test]
fn frames_must_exist_and_agree() {
    let preprocessor = Preprocessor::new(PreprocessOptions::default()).unwrap();
    let limits = PixelLimits::default();
    assert!(matches!(preprocessor.preprocess_frames(&[], limits), Err(Error::NoFrames)));
    let frames = [RgbImage::new(2, 3, vec![0; 18]).unwrap(), RgbImage::new(3, 2, vec![0; 18]).unwrap()];
    let error = preprocessor.preprocess_frames(&frames, limits).unwrap_err().to_string();
    assert_eq!(error, "frame 1 is 2x3, but frame 0 is 3x2: frames need one size");
    let resized = ImageSize { height: 28, width: 28 };
    let mut out = vec![0.0; preprocessor.slice_len(resized)];
    assert!(matches!(preprocessor.write_frames(&[], resized, &mut out), Err(Error::NoFrames)));
    let odd = ImageSize { height: 28, width: 30 };
    assert!(matches!(preprocessor.write_frames(&frames, odd, &mut out), Err(Error::NotDivisible { .. })));
}

#[test]
fn raw_pixels_must_fit_their_size() {
    assert!(matches!(
        RgbImage::new(2, 2, vec![0; 11]),
        Err(Error::RawLength { expected: 12, given: 11, .. })
    ));
    assert!(matches!(RgbImage::new(0, 2, vec![]), Err(Error::NoPixels { .. })));
    assert!(matches!(RgbImage::new(u32::MAX, u32::MAX, vec![]), Err(Error::RawLength { .. })));
}

#[test]
fn options_out_of_range_are_named() {
    type Change = fn(&mut PreprocessOptions);
    let changes: [(&str, Change); 7] = [
        ("patch_size", |o| o.geometry.patch_size = 0),
        ("merge_size", |o| o.geometry.merge_size = 0),
        ("temporal_patch_size", |o| o.geometry.temporal_patch_size = 5000),
        ("max_pixels", |o| o.pixel_limits.max_pixels = 0),
        ("rescale_factor", |o| o.rescale_factor = 0.0),
        ("image_std", |o| o.image_std[1] = 0.0),
        ("image_mean", |o| o.image_mean[2] = f64::NAN),
    ];
    for (name, change) in changes {
        let mut options = PreprocessOptions::default();
        change(&mut options);
        let text = Preprocessor::new(options).unwrap_err().to_string();
        assert!(text.contains(&format!("`{name}` is ")), "{text}");
    }
}

#[test]
fn limits_without_sense_are_errors_not_huge_allocations() {
    let preprocessor = Preprocessor::new(PreprocessOptions::default()).unwrap();
    let image = RgbImage::new(10, 10, vec![0; 300]).unwrap();
    let ask = |min_pixels, max_pixels| {
        preprocessor.preprocess_with(&image, PixelLimits { min_pixels, max_pixels }).map(|p| p.resized)
    };
    assert!(matches!(ask(1 << 62, u64::MAX), Err(Error::OutOfMemory { .. })));
    assert!(matches!(
        ask(u64::MAX, u64::MAX),
        Err(Error::ResizedTooLarge { .. } | Error::OutOfMemory { .. })
    ));
    assert!(matches!(ask(0, 10), Err(Error::NoPixels { .. }) | Ok(_)));
    assert!(matches!(ask(0, 0), Err(Error::Option { name: "max_pixels", .. })));
}
