//! Vision embeddings and first-token logits against transformers fp32, within stated tolerances.

use qwen2vl_pipeline::{DecodeOptions, Processor};
use qwen2vl_runtime::{CancelToken, Engine, EngineOptions, Precision, Prompt, VisionEmbeddings};
use qwen2vl_testkit::{check_all, demo_model_dir, demo_model_fp32_dir, golden, read_json};
use serde::Deserialize;

use crate::set::{SET, has_openvino, package};

/// The same arithmetic in another order: f32 sums over at most 1176 terms through three blocks.
const VISION_TOLERANCE: f32 = 2e-3;
/// The same through the whole model; logits are up to 30.
const LOGIT_TOLERANCE: f32 = 1e-2;

fn load() -> (Processor, Engine) {
    let package = package(&demo_model_fp32_dir());
    let options = EngineOptions { precision: Precision::F32, ..EngineOptions::default() };
    let engine = Engine::load(&package.files, &package.model, &options).unwrap();
    (Processor::new(package, DecodeOptions::default()).unwrap(), engine)
}

#[test]
fn vision_embeddings_and_first_logits_are_close_to_transformers() {
    #[derive(Deserialize)]
    struct Vision {
        id: u32,
        grids: Vec<[u32; 3]>,
        shape: [usize; 2],
        head: Vec<Vec<f32>>,
    }
    if !has_openvino() {
        return;
    }
    let (processor, engine) = load();
    let visions: Vec<Vision> = read_json(&golden("end_to_end/vision.json"));
    assert!(visions.len() >= 3);
    check_all(
        &SET,
        |(item, _)| format!("item {}", item.id),
        |(item, golden)| {
            let prepared = processor.prepare(&item.request()).map_err(|e| e.to_string())?;
            let encode = |pixels: &[qwen2vl_pipeline::PixelValues]| {
                let one = |p: &qwen2vl_pipeline::PixelValues| {
                    engine.encode_vision(&p.data, p.grid_thw, &CancelToken::new()).unwrap()
                };
                pixels.iter().map(one).collect::<Vec<_>>()
            };
            let videos: Vec<_> = prepared.videos.iter().map(|v| v.pixel_values().unwrap()).collect();
            let (images, videos) = (encode(&prepared.images), encode(&videos));
            if let Some(vision) = visions.iter().find(|v| v.id == item.id) {
                let grids: Vec<[u32; 3]> = prepared.media.iter().map(|m| m.grid_thw.into()).collect();
                assert_eq!(grids, vision.grids);
                let rows: Vec<f32> =
                    images.iter().chain(&videos).flat_map(VisionEmbeddings::to_f32).collect();
                assert_eq!(rows.len(), vision.shape[0] * vision.shape[1]);
                for (row, want) in rows.chunks_exact(vision.shape[1]).zip(&vision.head) {
                    close(&row[..want.len()], want, VISION_TOLERANCE)?;
                }
            }
            let prompt = Prompt {
                input_ids: &prepared.encoded.input_ids,
                position_ids: &prepared.encoded.position_ids,
                rope_delta: prepared.encoded.rope_delta,
                images: &images,
                videos: &videos,
            };
            let mut session = engine.session().unwrap();
            let logits = session.prefill(&prompt, &CancelToken::new()).unwrap().expect("nobody cancelled");
            let (got, want): (Vec<f32>, Vec<f32>) =
                golden.hf.first.iter().map(|&(id, want)| (logits[id as usize], want)).unzip();
            close(&got, &want, LOGIT_TOLERANCE)
        },
    );
}

#[test]
fn products_and_attention_of_images_are_our_own_where_the_processor_has_what_they_need() {
    if !has_openvino() {
        return;
    }
    let package = package(&demo_model_dir());
    for precision in [Precision::Fast, Precision::F32] {
        let options = EngineOptions { precision, ..EngineOptions::default() };
        let engine = Engine::load(&package.files, &package.model, &options).unwrap();
        let identity = engine.vision_identity();
        assert_eq!(identity.ends_with("own products and attention"), options.has_kernels(), "{identity}");
    }
}

fn close(got: &[f32], want: &[f32], tolerance: f32) -> Result<(), String> {
    match got.iter().zip(want).position(|(g, w)| (g - w).abs().is_nan() || (g - w).abs() > tolerance) {
        Some(i) => Err(format!("value {i}: got {}, want {} within {tolerance}", got[i], want[i])),
        None => Ok(()),
    }
}
