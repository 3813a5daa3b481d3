//! The engine on the demo model, below images and prompts: text only, and what must not change an answer.

use std::ops::ControlFlow;
use std::path::Path;

use qwen2vl_runtime::{
    CancelToken, Engine, EngineKind, EngineOptions, Error, GenerationConfig, LanguageSession, ModelConfig,
    ModelFiles, Precision, Prompt,
};
use qwen2vl_types::GridThw;

use crate::demo::{ANSWER, answer, cache, config, files, has_openvino, load};

#[test]
fn answers_do_not_depend_on_the_way_they_are_computed() {
    if !has_openvino() {
        return;
    }
    let plain = load(&files(), EngineOptions::default()).unwrap();
    assert_eq!(answer(&plain), ANSWER, "logits of every position");
    assert_eq!(answer(&plain), ANSWER, "a second conversation starts afresh");

    let chunked =
        load(&files(), EngineOptions { prefill_chunk_tokens: 5, ..EngineOptions::default() }).unwrap();
    assert_eq!(answer(&chunked), ANSWER, "prefill in pieces");

    let dir = cache("whole");
    let stateful = EngineOptions { engine: EngineKind::Stateful, ..EngineOptions::default() };
    for start in ["first", "second"] {
        let options = EngineOptions { cache_dir: Some(dir.clone()), ..stateful.clone() };
        let cached = load(&files(), options).unwrap();
        assert_eq!(answer(&cached), ANSWER, "adapted graph, {start} start");
    }
    let kept = std::fs::read_dir(&dir).unwrap().filter(|e| e.as_ref().unwrap().path().extension().is_some());
    let kept: Vec<_> = kept.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(kept.iter().filter(|n| n.ends_with(".xml")).count(), 1, "the adapted graph is used: {kept:?}");
    assert!(kept.iter().filter(|n| n.ends_with(".blob")).count() >= 4, "compiled models are kept: {kept:?}");
    std::fs::remove_dir_all(&dir).unwrap();
}

/// Logits after `ids` in a session of their own.
fn fresh(engine: &Engine, ids: &[u32]) -> Vec<f32> {
    let mut session = engine.session().unwrap();
    prefill(session.as_mut(), ids)
}

fn prefill(session: &mut dyn LanguageSession, ids: &[u32]) -> Vec<f32> {
    let axis: Vec<i64> = (0..ids.len() as i64).collect();
    let position_ids = [axis.clone(), axis.clone(), axis];
    let prompt =
        Prompt { input_ids: ids, position_ids: &position_ids, rope_delta: 0, images: &[], videos: &[] };
    session.prefill(&prompt, &CancelToken::new()).unwrap().expect("nobody cancelled").to_vec()
}

#[test]
fn rows_and_rewound_sessions_are_as_fresh_ones() {
    if !has_openvino() {
        return;
    }
    let options = || EngineOptions { precision: Precision::F32, ..EngineOptions::default() };
    let adapted = EngineOptions { cache_dir: Some(cache("rows")), ..options() };
    for options in [options(), adapted] {
        let engine = load(&files(), options).unwrap();
        let vocab_size = engine.config().vocab_size;
        let mut session = engine.session().unwrap();
        let check = |logits: &[f32], rows: &[&[u32]], step: &str| {
            assert_eq!(logits.len(), rows.len() * vocab_size);
            for (got, ids) in logits.chunks(vocab_size).zip(rows) {
                let want = fresh(&engine, ids);
                // Sums in another order.
                let far = got.iter().zip(&want).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(far < 1e-4, "{step}, {ids:?}: {far}");
            }
        };
        prefill(session.as_mut(), &[40, 41, 42, 43]);
        let logits = session.decode(&[0, 0, 0], &[1, 2, 3], 4).unwrap();
        let row = |last: &[u32]| [&[40, 41, 42, 43], last].concat();
        check(logits, &[&row(&[1]), &row(&[2]), &row(&[3])], "one row becomes three");
        let logits = session.decode(&[2, 0, 2, 1], &[5, 6, 7, 8], 5).unwrap();
        check(logits, &[&row(&[3, 5]), &row(&[1, 6]), &row(&[3, 7]), &row(&[2, 8])], "rows change places");
        let logits = session.decode(&[3, 1], &[10, 11, 12, 13], 6).unwrap();
        check(logits, &[&row(&[2, 8, 10, 11]), &row(&[1, 6, 12, 13])], "two tokens in a step");
        assert_eq!(session.past_tokens(), 8);
        session.rewind(5);
        let logits = session.decode(&[0, 0], &[14, 15], 5).unwrap();
        check(logits, &[&row(&[2, 14]), &row(&[2, 15])], "back in the first row");
        session.rewind(2);
        let logits = prefill(session.as_mut(), &[40, 41, 7, 8, 9]);
        check(&logits, &[&[40, 41, 7, 8, 9]], "another prompt with the same beginning");
        session.rewind(0);
        let logits = prefill(session.as_mut(), &[9, 8]);
        check(&logits, &[&[9, 8]], "from the start");

        let error = session.decode(&[1], &[1], 2).unwrap_err();
        assert!(matches!(error, Error::Rows { rows: 1, tokens: 1, .. }), "{error}");
        assert!(session.decode(&[0, 0], &[1], 2).is_err() && session.decode(&[], &[], 2).is_err());
    }
    std::fs::remove_dir_all(cache("rows")).unwrap();
}

#[test]
fn threads_share_an_engine() {
    if !has_openvino() {
        return;
    }
    let engine = load(&files(), EngineOptions::default()).unwrap();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..3).map(|_| scope.spawn(|| answer(&engine))).collect();
        for worker in workers {
            assert_eq!(worker.join().unwrap(), ANSWER);
        }
    });
}

#[test]
fn prompts_and_pixels_that_do_not_fit_are_errors() {
    if !has_openvino() {
        return;
    }
    let engine = load(&files(), EngineOptions::default()).unwrap();
    let grid = GridThw { t: 1, h: 4, w: 4 };
    let pixels = vec![0.0; 16 * 1176];
    let embeddings = engine.encode_vision(&pixels, grid, &CancelToken::new()).unwrap();
    assert_eq!((embeddings.n_tokens(), embeddings.hidden_size()), (4, 128));
    for (pixels, grid) in [
        (&pixels[1..], grid),
        (&pixels[..], GridThw { t: 1, h: 4, w: 6 }),
        (&pixels[..], GridThw { t: 1, h: 16, w: 1 }),
        (&[][..], GridThw { t: 0, h: 4, w: 4 }),
        (&[][..], GridThw { t: u32::MAX, h: u32::MAX, w: u32::MAX }),
    ] {
        let error = engine.encode_vision(pixels, grid, &CancelToken::new()).unwrap_err();
        assert!(matches!(error, Error::PixelValues { .. }), "{grid}");
    }

    let run = |ids: &[u32], positions: usize, images: &[_]| {
        let axis: Vec<i64> = (0..positions as i64).collect();
        let position_ids = [axis.clone(), axis.clone(), axis];
        let prompt =
            Prompt { input_ids: ids, position_ids: &position_ids, rope_delta: 0, images, videos: &[] };
        let mut ignore = |_| ControlFlow::Continue(());
        engine.generate(&prompt, &GenerationConfig::default(), &CancelToken::new(), &mut ignore).unwrap_err()
    };
    let images = [embeddings];
    assert!(run(&[1, 151_655, 2], 3, &images).to_string().contains("1 image placeholder tokens"));
    assert!(run(&[1, 2], 2, &images).to_string().contains("have 4 rows"));
    assert!(run(&[1, 151_656], 2, &[]).to_string().contains("1 video placeholder"));
    assert!(matches!(run(&[1, 2], 3, &[]), Error::Positions { ids: 2, positions: 3 }));
    assert!(matches!(run(&[151_936], 1, &[]), Error::TokenId { id: 151_936, .. }));
}

#[test]
fn models_and_options_that_do_not_fit_are_errors_that_say_what() {
    if !has_openvino() {
        return;
    }
    let (files, config) = (files(), config());
    let load = |files: &ModelFiles, config: &ModelConfig, options: EngineOptions| {
        Engine::load(files, config, &options).err().expect("it must not load").to_string()
    };
    let missing =
        ModelFiles { language_model: "nowhere/openvino_language_model.xml".into(), ..files.clone() };
    assert!(load(&missing, &config, EngineOptions::default()).contains("nowhere"));

    let swapped = ModelFiles { text_embeddings: files.vision_embeddings.clone(), ..files.clone() };
    let error = load(&swapped, &config, EngineOptions::default());
    assert!(error.contains("text_embeddings") && error.contains("hidden_states"), "{error}");

    let mut wide = config.clone();
    wide.text.hidden_size = 256;
    let error = load(&files, &wide, EngineOptions::default());
    assert!(error.contains("128") && error.contains("256"), "{error}");

    let error = load(&files, &config, EngineOptions { device: "TPU".to_owned(), ..EngineOptions::default() });
    assert!(error.contains("TPU") && error.contains("CPU"), "{error}");
    let error = load(&files, &config, EngineOptions { threads: Some(0), ..EngineOptions::default() });
    assert!(error.contains("threads is 0"), "{error}");

    let damaged = std::env::temp_dir().join(format!("qwen2vl-damaged-{}.xml", std::process::id()));
    std::fs::write(&damaged, "<?xml version=\"1.0\"?><net name=\"x\" version=\"11\"><layers>").unwrap();
    std::fs::write(damaged.with_extension("bin"), [0; 8]).unwrap();
    let broken = ModelFiles { text_embeddings: damaged.clone(), ..files };
    let error = load(&broken, &config, EngineOptions::default());
    assert!(error.contains("qwen2vl-damaged"), "{error}");
    for path in [&damaged, Path::new(&damaged.with_extension("bin"))] {
        std::fs::remove_file(path).unwrap();
    }
}

#[test]
fn encoding_ends_where_it_is_cancelled_and_leaves_the_engine_as_it_was() {
    if !has_openvino() {
        return;
    }
    for precision in [Precision::Fast, Precision::F32] {
        let options = EngineOptions { precision, ..EngineOptions::default() };
        let engine = Engine::load(&files(), &config(), &options).unwrap();
        let grid = GridThw { t: 3, h: 8, w: 8 };
        let pixels: Vec<f32> = (0..grid.n_patches() * 1176).map(|i| (i as f32 * 0.37).sin()).collect();
        let encode = |cancel: &CancelToken| engine.encode_vision(&pixels, grid, cancel);
        let want = encode(&CancelToken::new()).unwrap().to_f32();

        let cancelled = CancelToken::new();
        cancelled.cancel();
        assert!(matches!(encode(&cancelled), Err(Error::Cancelled)));

        // While the second frame is prepared; the third is not asked for.
        let (cancel, mut frames) = (CancelToken::new(), 0);
        let streamed = engine.encode_slices(grid, &cancel, |out: &mut [f32]| {
            out.copy_from_slice(&pixels[frames * out.len()..][..out.len()]);
            frames += 1;
            if frames == 2 {
                cancel.cancel();
            }
            Ok::<(), Error>(())
        });
        assert!(matches!(streamed, Err(Error::Cancelled)) && frames == 2, "{frames}");

        // From another thread, at whatever point it is.
        for round in 0..8u64 {
            let cancel = CancelToken::new();
            let result = std::thread::scope(|scope| {
                let encoding = scope.spawn(|| encode(&cancel));
                std::thread::sleep(std::time::Duration::from_micros(round * 500));
                cancel.cancel();
                encoding.join().unwrap()
            });
            match result {
                Ok(embeddings) => assert!(embeddings.to_f32() == want, "{precision:?} {round}"),
                Err(error) => assert!(matches!(error, Error::Cancelled), "{error}"),
            }
        }
        assert!(encode(&CancelToken::new()).unwrap().to_f32() == want, "{precision:?}");
    }
}
