//! The vision cache: what it gives is what would have been computed, and what it cannot give is.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use qwen2vl_pipeline::{
    Annotation, Annotator, AnnotatorBuilder, CancelToken, Labels, Precision, Request, RequestOptions,
    Sampling, VideoInput, VideoOptions, VisionCacheOptions,
};
use qwen2vl_testkit::{demo_model_dir, demo_model_fp32_dir, image};

use crate::set::{self, SET, has_openvino};

/// A cache folder of one test; models are compiled into the usual one.
fn root() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    #[cfg(unix)]
    {
        let compiled = qwen2vl_package::cache_root().unwrap().join("compiled");
        std::fs::create_dir_all(&compiled).unwrap();
        std::os::unix::fs::symlink(compiled, root.path().join("compiled")).unwrap();
    }
    root
}

fn builder(model: &Path, root: &Path, cache: VisionCacheOptions) -> AnnotatorBuilder {
    Annotator::builder().package(set::package(model)).cache_root(root).vision_cache(cache)
}

fn on_disk() -> VisionCacheOptions {
    let mut options = VisionCacheOptions::default().disk_bytes(1 << 30);
    options.memory_bytes = 0;
    options
}

fn entries(root: &Path) -> Vec<PathBuf> {
    let folders = std::fs::read_dir(root.join("vision")).unwrap().map(|f| f.unwrap());
    let folders = folders.filter(|f| f.file_name().len() == 2);
    folders.flat_map(|f| std::fs::read_dir(f.path()).unwrap().map(|e| e.unwrap().path())).collect()
}

/// Every seventh item: all tasks are among them, several images and videos too.
fn requests() -> Vec<Request> {
    SET.iter().step_by(7).map(|(item, _)| item.request()).collect()
}

/// What must not depend on a cache.
fn answer(annotation: &Annotation) -> (&[u32], usize) {
    (&annotation.token_ids, annotation.prompt_tokens)
}

#[test]
fn answers_are_the_same_to_the_token_whether_computed_or_found_in_memory_or_on_disk() {
    if !has_openvino() {
        return;
    }
    let (root, requests) = (root(), requests());
    assert!(requests.iter().any(|r| r.images.len() > 1) && requests.iter().any(|r| !r.videos.is_empty()));
    for precision in [Precision::Fast, Precision::F32] {
        let load =
            |cache| builder(&demo_model_dir(), root.path(), cache).precision(precision).build().unwrap();
        let run = |annotator: &Annotator| -> Vec<Annotation> {
            requests.iter().map(|request| annotator.run(request).unwrap()).collect()
        };
        let want = run(&load(VisionCacheOptions::off()));
        assert!(want.iter().all(|answer| answer.cached_vision == 0));
        let check = |what: &str, got: &[Annotation], all_known: bool| {
            for (i, (got, want)) in got.iter().zip(&want).enumerate() {
                assert_eq!(answer(got), answer(want), "{what}, {precision:?}, item {i}");
                if all_known {
                    assert_eq!(got.cached_vision, got.media.len(), "{what}, {precision:?}, item {i}");
                }
            }
        };
        let both = load(VisionCacheOptions::default().disk_bytes(1 << 30));
        let first = run(&both);
        check("first", &first, false);
        assert_eq!(first[0].cached_vision, 0);
        check("from memory", &run(&both), true);
        check("from disk", &run(&load(on_disk())), true);
    }
}

#[test]
fn damaged_entries_are_computed_again() {
    if !has_openvino() {
        return;
    }
    let (root, request) = (root(), SET[0].0.request());
    let annotator = builder(&demo_model_dir(), root.path(), on_disk()).build().unwrap();
    let want = annotator.run(&request).unwrap();
    let [path] = &entries(root.path())[..] else { panic!("{:?}", entries(root.path())) };
    let whole = std::fs::read(path).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 4;
    for damaged in [&flipped[..], &whole[..whole.len() - 1], &whole[..20], &[], &[7; 5000]] {
        std::fs::write(path, damaged).unwrap();
        let got = annotator.run(&request).unwrap();
        assert_eq!((answer(&got), got.cached_vision), (answer(&want), 0));
        assert!(std::fs::read(path).unwrap() == whole, "it is not whole again");
        assert_eq!(annotator.run(&request).unwrap().cached_vision, 1);
    }
}

#[test]
fn other_limits_models_and_precisions_share_nothing() {
    if !has_openvino() {
        return;
    }
    let root = root();
    let item = &SET.iter().find(|(item, _)| item.images.len() == 1).unwrap().0;
    let known = |annotator: &Annotator, request: &Request| annotator.run(request).unwrap().cached_vision;
    let load = |model: &Path| builder(model, root.path(), on_disk());
    let annotator = load(&demo_model_dir()).build().unwrap();
    assert_eq!(known(&annotator, &item.request()), 0);
    assert_eq!(known(&annotator, &item.request()), 1);

    let mut small = RequestOptions::default();
    small.max_pixels = Some(28 * 28 * 4);
    let small = item.request().options(small);
    assert_eq!((known(&annotator, &small), known(&annotator, &small)), (0, 1));
    // A limit that changes nothing is none.
    let mut large = RequestOptions::default();
    large.max_pixels = Some(annotator.processor().model_pixel_limits().max_pixels - 1);
    assert_eq!(known(&annotator, &item.request().options(large)), 1);

    let other = load(&demo_model_fp32_dir()).build().unwrap();
    let precise = load(&demo_model_dir()).precision(Precision::F32).build().unwrap();
    for annotator in [&other, &precise] {
        assert_eq!((known(annotator, &item.request()), known(annotator, &item.request())), (0, 1));
    }
    // The same model from elsewhere is the same.
    let copy = root.path().join("copy");
    std::fs::create_dir(&copy).unwrap();
    for file in std::fs::read_dir(demo_model_dir()).unwrap().map(|f| f.unwrap()) {
        std::fs::copy(file.path(), copy.join(file.file_name())).unwrap();
    }
    assert_eq!(known(&load(&copy).build().unwrap(), &item.request()), 1);
}

#[test]
fn many_questions_about_an_image_cost_one_run_of_the_vision_tower() {
    if !has_openvino() {
        return;
    }
    let root = root();
    let cache = VisionCacheOptions::default();
    let annotator = builder(&demo_model_dir(), root.path(), cache).build().unwrap();
    let image = SET.iter().find(|(item, _)| item.images.len() == 1).unwrap().0.image_paths().next().unwrap();
    let questions = ["Describe the image.", "What color?", "What shape?", "How many?", "What is left?"];
    let requests = questions.map(|q| Ok(Request::question(q).image(image.as_path())));
    let mut known = 0;
    annotator.run_all(requests, &CancelToken::new(), |_, result| {
        known += result.unwrap().cached_vision;
        ControlFlow::Continue(())
    });
    assert_eq!(known, questions.len() - 1);

    let request = Request::question("Describe the image.").image(image.as_path());
    // Who prepares by hand may change the pixels: nothing of that is found or kept.
    let answers = |change: &dyn Fn(&mut f32)| {
        let mut prepared = annotator.prepare(&request).unwrap();
        prepared.images[0].data.iter_mut().for_each(change);
        let run = |_: &str| ControlFlow::Continue(());
        annotator.run_prepared(&request, &prepared, &CancelToken::new(), run).unwrap()
    };
    let (same, negative, known) =
        (answers(&|_| {}), answers(&|v| *v = -*v), annotator.run(&request).unwrap());
    assert_eq!((same.cached_vision, negative.cached_vision, known.cached_vision), (0, 0, 1));
    assert_eq!(same.token_ids, known.token_ids);
    assert_ne!(negative.token_ids, known.token_ids);
    let labels = Labels::new(annotator.processor().tokenizer(), &["star", "circle"]).unwrap();
    let scores = annotator.score_request(&request, &labels, &CancelToken::new()).unwrap().unwrap();
    assert_eq!(scores.cached_vision, 1);

    let mut conversation = annotator.conversation().unwrap();
    assert_eq!(conversation.ask(&request).unwrap().cached_vision, 1);
    assert_eq!(conversation.ask(&Request::question("And?")).unwrap().cached_vision, 0);
}

#[test]
fn videos_are_known_by_their_content_and_the_choice_of_frames() {
    if !has_openvino() {
        return;
    }
    let root = root();
    let annotator = builder(&demo_model_dir(), root.path(), on_disk()).build().unwrap();
    let known = |video: VideoInput| {
        let request = Request::question("What happens?").video(video);
        annotator.run(&request).unwrap().cached_vision
    };
    let animation = |path: &Path| VideoInput::animation(path);
    assert_eq!((known(animation(&image("animated.gif"))), known(animation(&image("animated.gif")))), (0, 1));
    let copy = root.path().join("copy.gif");
    std::fs::copy(image("animated.gif"), &copy).unwrap();
    assert_eq!(known(animation(&copy)), 1);
    let mut all = VideoOptions::default();
    all.sampling = Some(Sampling::Hf);
    assert_eq!(known(animation(&copy).options(all)), 0);
    let mut larger = VideoOptions::default();
    larger.min_pixels = Some(200_000);
    assert_eq!(known(animation(&copy).options(larger)), 0);
    std::fs::copy(image("animated.webp"), &copy).unwrap();
    assert_eq!(known(animation(&copy)), 0);

    let frames = |names: &[&str]| names.iter().map(|name| image(name)).collect::<VideoInput>();
    let [a, b, c] = ["frame_0.png", "frame_1.png", "frame_2.png"];
    assert_eq!((known(frames(&[a, b])), known(frames(&[a, b]))), (0, 1));
    assert_eq!((known(frames(&[b, a])), known(frames(&[a, b, c])), known(frames(&[a]))), (0, 0, 0));
}
