//! What must not change an answer: batches, streaming, threads, the form of the input, messages instead of a question.

use std::ops::ControlFlow;

use qwen2vl_pipeline::{
    CancelToken, FinishReason, ImageSizing, Message, Request, RequestOptions, parse_messages,
};

use crate::set::{INT4, SET, has_openvino};

/// Every fifth item: all tasks are among them.
fn some() -> Vec<(Request, String)> {
    let items = SET.iter().step_by(5);
    items.map(|(item, _)| (item.request(), INT4.run(&item.request()).unwrap().result)).collect()
}

#[test]
fn a_batch_answers_as_single_requests_and_a_bad_one_costs_only_itself() {
    if !has_openvino() {
        return;
    }
    let singles = some();
    let mut requests: Vec<Request> = singles.iter().map(|(request, _)| request.clone()).collect();
    requests.insert(3, Request::question("What is this?").image("no-such-file.png"));
    let mut results = Vec::new();
    INT4.run_all(requests.into_iter().map(Ok), &CancelToken::new(), |index, result| {
        assert_eq!(index, results.len());
        results.push(result);
        ControlFlow::Continue(())
    });
    let error = results.remove(3).unwrap_err();
    assert_eq!(error.kind(), "io");
    assert!(error.to_string().contains("no-such-file.png"), "{error}");
    let texts: Vec<String> = results.into_iter().map(|r| r.unwrap().result).collect();
    assert_eq!(texts, singles.iter().map(|(_, text)| text.clone()).collect::<Vec<_>>());
}

#[test]
fn streamed_deltas_are_the_answer() {
    if !has_openvino() {
        return;
    }
    for (request, want) in some() {
        let mut streamed = String::new();
        let annotation = INT4
            .run_stream(&request, &CancelToken::new(), |delta| {
                assert!(!delta.is_empty());
                streamed.push_str(delta);
                ControlFlow::Continue(())
            })
            .unwrap();
        assert_eq!((&streamed, &annotation.result), (&want, &want));
        assert_eq!(annotation.finish_reason, FinishReason::Stop);
    }
}

#[test]
fn two_threads_share_an_annotator() {
    if !has_openvino() {
        return;
    }
    let singles = some();
    std::thread::scope(|scope| {
        for offset in 0..2 {
            let singles = &singles;
            scope.spawn(move || {
                for (request, want) in singles.iter().cycle().skip(offset * 7).take(singles.len()) {
                    assert_eq!(&INT4.run(request).unwrap().result, want);
                }
            });
        }
    });
}

#[test]
fn path_bytes_pixels_and_messages_are_the_same_question() {
    if !has_openvino() {
        return;
    }
    let (item, _) = SET.iter().find(|(item, _)| item.task == "caption").unwrap();
    let path = item.image_paths().next().unwrap();
    let want = INT4.annotate(path.as_path(), &item.question).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let dynamic = image::load_from_memory(&bytes).unwrap();
    let raw = dynamic.to_rgb8();
    let raw = qwen2vl_pipeline::RgbImage::new(raw.height(), raw.width(), raw.into_raw()).unwrap();
    let escaped: String = bytes.iter().map(|byte| format!("%{byte:02x}")).collect();
    let (data_url, file_url) =
        (format!("data:image/png,{escaped}"), format!("file://localhost{}", path.display()));
    assert_eq!(INT4.annotate(bytes, &item.question).unwrap().token_ids, want.token_ids);
    assert_eq!(INT4.annotate(file_url, &item.question).unwrap().token_ids, want.token_ids);
    assert_eq!(INT4.annotate(data_url.as_str(), &item.question).unwrap().token_ids, want.token_ids);
    assert_eq!(INT4.annotate(&dynamic, &item.question).unwrap().token_ids, want.token_ids);
    assert_eq!(INT4.annotate(raw, &item.question).unwrap().token_ids, want.token_ids);

    for source in [path.to_str().unwrap(), &data_url] {
        let messages = serde_json::json!([{ "role": "user", "content": [
            { "type": "image", "image": source }, { "type": "text", "text": item.question },
        ]}]);
        let messages: Vec<Message> = parse_messages(&messages.to_string()).unwrap();
        assert_eq!(INT4.annotate_messages(&messages).unwrap().token_ids, want.token_ids);
    }
}

#[test]
fn answers_end_where_they_are_told() {
    if !has_openvino() {
        return;
    }
    let (item, golden) = SET.iter().find(|(_, golden)| golden.int4.ids.len() > 5).unwrap();
    let mut options = RequestOptions::default();
    options.max_new_tokens = Some(3);
    let short = INT4.run(&item.request().options(options)).unwrap();
    assert_eq!((short.finish_reason, short.token_ids.len()), (FinishReason::Length, 3));

    let mut deltas = 0;
    let stopped = INT4.run_stream(&item.request(), &CancelToken::new(), |_| {
        deltas += 1;
        if deltas == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let stopped = stopped.unwrap();
    assert_eq!(stopped.finish_reason, FinishReason::Cancelled);
    assert!(
        golden.int4.ids.starts_with(&stopped.token_ids) && stopped.token_ids.len() < golden.int4.ids.len()
    );

    let cancel = CancelToken::new();
    cancel.cancel();
    let nothing = INT4.run_stream(&item.request(), &cancel, |_| ControlFlow::Continue(())).unwrap();
    assert_eq!((nothing.finish_reason, nothing.result.as_str()), (FinishReason::Cancelled, ""));
}

#[test]
fn seeded_sampling_repeats_itself() {
    if !has_openvino() {
        return;
    }
    let (item, _) = SET.iter().find(|(item, _)| item.task == "caption").unwrap();
    let sample = |seed| {
        let mut options = RequestOptions::default();
        options.do_sample = Some(true);
        options.temperature = Some(3.0);
        options.top_k = Some(50);
        options.top_p = Some(1.0);
        options.seed = Some(seed);
        options.max_new_tokens = Some(20);
        INT4.run(&item.request().options(options)).unwrap().token_ids
    };
    assert_eq!(sample(1), sample(1));
    assert!((2..6).any(|seed| sample(seed) != sample(1)), "five seeds, one answer");
}

#[test]
fn each_image_of_a_prompt_has_its_own_limits() {
    let (item, _) = SET.iter().find(|(item, _)| item.images.len() == 2).unwrap();
    let paths: Vec<_> = item.image_paths().collect();
    let grids = |request: &Request| -> Vec<_> {
        let media = INT4.processor().prepare(request).unwrap().media;
        media.iter().map(|m| (m.resized, m.grid_thw)).collect()
    };
    let alone = |path: &std::path::Path, options: RequestOptions| {
        grids(&Request::question("What?").image(path).options(options))[0]
    };
    let mut small = RequestOptions::default();
    small.max_pixels = Some(28 * 28 * 4);
    let want = [alone(&paths[0], small.clone()), alone(&paths[1], RequestOptions::default())];
    assert_ne!(want[0], alone(&paths[0], RequestOptions::default()));

    let mut sizing = ImageSizing::default();
    sizing.max_pixels = small.max_pixels;
    let given = Request::question("What?").image_sized(paths[0].as_path(), sizing).image(paths[1].as_path());
    assert_eq!(grids(&given), want);
    let json = serde_json::json!([{ "role": "user", "content": [
        { "type": "image", "image": paths[0], "max_pixels": 28 * 28 * 4 },
        { "type": "image", "image": paths[1] },
        { "type": "image", "image": paths[1], "resized_height": 57, "resized_width": 100 },
        { "type": "text", "text": "What?" } ] }]);
    let messages = Request::messages(parse_messages(&json.to_string()).unwrap());
    let got = grids(&messages);
    assert_eq!(got[..2], want);
    // As an image of that size would be: 56 x 112.
    assert_eq!((got[2].0.height, got[2].0.width, got[2].1.n_patches()), (56, 112, 32));
    if has_openvino() {
        let shown = INT4.run(&messages).unwrap();
        assert_eq!(shown.media.len(), 3);
    }
}
