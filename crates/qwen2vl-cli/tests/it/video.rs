//! Video files through the command: rows, frames shown, options, what is broken.

use std::path::Path;

use qwen2vl_testkit::video::{ffmpeg, set_rotation};
use serde_json::{Value, json};

use crate::{has_openvino, qwen2vl, run, text};

fn clip(dir: &Path, name: &str, args: &str) -> String {
    let path = dir.join(name);
    ffmpeg(args, &path);
    text(&path)
}

fn shown(arguments: &[&str]) -> Value {
    let ran = run(&[&["inspect"], arguments].concat());
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    ran.rows()[0]["videos"][0].clone()
}

#[test]
fn inspect_shows_which_frames_the_model_would_see() {
    let dir = tempfile::tempdir().unwrap();
    let path = clip(dir.path(), "a.mp4", "-f lavfi -i testsrc2=s=320x240:r=25:d=4 -c:v libx264 {}");
    let video = shown(&[&path]);
    assert_eq!(video["frame_indices"], json!([0, 14, 28, 42, 57, 71, 85, 99]));
    assert_eq!((&video["grid_thw"], &video["tokens"]), (&json!([4, 20, 28]), &json!(560)));
    assert_eq!((&video["size"], &video["sample_fps"]), (&json!([240, 320]), &json!(2.0)));

    let of = |arguments: &[&str]| shown(&[&[path.as_str()], arguments].concat())["frame_indices"].clone();
    assert_eq!(of(&["--video-start", "1", "--video-end", "2"]), json!([25, 33, 42, 50]));
    assert_eq!(of(&["--nframes", "2"]), json!([0, 99]));
    assert_eq!(of(&["--fps", "1"]), json!([0, 33, 66, 99]));
    assert_eq!(of(&["--fps", "5", "--max-frames", "6"]), json!([0, 20, 40, 59, 79, 99]));
    assert_eq!(of(&["--video-sampling", "hf"]).as_array().unwrap().len(), 100);
    assert_eq!(of(&["--video-sampling", "hf", "--fps", "1"]), json!([0, 25, 50, 75]));
    let small = shown(&[&path, "--video-max-pixels", "50176"]);
    assert!(small["tokens"].as_u64().unwrap() < 560 / 2, "{small}");
    let by_variable =
        qwen2vl(&["inspect", &path]).env("QWEN2VL_VIDEO_START", "1").env("QWEN2VL_VIDEO_END", "2").output();
    let object: Value = serde_json::from_slice(&by_variable.unwrap().stdout).unwrap();
    assert_eq!(object["videos"][0]["frame_indices"], json!([25, 33, 42, 50]));

    set_rotation(Path::new(&path), 90);
    assert_eq!(shown(&[&path])["size"], json!([320, 240]));
    let ran = run(&["inspect", &path, "--video-sampling", "hf", "--video-end", "1"]);
    assert!(ran.code == 2 && ran.stderr.contains("video_end") && ran.stderr.contains("hf"), "{}", ran.stderr);
    let ran = run(&["inspect", &path, "--ffmpeg", &text(dir.path())]);
    assert!(ran.code == 2 && ran.stderr.contains("install ffmpeg"), "{}", ran.stderr);
}

#[test]
fn positions_step_by_one_for_each_temporal_patch() {
    let dir = tempfile::tempdir().unwrap();
    let path = clip(dir.path(), "a.mkv", "-f lavfi -i testsrc2=s=128x96:r=5:d=3 -c:v libx264 {}");
    // An odd number of frames: the last temporal patch is one frame, twice.
    let ran = run(&["inspect", &path, "--video-sampling", "hf"]);
    let object = &ran.rows()[0];
    let grid = &object["videos"][0]["grid_thw"];
    assert_eq!(grid[0], 8, "{}", ran.stderr);
    let ids = object["input_ids"].as_array().unwrap();
    let of_video: Vec<i64> = ids
        .iter()
        .zip(object["position_ids"][0].as_array().unwrap())
        .filter(|(id, _)| **id == 151_656)
        .map(|(_, position)| position.as_i64().unwrap())
        .collect();
    let per_patch = of_video.len() / 8;
    for (i, position) in of_video.iter().enumerate() {
        assert_eq!(*position, of_video[0] + (i / per_patch) as i64, "token {i}");
    }
}

#[test]
fn a_folder_of_clips_gives_a_row_for_each_broken_or_not() {
    if !has_openvino() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let source = "-f lavfi -i testsrc2=s=128x96:r=10:d=4 -c:v libx264 -g 10";
    clip(dir.path(), "a.mp4", &format!("{source} {{}}"));
    let cut = clip(dir.path(), "b.mkv", &format!("{source} {{}}"));
    let bytes = std::fs::read(&cut).unwrap();
    std::fs::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
    clip(dir.path(), "c.mp4", "-f lavfi -i sine=d=1 -c:a aac {}");
    std::fs::write(dir.path().join("d.mp4"), "a letter").unwrap();
    clip(dir.path(), "e.gif", "-f lavfi -i testsrc2=s=64x64:r=5:d=1 {}");
    let folder = text(dir.path());
    let annotate = |more: &[&str]| {
        let common = ["annotate", &folder, "-p", "What?", "--format", "jsonl", "--max-new-tokens", "4"];
        run(&[&common, more].concat())
    };
    let ran = annotate(&[]);
    let rows = ran.rows();
    let errors: Vec<&str> =
        rows.iter().map(|row| row["error"]["message"].as_str().unwrap_or_default()).collect();
    assert_eq!((ran.code, rows.len()), (1, 5), "{}", ran.stderr);
    assert!(errors[0].is_empty() && rows[0]["grid_thw"][0][0] == 4, "{}", rows[0]);
    assert!(errors[1].contains("b.mkv: the video is broken: "), "{}", errors[1]);
    assert!(errors[2].contains("no video, only audio"), "{}", errors[2]);
    assert!(errors[3].contains("d.mp4: not a video that can be read"), "{}", errors[3]);
    assert!(errors[4].is_empty(), "an animation is an image unless it is given as a video: {}", errors[4]);
    assert_eq!(rows[1]["error"]["kind"], "video", "{}", rows[1]);

    let rows = annotate(&["--on-broken-video", "keep"]).rows();
    assert_eq!(rows[1]["error"], Value::Null);
    let warning = rows[1]["warnings"][0].as_str().unwrap();
    assert!(warning.contains("of 40 frames are in the file, which ends early"), "{warning}");

    let table = dir.path().join("t.jsonl");
    std::fs::write(&table, "{\"video\": \"a.mp4\"}\n{\"video\": \"e.gif\"}\n").unwrap();
    let ran = run(&["annotate", &text(&table), "--format", "jsonl", "--max-new-tokens", "4"]);
    let grids: Vec<_> = ran.rows().iter().map(|row| row["grid_thw"][0][0].clone()).collect();
    assert_eq!(grids, [4, 2], "{}", ran.stderr);

    let gif = text(&dir.path().join("e.gif"));
    for (more, shown) in [(&[][..], "images"), (&["--animations-as-videos"], "videos")] {
        let ran = run(&[&["inspect", gif.as_str()], more].concat());
        let counts = ["images", "videos"].map(|kind| ran.rows()[0][kind].as_array().map_or(0, Vec::len));
        assert_eq!(counts, if shown == "images" { [1, 0] } else { [0, 1] }, "{}", ran.stderr);
    }
}

#[test]
fn doctor_tells_of_ffmpeg() {
    let ran = run(&["doctor", "--json"]);
    let found = &ran.rows()[0]["ffmpeg"];
    assert!(found["path"].as_str().unwrap().contains("ffmpeg") && found["error"].is_null(), "{found}");
    let missing = qwen2vl(&["doctor"]).env("QWEN2VL_FFMPEG", "/nowhere").output().unwrap();
    let stdout = String::from_utf8_lossy(&missing.stdout);
    assert!(stdout.contains("only video files need it") && stdout.contains("/nowhere"), "{stdout}");
}
