//! Every form of model that packages come in: optimum-intel's and Spark NLP's, weights of 4, 8 and 16 bits.
//!
//! What they answer to pictures is compared with optimum-intel in tests/end_to_end; here, that it does not depend on the
//! way it is computed.

use std::path::PathBuf;

use qwen2vl_runtime::{CancelToken, Engine, EngineKind, EngineOptions, ModelFiles, Prompt};
use qwen2vl_testkit::{check_all, demo_model_dir, demo_spark_models_dir, first_difference, precisions_dir};
use qwen2vl_types::GridThw;

use crate::demo::{ANSWER, WHO, answer, cache, files_in, has_openvino, load};

/// f32 sums in another order: the prefill's pieces change the blocking of matrix products. Logits are up to 30.
const LOGIT_TOLERANCE: f32 = 2e-3;

struct Form {
    name: String,
    files: ModelFiles,
}

/// Both exports as they are, and each model of the precisions in place of its namesake.
fn forms() -> Vec<Form> {
    let (optimum, spark) = (files_in(&demo_model_dir()), files_in(&demo_spark_models_dir()));
    let mut forms = vec![
        Form { name: "optimum".to_owned(), files: optimum.clone() },
        Form { name: "spark".to_owned(), files: spark.clone() },
    ];
    let mut variants: Vec<PathBuf> =
        std::fs::read_dir(precisions_dir()).unwrap().map(|e| e.unwrap().path()).collect();
    variants.retain(|path| path.extension().is_some_and(|e| e == "xml"));
    variants.sort();
    for path in variants {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let mut files = if name.starts_with("spark-") { spark.clone() } else { optimum.clone() };
        let model = if name.contains("-text-") {
            &mut files.text_embeddings
        } else {
            &mut files.vision_embeddings_merger
        };
        *model = path;
        forms.push(Form { name, files });
    }
    assert!(forms.len() >= 9);
    forms
}

fn prefill_logits(engine: &Engine) -> Vec<f32> {
    let axis: Vec<i64> = (0..WHO.len() as i64).collect();
    let position_ids = [axis.clone(), axis.clone(), axis];
    let prompt =
        Prompt { input_ids: WHO, position_ids: &position_ids, rope_delta: 0, images: &[], videos: &[] };
    let mut session = engine.session().unwrap();
    session.prefill(&prompt, &CancelToken::new()).unwrap().expect("nobody cancelled").to_vec()
}

#[test]
fn answers_do_not_depend_on_the_way_they_are_computed() {
    if !has_openvino() {
        return;
    }
    check_all(
        &forms(),
        |form| form.name.clone(),
        |form| {
            let load = |options| load(&form.files, options).map_err(|e| e.to_string());
            let whole = load(EngineOptions::default())?;
            let pieces = load(EngineOptions { prefill_chunk_tokens: 5, ..EngineOptions::default() })?;
            let dir = cache(&form.name);
            let adapted = load(EngineOptions {
                cache_dir: Some(dir.clone()),
                engine: EngineKind::Stateful,
                ..EngineOptions::default()
            })?;
            let graphs = std::fs::read_dir(&dir).unwrap().map(|e| e.unwrap().path());
            let graphs = graphs.filter(|path| path.extension().is_some_and(|e| e == "xml")).count();
            std::fs::remove_dir_all(&dir).unwrap();
            if graphs != 1 {
                return Err(format!("{graphs} graphs are adapted to compute the last logits only"));
            }
            let want = prefill_logits(&whole);
            for (way, engine) in [("whole", &whole), ("in pieces", &pieces), ("last logits only", &adapted)] {
                if let Some(difference) = first_difference(&answer(engine), ANSWER) {
                    return Err(format!("{way}: {difference}"));
                }
                close(&prefill_logits(engine), &want).map_err(|e| format!("{way}: {e}"))?;
            }
            Ok(())
        },
    );
}

#[test]
fn a_video_is_encoded_as_its_frames() {
    if !has_openvino() {
        return;
    }
    let grid = GridThw { t: 3, h: 4, w: 6 };
    let frame = GridThw { t: 1, ..grid };
    let pixels: Vec<f32> = (0..grid.n_patches() * 1176).map(|i| (i as f32 * 0.37).sin() * 2.0).collect();
    check_all(
        &forms(),
        |form| form.name.clone(),
        |form| {
            let engine = load(&form.files, EngineOptions::default()).map_err(|e| e.to_string())?;
            let whole =
                engine.encode_vision(&pixels, grid, &CancelToken::new()).map_err(|e| e.to_string())?;
            let frames: Vec<f32> = pixels
                .chunks(frame.n_patches() * 1176)
                .flat_map(|pixels| engine.encode_vision(pixels, frame, &CancelToken::new()).unwrap().to_f32())
                .collect();
            let whole = whole.to_f32();
            if whole[..128] == whole[128..256] {
                return Err("two tokens of different pixels are the same".to_owned());
            }
            first_difference(&whole, &frames).map_or(Ok(()), Err)?;
            let mut chunks = pixels.chunks(frame.n_patches() * 1176);
            let streamed = engine.encode_slices(grid, &CancelToken::new(), |out| {
                out.copy_from_slice(chunks.next().ok_or("more slices than frames")?);
                Ok::<(), Failure>(())
            });
            let streamed = streamed.map_err(|Failure(e)| e)?;
            first_difference(&whole, &streamed.to_f32()).map_or(Ok(()), Err)?;
            let odd = GridThw { h: 3, ..grid };
            for (grid, fails) in [(odd, "no"), (GridThw { t: 0, ..grid }, "no"), (grid, "its own")] {
                match engine
                    .encode_slices(grid, &CancelToken::new(), |_| Err::<(), _>(Failure("its own".to_owned())))
                {
                    Err(Failure(e)) if (e == "its own") == (fails == "its own") => {}
                    other => return Err(format!("{grid}: {other:?}")),
                }
            }
            Ok(())
        },
    );
}

/// An error of a caller's own that inference's errors become part of.
#[derive(Debug)]
struct Failure(String);

impl From<qwen2vl_runtime::Error> for Failure {
    fn from(error: qwen2vl_runtime::Error) -> Self {
        Self(error.to_string())
    }
}

impl From<&str> for Failure {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

fn close(got: &[f32], want: &[f32]) -> Result<(), String> {
    let far = |(g, w): (&f32, &f32)| (g - w).is_nan() || (g - w).abs() > LOGIT_TOLERANCE;
    match got.iter().zip(want).position(far) {
        Some(i) => Err(format!("logit {i}: got {}, want {} within {LOGIT_TOLERANCE}", got[i], want[i])),
        None if got.len() != want.len() => Err(format!("{} logits, want {}", got.len(), want.len())),
        None => Ok(()),
    }
}
