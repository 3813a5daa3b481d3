//! What the typical porting mistakes do to the answers: proof that the tests above would see them. docs/testing.md has
//! the figures.

use std::ops::ControlFlow;

use image::imageops::FilterType;
use qwen2vl_pipeline::{CancelToken, Prepared, Request, RgbImage};
use qwen2vl_preprocess::{AlphaMode, PreprocessOptions, Preprocessor};

use crate::set::{FP32, Item, SET, has_openvino};

/// A way to be wrong, applied to what goes into the model.
type Break = fn(&Item, &Request, &mut Prepared);

const BREAKS: &[(&str, Break)] = &[
    ("none", |_, _, _| ()),
    ("row-major patches", row_major_patches),
    ("1-D positions", one_dimensional_positions),
    ("rows and columns swapped in positions", swapped_axes),
    ("swapped sides", swapped_sides),
    ("BGR", bgr),
];

#[test]
fn porting_mistakes_change_the_answers() {
    if !has_openvino() {
        return;
    }
    let items: Vec<_> = SET.iter().filter(|(item, _)| item.images.len() == 1).collect();
    for (name, apply) in BREAKS {
        let (mut differ, mut right) = (0, 0);
        for (item, golden) in &items {
            let request = item.request();
            let mut prepared = FP32.prepare(&request).unwrap();
            apply(item, &request, &mut prepared);
            let run =
                FP32.run_prepared(&request, &prepared, &CancelToken::new(), |_| ControlFlow::Continue(()));
            let annotation = run.unwrap();
            differ += usize::from(annotation.token_ids != golden.hf.ids);
            right += usize::from(annotation.result == item.answer);
        }
        println!("{name}: {differ} of {} answers differ, {right} exactly right", items.len());
        match *name {
            "none" => assert!(differ <= 2, "{differ} differ without any mistake"),
            _ => {
                assert!(differ * 5 >= items.len(), "{name} changes only {differ} of {} answers", items.len());
            }
        }
    }
}

fn row_major_patches(_: &Item, _: &Request, prepared: &mut Prepared) {
    for pixels in &mut prepared.images {
        let (h, w) = (pixels.grid_thw.h as usize, pixels.grid_thw.w as usize);
        let len = pixels.data.len() / (h * w);
        let mut out = vec![0.0; pixels.data.len()];
        let blocks = (0..h).step_by(2).flat_map(|row| (0..w).step_by(2).map(move |column| (row, column)));
        let places = blocks.flat_map(|(r, c)| [(r, c), (r, c + 1), (r + 1, c), (r + 1, c + 1)]);
        for (patch, (row, column)) in pixels.data.chunks_exact(len).zip(places) {
            out[(row * w + column) * len..][..len].copy_from_slice(patch);
        }
        pixels.data = out;
    }
}

fn one_dimensional_positions(_: &Item, _: &Request, prepared: &mut Prepared) {
    let axis: Vec<i64> = (0..prepared.encoded.input_ids.len() as i64).collect();
    prepared.encoded.position_ids = [axis.clone(), axis.clone(), axis];
    prepared.encoded.rope_delta = 0;
}

fn swapped_axes(_: &Item, _: &Request, prepared: &mut Prepared) {
    prepared.encoded.position_ids.swap(1, 2);
}

/// The grid keeps its order, the picture is resized with height and width exchanged.
fn swapped_sides(item: &Item, request: &Request, prepared: &mut Prepared) {
    let picture = image::open(item.image_paths().next().unwrap()).unwrap().to_rgb8();
    let sides = prepared.images[0].resized;
    let turned = image::imageops::resize(&picture, sides.height, sides.width, FilterType::CatmullRom);
    let image = RgbImage::from_dynamic(&turned.into(), AlphaMode::Drop);
    *prepared = replaced(request, &image);
}

fn bgr(item: &Item, _: &Request, prepared: &mut Prepared) {
    let mut picture = image::open(item.image_paths().next().unwrap()).unwrap().to_rgb8();
    picture.pixels_mut().for_each(|p| p.0.reverse());
    let image = RgbImage::from_dynamic(&picture.into(), AlphaMode::Drop);
    let limits = FP32.processor().model_pixel_limits();
    prepared.images[0] =
        Preprocessor::new(PreprocessOptions::default()).unwrap().preprocess_with(&image, limits).unwrap();
}

/// The request prepared with another image.
fn replaced(request: &Request, image: &RgbImage) -> Prepared {
    let mut request = request.clone();
    request.images = vec![image.clone().into()];
    FP32.prepare(&request).unwrap()
}
