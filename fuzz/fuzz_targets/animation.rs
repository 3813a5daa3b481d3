//! Image files of any kind: as many frames as are counted, all of the size that is read, within the limits, and an error at the
//! end of what is not whole; the first is the image.
//!
//! What a mutation does to checksums is put right in PNG, so that more than those is reached.

#![no_main]

use libfuzzer_sys::fuzz_target;
use qwen2vl_preprocess::{
    AlphaMode, DecodeLimits, DecodeOptions, decode_animation, decode_image, read_animation, read_size,
};

const MAX_PIXELS: u64 = 40_000;
const MAX_FRAMES: usize = 30;

// A decoder's panics are caught and become errors, as png 0.18.1's on a tRNS chunk longer than the
// palette; libfuzzer's own hook would end the process before.
fuzz_target!(init: std::panic::set_hook(Box::new(|_| {})), |bytes: &[u8]| {
    look(bytes);
    let mut repaired = bytes.to_vec();
    repair(&mut repaired);
    if repaired != bytes {
        look(&repaired);
    }
});

fn look(bytes: &[u8]) {
    let limits = DecodeLimits { max_pixels: MAX_PIXELS, max_alloc_bytes: 8 << 20, ..Default::default() };
    let alpha = if bytes.len().is_multiple_of(2) { AlphaMode::Drop } else { AlphaMode::Composite([255; 3]) };
    let options = DecodeOptions { limits, alpha, ..Default::default() };
    let size = read_size(bytes);
    let image = decode_image(bytes, &options);
    if let Ok(image) = &image {
        assert!(image.size().pixels() <= MAX_PIXELS);
        assert_eq!(size.expect("what is decoded has a size"), image.size());
    }
    let info = read_animation(bytes);
    let Ok(mut frames) = decode_animation(bytes, &options) else { return };
    let info = info.expect("what can be opened can be counted");
    assert_eq!(frames.info(), &info);
    assert!(info.n_frames() > 0 && info.fps() > 0.0 && info.size.pixels() <= MAX_PIXELS);
    let mut whole = 0;
    let mut first = None;
    while whole < MAX_FRAMES {
        match frames.next() {
            Some(Ok(frame)) => {
                assert_eq!(frame.size(), info.size);
                first.get_or_insert(frame);
                whole += 1;
                assert!(whole <= info.n_frames());
            }
            Some(Err(_)) => {
                assert!(frames.next().is_none(), "one error, then nothing");
                return;
            }
            None => {
                assert!(whole == info.n_frames() && info.complete, "an end without an error");
                return;
            }
        }
    }
    // Of an APNG the image may be none of the frames, and a GIF's canvas may grow.
    if let (Ok(image), Some(first), true) = (image, first, bytes.starts_with(b"RIFF")) {
        assert_eq!(image, first);
    }
}

/// Gives each chunk of a PNG its checksum.
fn repair(png: &mut [u8]) {
    if !png.starts_with(b"\x89PNG\r\n\x1a\n") {
        return;
    }
    let mut at = 8;
    while let Some(len) = png.get(at..at + 4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]) as usize) {
        let end = at + 8 + len;
        let Some(chunk) = png.get(at + 4..end) else { return };
        let checksum = crc32fast::hash(chunk).to_be_bytes();
        let Some(place) = png.get_mut(end..end + 4) else { return };
        place.copy_from_slice(&checksum);
        at = end + 4;
    }
}
