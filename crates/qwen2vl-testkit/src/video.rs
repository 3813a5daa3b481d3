//! Clips for tests, made by ffmpeg on the spot: a committed clip would prove one encoder, and cost bytes.

use std::path::Path;
use std::process::Command;

/// Runs ffmpeg; `args` are separated by spaces, and `{}` stands for the path that is written.
///
/// # Panics
///
/// If there is no ffmpeg, or it fails.
pub fn ffmpeg(args: &str, path: &Path) {
    let name = path.to_str().expect("test paths are UTF-8");
    let args: Vec<String> = args.split_whitespace().map(|arg| arg.replace("{}", name)).collect();
    let output = Command::new("ffmpeg")
        .args(["-nostdin", "-hide_banner", "-v", "error", "-y"])
        .args(&args)
        .output()
        .expect("the tests of videos need ffmpeg: apt-get install ffmpeg");
    assert!(output.status.success(), "ffmpeg {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// All frames of a clip as ffmpeg gives them in one go: the size of a frame and the bytes of all, 24-bit RGB.
///
/// # Panics
///
/// If there is no ffmpeg, or it fails.
pub fn all_frames(path: &Path) -> Vec<u8> {
    let output = Command::new("ffmpeg")
        .args(["-nostdin", "-v", "error", "-i"])
        .arg(path)
        .args(["-map", "0:v:0", "-fps_mode", "passthrough", "-sws_flags", "bicubic"])
        .args(["-pix_fmt", "rgb24", "-f", "rawvideo", "-"])
        .output()
        .expect("the tests of videos need ffmpeg: apt-get install ffmpeg");
    output.stdout
}

/// Sets the display matrix of an MP4's only video to a clockwise turn by 0, 90, 180 or 270 degrees.
///
/// # Panics
///
/// If the file has no track header.
pub fn set_rotation(path: &Path, degrees: u32) {
    let mut bytes = std::fs::read(path).expect("the clip was just made");
    let header = bytes.windows(4).position(|w| w == b"tkhd").expect("an MP4 has a track header");
    // Behind type, version, flags, times, id, duration, layer, group and volume of version 0.
    let at = header + 4 + 40;
    let one = 0x1_0000_i32;
    let [a, b, c, d] = match degrees {
        90 => [0, one, -one, 0],
        180 => [-one, 0, 0, -one],
        270 => [0, -one, one, 0],
        _ => [one, 0, 0, one],
    };
    for (i, value) in [(0, a), (1, b), (3, c), (4, d)] {
        bytes[at + 4 * i..][..4].copy_from_slice(&value.to_be_bytes());
    }
    std::fs::write(path, bytes).expect("the clip can be written");
}
