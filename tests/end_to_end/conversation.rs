//! Conversations: as fresh runs of all their messages, with nothing computed twice; cancelled and failed turns.

use std::ops::ControlFlow;

use qwen2vl_pipeline::{
    Annotation, CancelToken, Conversation, FinishReason, Message, Request, RequestOptions,
};

use crate::set::{ALONE, FP32, INT4, Item, SET, has_openvino};

/// The answer of a fresh run to all that was said before the last answer.
fn fresh(conversation: &Conversation<'_>, turns: &[Request]) -> Annotation {
    let said = conversation.messages();
    let mut request = Request::messages(said[..said.len() - 1].to_vec());
    request.images = turns.iter().flat_map(|turn| turn.images.clone()).collect();
    request.videos = turns.iter().flat_map(|turn| turn.videos.clone()).collect();
    FP32.run(&request).unwrap()
}

/// Turns of every kind: images, text alone, two images at once, a video.
fn turns() -> Vec<Request> {
    let with_image = || SET.iter().map(|(item, _)| item).filter(|item| item.images.len() == 1);
    let several = SET.iter().map(|(item, _)| item).find(|item| item.images.len() > 1).unwrap();
    let video = SET.iter().map(|(item, _)| item).find(|item| !item.video.is_empty()).unwrap();
    vec![
        Request::question("Hello"),
        with_image().next().unwrap().request(),
        Request::question("What else is there?"),
        several.request(),
        with_image().nth(9).unwrap().request(),
        video.request(),
        Request::question(&with_image().next().unwrap().question),
    ]
}

#[test]
fn each_turn_is_as_a_fresh_run_and_computes_only_what_is_new() {
    if !has_openvino() {
        return;
    }
    let mut conversation = FP32.conversation().unwrap();
    let turns = turns();
    let mut before = 0;
    for (i, turn) in turns.iter().enumerate() {
        let answer = conversation.ask(turn).unwrap();
        let want = fresh(&conversation, &turns[..=i]);
        assert_eq!(
            (answer.token_ids, answer.prompt_tokens, answer.finish_reason),
            (want.token_ids, want.prompt_tokens, want.finish_reason),
            "turn {i}"
        );
        assert_eq!(answer.boxes.map(|b| b.boxes.len()), want.boxes.map(|b| b.boxes.len()), "turn {i}");
        // All of the turn before but the tokens that end it, which are not run until something follows.
        assert!(answer.cached_tokens + 2 >= before, "turn {i}: {} of {before}", answer.cached_tokens);
        before = answer.prompt_tokens;
    }
    assert_eq!(conversation.messages().len(), 2 * turns.len());
}

#[test]
fn an_answer_of_other_tokens_than_its_text_is_run_again() {
    if !has_openvino() {
        return;
    }
    // An answer cut by a stop string has tokens that its text has not.
    let mut options = RequestOptions::default();
    options.stop_strings = Some(vec!["e".to_owned()]);
    let turn =
        SET.iter().find(|(item, _)| item.answer.find('e').is_some_and(|at| at > 0)).unwrap().0.request();
    let mut conversation = FP32.conversation().unwrap();
    let first = conversation.ask(&turn.clone().options(options)).unwrap();
    assert!(first.finish_reason == FinishReason::Stop && !first.result.contains('e'));
    assert!(!first.token_ids.is_empty());
    let turns = [turn, Request::question("Is that so?")];
    let answer = conversation.ask(&turns[1]).unwrap();
    assert_eq!(answer.token_ids, fresh(&conversation, &turns).token_ids);
}

#[test]
fn a_turn_that_fails_or_is_cancelled_at_once_leaves_the_conversation_as_it_was() {
    if !has_openvino() {
        return;
    }
    let images: Vec<&Item> = SET.iter().map(|(item, _)| item).filter(|i| i.images.len() == 1).collect();
    let mut conversation = ALONE.conversation().unwrap().system("Answer.");
    conversation.ask(&images[0].request()).unwrap();
    let said = conversation.messages().to_vec();

    let missing = Request::question("What is this?").image("no-such-file.png");
    assert_eq!(conversation.ask(&missing).unwrap_err().kind(), "io");
    assert_eq!(conversation.ask(&Request::raw("Hello")).unwrap_err().kind(), "prompt");
    let mut options = RequestOptions::default();
    options.temperature = Some(-1.0);
    let turn = Request::question("Hello").options(options);
    assert_eq!(conversation.ask(&turn).unwrap_err().kind(), "options");

    let cancel = CancelToken::new();
    cancel.cancel();
    let all = |_: &str| ControlFlow::Continue(());
    let answer = conversation.ask_stream(&images[1].request(), &cancel, all).unwrap();
    assert_eq!((answer.finish_reason, answer.result.as_str()), (FinishReason::Cancelled, ""));
    assert_eq!(conversation.messages(), said);

    // What was cancelled had the same tokens for another picture.
    let answer = conversation.ask(&images[2].request()).unwrap();
    let mut undisturbed = ALONE.conversation().unwrap().system("Answer.");
    undisturbed.ask(&images[0].request()).unwrap();
    let want = undisturbed.ask(&images[2].request()).unwrap();
    assert_eq!((answer.token_ids, answer.cached_tokens), (want.token_ids, want.cached_tokens));
}

#[test]
fn a_cancelled_answer_keeps_its_words_and_reset_forgets_all() {
    if !has_openvino() {
        return;
    }
    let mut conversation = ALONE.conversation().unwrap();
    let turn = SET.iter().find(|(item, golden)| item.images.len() == 1 && golden.int4.ids.len() > 3).unwrap();
    let whole = conversation.ask(&turn.0.request()).unwrap();
    conversation.reset();
    assert_eq!(conversation.messages(), []);
    let mut deltas = 0;
    let answer = conversation.ask_stream(&turn.0.request(), &CancelToken::new(), |_| {
        deltas += 1;
        if deltas == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let answer = answer.unwrap();
    assert_eq!((answer.finish_reason, answer.cached_tokens), (FinishReason::Cancelled, 0));
    assert!(whole.result.starts_with(&answer.result) && answer.result.len() < whole.result.len());
    assert_eq!(conversation.messages()[1], Message::assistant(&answer.result));
    assert!(conversation.ask(&Request::question("Go on.")).unwrap().cached_tokens > 0);

    let mut options = RequestOptions::default();
    options.do_sample = Some(true);
    options.top_k = Some(0);
    options.seed = Some(3);
    conversation.reset();
    let drawn = conversation.ask(&turn.0.request().options(options.clone())).unwrap();
    assert_eq!(drawn.token_ids, INT4.run(&turn.0.request().options(options)).unwrap().token_ids);
}
