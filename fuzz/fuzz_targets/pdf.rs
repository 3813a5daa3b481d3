//! PDFs of any bytes: pages within the limits, of the size that is read, or an error.

#![no_main]

use libfuzzer_sys::fuzz_target;
use qwen2vl_preprocess::{DecodeLimits, DecodeOptions, count_pdf_pages, decode_pdf_page, read_pdf_page_size};

const MAX_PIXELS: u64 = 10_000;

// The renderer's panics are caught and become errors; libfuzzer's own hook would end the process before.
fuzz_target!(init: std::panic::set_hook(Box::new(|_| {})), |bytes: &[u8]| {
    let limits = DecodeLimits { max_pixels: MAX_PIXELS, max_alloc_bytes: 8 << 20, ..Default::default() };
    let options = DecodeOptions { limits, pdf_dpi: 36, ..Default::default() };
    let Ok(n_pages) = count_pdf_pages(bytes, &options) else { return };
    assert!(n_pages > 0);
    assert!(decode_pdf_page(bytes, Some(0), &options).is_err());
    assert!(decode_pdf_page(bytes, Some(n_pages + 1), &options).is_err());
    for page in 1..=n_pages.min(2) {
        let size = read_pdf_page_size(bytes, Some(page), &options);
        if let Ok(image) = decode_pdf_page(bytes, Some(page), &options) {
            assert!(image.size().pixels() <= MAX_PIXELS);
            assert_eq!(size.expect("what is decoded has a size"), image.size());
        }
    }
});
