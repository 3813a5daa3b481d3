//! Boxes of whole answers: the same streamed, without special tokens in the text, and in the image that is named.

use std::ops::ControlFlow;

use qwen2vl_pipeline::{AnswerBox, BoxEvent, BoxForms, BoxParser, CancelToken, Corners, Request};
use qwen2vl_testkit::check_all;

use crate::set::{INT4, Item, SET, has_openvino};

fn items() -> Vec<&'static Item> {
    SET.iter().map(|(item, _)| item).filter(|item| item.task == "box").collect()
}

#[test]
fn streamed_and_plain_answers_have_the_boxes_of_whole_ones() {
    if !has_openvino() {
        return;
    }
    check_all(
        &items(),
        |item| item.id.to_string(),
        |item| {
            let whole = INT4.run(&item.request()).map_err(|e| e.to_string())?;
            let boxes = whole.boxes.ok_or("no boxes")?;
            let media = &whole.media;

            // As the text comes.
            let mut parser = BoxParser::new(BoxForms::Marked);
            let mut streamed = Vec::new();
            INT4.run_stream(&item.request(), &CancelToken::new(), |delta| {
                streamed.extend(parser.push(delta));
                ControlFlow::Continue(())
            })
            .map_err(|e| e.to_string())?;
            streamed.extend(parser.finish());
            let placed = streamed.into_iter().map(|event| match event {
                BoxEvent::Box(found) => Ok(found.in_image(0, media[0].size)),
                other => Err(format!("{other:?}")),
            });
            let placed = placed.collect::<Result<Vec<AnswerBox>, _>>()?;
            if placed != boxes.boxes {
                return Err(format!("streamed {placed:?}, whole {:?}", boxes.boxes));
            }

            // Without special tokens in the text, also where a stop string ends it.
            let mut request = item.request();
            request.options.skip_special_tokens = Some(true);
            let plain = INT4.run(&request).map_err(|e| e.to_string())?;
            if plain.result.contains("<|") || plain.boxes.as_ref() != Some(&boxes) {
                return Err(format!("plain {:?}: {:?}", plain.result, plain.boxes));
            }
            request.options.stop_strings = Some(vec!["),(".to_owned()]);
            let stopped = INT4.run(&request).map_err(|e| e.to_string())?.boxes.ok_or("nothing")?;
            let [cut] = &stopped.malformed[..] else { return Err(format!("{stopped:?}")) };
            if !stopped.boxes.is_empty() || cut.reason != "cut off" || cut.text.contains("),(") {
                return Err(format!("{stopped:?}"));
            }

            request.options.boxes = Some(BoxForms::Off);
            let off = INT4.run(&request).map_err(|e| e.to_string())?.boxes;
            off.map_or(Ok(()), |boxes| Err(format!("{boxes:?}")))
        },
    );
}

#[test]
fn a_question_chooses_the_image() {
    if !has_openvino() {
        return;
    }
    let items = items();
    let (first, second) = (&items[0].request().images[0], &items[items.len() - 1].request().images[0]);
    let ask = |question: &str| {
        let mut request = Request::question(question);
        request.images = vec![first.clone(), second.clone()];
        // Whatever it says about two pictures: here it has to say a box.
        request.options.boxes = Some(BoxForms::Any);
        INT4.run(&request).unwrap()
    };
    for (question, image) in [("Find the blue circle.", 0), ("Find the blue circle in Picture 2.", 1)] {
        let annotation = ask(question);
        let boxes = annotation.boxes.unwrap();
        assert!(!boxes.boxes.is_empty(), "{}", annotation.result);
        for one in boxes.boxes {
            let size = annotation.media[image].size;
            let Corners { x2, y2, .. } = one.bbox_1000;
            assert_eq!(one.image, image, "{question}");
            assert_eq!(one.bbox.x2, x2 * f64::from(size.width) / 1000.0);
            assert_eq!(one.bbox.y2, y2 * f64::from(size.height) / 1000.0);
        }
    }
}
