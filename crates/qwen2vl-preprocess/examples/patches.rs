//! Shows what one image becomes: `cargo run --example patches -- photo.jpg [max_pixels]`.

use std::error::Error;

use qwen2vl_preprocess::{DecodeOptions, PixelLimits, PreprocessOptions, Preprocessor, decode_image};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let path = args.next().ok_or("usage: patches IMAGE [MAX_PIXELS]")?;
    let preprocessor = Preprocessor::new(PreprocessOptions::default())?;
    let mut limits = preprocessor.options().pixel_limits;
    if let Some(max_pixels) = args.next() {
        limits = PixelLimits { max_pixels: max_pixels.parse()?, ..limits };
    }

    let image = decode_image(&std::fs::read(&path)?, &DecodeOptions::default())?;
    let pixels = preprocessor.preprocess_with(&image, limits)?;
    let merge_size = preprocessor.options().geometry.merge_size;
    println!("{path}: {} -> {}", pixels.original, pixels.resized);
    println!(
        "grid_thw {}, {} patches, {} tokens",
        pixels.grid_thw,
        pixels.grid_thw.n_patches(),
        pixels.grid_thw.n_tokens(merge_size)
    );
    println!("first patch starts with {:?}", &pixels.data[..4]);
    Ok(())
}
