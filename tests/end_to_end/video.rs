//! Video files, frames and animations: the same pixels are the same answer, and frames flow through in a stream.

use std::ops::ControlFlow;
use std::path::Path;

use qwen2vl_pipeline::{
    CancelToken, FinishReason, ImageInput, ImageSize, Message, OnBroken, Request, RgbImage, VideoInput,
    VideoOptions, parse_messages,
};
use qwen2vl_testkit::first_difference;
use qwen2vl_testkit::video::{all_frames, ffmpeg};

use crate::set::{INT4, has_openvino};

fn frames_of(path: &Path, size: ImageSize, indices: &[u64]) -> VideoInput {
    let all = all_frames(path);
    let bytes = size.pixels() as usize * 3;
    let frame = |index: &u64| {
        let pixels = all[*index as usize * bytes..][..bytes].to_vec();
        ImageInput::Rgb(RgbImage::new(size.height, size.width, pixels).unwrap())
    };
    indices.iter().map(frame).collect()
}

#[test]
fn a_file_is_the_same_question_as_its_frames() {
    if !has_openvino() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.mp4");
    ffmpeg("-f lavfi -i testsrc2=s=168x112:r=25:d=3 -c:v libx264 -g 20 {}", &path);
    let mut limits = VideoOptions::default();
    limits.max_pixels = Some(168 * 112);
    let file = Request::question("What moves?").video(VideoInput::file(&path).options(limits.clone()));
    let prepared = INT4.prepare(&file).unwrap();
    let selection = prepared.videos[0].selection().clone();
    assert_eq!(selection.frame_indices, [0, 15, 30, 44, 59, 74]);
    let size = prepared.media[0].size;
    limits.min_pixels = Some(1);
    let frames = frames_of(&path, size, &selection.frame_indices).options(limits);
    let listed = Request::question("What moves?").video(frames);
    let same = INT4.prepare(&listed).unwrap();
    assert_eq!(same.encoded, prepared.encoded);
    let (got, want) = (prepared.videos[0].pixel_values().unwrap(), same.videos[0].pixel_values().unwrap());
    assert_eq!((got.grid_thw, got.resized), (want.grid_thw, want.resized));
    assert_eq!(first_difference(&got.data, &want.data), None);
    let (got, want) = (INT4.run(&file).unwrap(), INT4.run(&listed).unwrap());
    assert_eq!((got.token_ids, got.warnings), (want.token_ids, want.warnings));

    // The same file by a message, with qwen-vl-utils' keys, and two frames of it.
    let message = serde_json::json!([{ "role": "user", "content": [
        { "type": "video", "video": path, "nframes": 2, "max_pixels": 168 * 112 },
        { "type": "text", "text": "What moves?" }] }]);
    let messages: Vec<Message> = parse_messages(&message.to_string()).unwrap();
    let prepared = INT4.prepare(&Request::messages(messages)).unwrap();
    assert_eq!(prepared.videos[0].selection().frame_indices, [0, 74]);
}

#[test]
fn an_animation_is_sampled_as_a_video_is() {
    if !has_openvino() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.gif");
    ffmpeg("-f lavfi -i testsrc2=s=64x64:r=5:d=4 {}", &path);
    let request = Request::question("What moves?").video(VideoInput::animation(path.as_path()));
    let prepared = INT4.prepare(&request).unwrap();
    let selection = prepared.videos[0].selection();
    assert_eq!(selection.frame_indices, [0, 3, 5, 8, 11, 14, 16, 19]);
    let pixels = prepared.videos[0].pixel_values().unwrap();
    let slice = pixels.data.len() / 4;
    assert!(pixels.data[..slice] != pixels.data[slice..2 * slice], "it moves");
    assert!(!INT4.run(&request).unwrap().token_ids.is_empty());
    let still = dir.path().join("still.gif");
    ffmpeg("-f lavfi -i testsrc2=s=64x64:r=5 -frames:v 1 {}", &still);
    let error =
        INT4.prepare(&Request::question("?").video(VideoInput::animation(still.as_path()))).unwrap_err();
    assert!(error.to_string().contains("still.gif: 1 frames to choose from"), "{error}");
}

#[test]
fn frames_that_cannot_be_decoded_are_told_or_refused() {
    if !has_openvino() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.mov");
    ffmpeg("-f lavfi -i testsrc2=s=128x96:r=4:d=2 -c:v png {}", &path);
    let mut bytes = std::fs::read(&path).unwrap();
    let second = bytes.windows(8).enumerate().filter(|(_, w)| *w == b"\x89PNG\r\n\x1a\n").nth(2).unwrap().0;
    bytes[second..][..64].fill(0);
    std::fs::write(&path, bytes).unwrap();
    let mut options = VideoOptions::default();
    options.nframes = Some(8);
    let asking = |options: &VideoOptions| {
        INT4.run(&Request::question("What?").video(VideoInput::file(&path).options(options.clone())))
    };
    let error = asking(&options).unwrap_err();
    assert_eq!(error.kind(), "video");
    assert!(error.to_string().contains("2 of 8 chosen frames could be decoded"), "{error}");
    options.on_broken = Some(OnBroken::KeepDecoded);
    let answer = asking(&options).unwrap();
    assert_eq!(answer.warnings.len(), 1);
    assert!(
        answer.warnings[0].contains("a.mov: 7 of 8 chosen frames could be decoded"),
        "{:?}",
        answer.warnings
    );
}

#[test]
fn frames_of_different_sizes_and_none_are_errors() {
    if !has_openvino() {
        return;
    }
    let image = |height, width| {
        ImageInput::Rgb(RgbImage::new(height, width, vec![9; (height * width * 3) as usize]).unwrap())
    };
    let frames: VideoInput = [image(56, 56), image(56, 84)].into_iter().collect();
    let error = INT4.run(&Request::question("What?").video(frames)).unwrap_err().to_string();
    assert_eq!(error, "video 1: frame 1 is 84x56, but frame 0 is 56x56: frames need one size");
    let none: VideoInput = std::iter::empty::<ImageInput>().collect();
    let error = INT4.run(&Request::question("What?").video(none)).unwrap_err().to_string();
    assert_eq!(error, "video 1: a video needs at least one frame, but has none");
}

#[test]
fn a_cancelled_video_ends_before_its_last_frame() {
    if !has_openvino() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.mp4");
    ffmpeg("-f lavfi -i testsrc2=s=128x96:r=25:d=4 -c:v libx264 {}", &path);
    let request = Request::question("What?").video(VideoInput::file(&path));
    let cancel = CancelToken::new();
    cancel.cancel();
    let answer = INT4.run_stream(&request, &cancel, |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(answer.finish_reason, FinishReason::Cancelled);
    assert_eq!(answer.result, "");
}

#[test]
fn as_many_frames_as_the_context_holds_are_taken_unless_someone_says_how_many() {
    if !has_openvino() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("long.mkv");
    ffmpeg("-f lavfi -i testsrc2=size=56x56:rate=2 -t 60 -c:v png {}", &path);
    let mut request = Request::question("What is this?").video(VideoInput::file(&path));
    request.options.max_input_tokens = Some(6000);
    let prepared = INT4.processor().prepare(&request).unwrap();
    let taken = prepared.videos[0].selection().frame_indices.len();
    let tokens = prepared.encoded.input_ids.len();
    assert!(taken < 120 && (5000..=6000).contains(&tokens), "{taken} frames, {tokens} tokens");
    assert!(prepared.warnings[0].contains("max_frames"), "{:?}", prepared.warnings);
    request.options.video.fps = Some(2.0);
    assert_eq!(INT4.processor().prepare(&request).unwrap_err().kind(), "context");
}
