"""Writes tests/golden/video: small clips, and the frames that torchcodec and PyAV decode of them.

torchcodec fails at the last frame of an MPEG transport stream, so there is none here.

Needs ffmpeg with libx264 and libvpx on PATH, and av 18.1.0, torchcodec 0.17.0, torch and pillow. torchcodec is the reader
that qwen-vl-utils 0.0.14 prefers; it decodes with the ffmpeg that is installed. PyAV brings an ffmpeg of its own.
"""
import importlib.metadata
import subprocess

import av
import numpy
from PIL import Image
from torchcodec.decoders import VideoDecoder

from common import GOLDEN, write_jsonl, write_manifest

AREA = GOLDEN / "video"
SOURCE = "-f lavfi -i testsrc2=s=48x32:r=25:d=1"
CLIPS = {
    "plain.mp4": f"{SOURCE} -c:v libx264 -g 10",
    "television.mp4": "-f lavfi -i testsrc2=s=48x32:r=30000/1001 -frames:v 31 -c:v libx264",
    "bt709.mp4": f"{SOURCE} -vf scale=out_color_matrix=bt709 -colorspace bt709 -color_primaries bt709 -color_trc bt709"
    " -c:v libx264",
    "full_range.mp4": f"{SOURCE} -vf scale=out_range=full -color_range pc -c:v libx264",
    "variable.mkv": f"{SOURCE} -vf select='not(mod(n,3))+not(mod(n,5))' -fps_mode vfr -c:v libx264",
    "ten_bits.mkv": f"{SOURCE} -pix_fmt yuv420p10le -c:v libx264",
    "full_color.mkv": f"{SOURCE} -pix_fmt yuv444p -c:v libx264",
    "web.webm": f"{SOURCE} -c:v libvpx-vp9 -b:v 60k",
}

def with_pyav(path, indices):
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return len(frames), [frames[index] for index in indices]

def main():
    AREA.mkdir(parents=True, exist_ok=True)
    for old in AREA.iterdir():
        old.unlink()
    rows = []
    for name, args in CLIPS.items():
        path = AREA / name
        command = ["ffmpeg", "-nostdin", "-v", "error", "-y", *args.split(), "-threads", "1", "-fflags", "+bitexact"]
        subprocess.run([*command, "-flags", "+bitexact", str(path)], check=True)
        decoder = VideoDecoder(str(path))
        count = decoder.metadata.num_frames
        indices = [count * 2 // 3]
        frames = decoder.get_frames_at(indices).data.permute(0, 2, 3, 1).numpy()
        others, by_pyav = with_pyav(path, indices)
        assert others == count, (name, others, count)
        difference = max(int(numpy.abs(a.astype(int) - b).max()) for a, b in zip(frames, by_pyav))
        mean = max(float(numpy.abs(a.astype(int) - b).mean()) for a, b in zip(frames, by_pyav))
        images = []
        for index, frame in zip(indices, frames):
            images.append(f"{path.stem}_{index}.png")
            Image.fromarray(frame).save(AREA / images[-1], optimize=True)
        rows.append(dict(
            clip=name, n_frames=count, fps=decoder.metadata.average_fps, indices=indices, images=images,
            pyav_max_difference=difference, pyav_mean_difference=round(mean, 3),
        ))
        print(rows[-1], path.stat().st_size)
    write_jsonl(AREA / "frames.jsonl", rows)
    ffmpeg = subprocess.run(["ffmpeg", "-version"], check=True, capture_output=True, text=True).stdout.split()[2]
    write_manifest("video", ["av", "torchcodec", "torch", "pillow", "numpy"], ffmpeg=ffmpeg)

if __name__ == "__main__":
    main()
