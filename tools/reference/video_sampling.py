"""Goldens of frame sampling: which frames of a video are chosen, how large they become, and the grid.

    pip install --no-deps qwen-vl-utils==0.0.14
    python tools/reference/video_sampling.py

Reference: `fetch_video` of qwen-vl-utils with its torchcodec reader, and `Qwen2VLVideoProcessor` of Hugging Face
transformers. Both run whole, on videos without pixels (torch's meta device). The grid of qwen-vl-utils is that of its
result given to the processor with the limits of Qwen2-VL-2B-Instruct.

Writes tests/golden/video-sampling, a line for each case: [[frames, fps, height, width], options, result]. The result is
the name of the reference's exception or [frames chosen, last one, CRC-32 of all as 32-bit little-endian numbers,
sample fps, grid_thw]; the fps is text, since not every reader of JSON gives all digits. A sixth element, IndexError,
says that the reference chose one frame more, the one behind the last, on which it fails.
"""
import contextlib
import importlib.machinery
import io
import os
import random
import sys
import types
import zlib

import common
import numpy as np

os.environ["FORCE_QWENVL_VIDEO_READER"] = "torchcodec"
os.environ.pop("MODEL_SEQ_LEN", None)

import torch
import transformers
from qwen_vl_utils import vision_process
from transformers import Qwen2VLVideoProcessor
from transformers.video_utils import VideoMetadata

AREA = "video-sampling"
PACKAGES = ["transformers", "torch", "torchvision", "numpy", "qwen-vl-utils"]
N_RANDOM = 640
CLASS, MODEL = (128 * 784, 768 * 784), (3136, 12845056)
PATCH = 14


def frames(count, height, width):
    return torch.empty((count, 3, height, width), dtype=torch.uint8, device="meta")


class VideoDecoder:
    """Stands for torchcodec's: it knows a video's numbers and has frames without pixels."""

    def __init__(self, video, num_ffmpeg_threads):
        total, fps, self.height, self.width = map(float, video.split())
        self.metadata = types.SimpleNamespace(average_fps=fps, num_frames=int(total))

    def get_frames_at(self, indices):
        self.indices = indices
        if not 0 <= min(indices) <= max(indices) < self.metadata.num_frames:
            raise IndexError(indices)
        return types.SimpleNamespace(data=frames(len(indices), int(self.height), int(self.width)))


def install_decoder():
    for name in ["torchcodec", "torchcodec.decoders"]:
        module = sys.modules[name] = types.ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
    sys.modules["torchcodec.decoders"].VideoDecoder = VideoDecoder
    # After an error the package tries this one, which would hide the first error.
    readers = vision_process.VIDEO_READER_BACKENDS
    readers["torchvision"] = readers["torchcodec"]


def result(indices, sample_fps, size, grid):
    if list(size) != [PATCH * side for side in grid[1:]]:
        sys.exit(f"frames of {size}, but a grid of {grid}")
    packed = np.asarray(indices, dtype="<u4").tobytes()
    return [len(indices), int(indices[-1]), f"{zlib.crc32(packed):08x}", repr(float(sample_fps)), grid]


def qwen_vl_utils(video, options):
    element = dict(video=" ".join(map(repr, video)), **options)
    (clip, metadata), sample_fps = vision_process.fetch_video(
        element, return_video_sample_fps=True, return_video_metadata=True)
    if 0 in clip.shape:
        raise RuntimeError("an empty clip, on which resizing fails when it has pixels")
    size = dict(shortest_edge=MODEL[0], longest_edge=MODEL[1])
    grid = Qwen2VLVideoProcessor()(videos=[clip], size=size, return_tensors="pt")["video_grid_thw"][0].tolist()
    return result(metadata["frames_indices"], sample_fps, clip.shape[2:], grid)


def hf(video, options):
    total, fps, height, width = video
    options = dict(options)
    low, high = options.pop("pixel_limits", CLASS)
    sample = options != {}
    output = Qwen2VLVideoProcessor()(
        videos=[frames(total, height, width)],
        video_metadata=[VideoMetadata(total_num_frames=total, fps=fps)],
        do_sample_frames=sample,
        size=dict(shortest_edge=low, longest_edge=high),
        return_metadata=True,
        return_tensors="pt",
        **options,
    )
    grid = output["video_grid_thw"][0].tolist()
    indices = output["video_metadata"][0].frames_indices if sample else torch.arange(total)
    wanted = lambda chosen: result(chosen, len(chosen) / total * fps, [PATCH * side for side in grid[1:]], grid)
    try:
        # Frames without pixels have no last one; reading those of a real video does this.
        torch.empty(total)[indices]
    except IndexError:
        # The step was rounded down and there is an index too many. Kept is what the others are.
        if indices.tolist().index(total) != len(indices) - 1:
            sys.exit(f"more than one index past the end: {video} {options}")
        grid[0] = len(indices) // 2
        return [*wanted(indices[:-1].tolist()), IndexError.__name__]
    # The reference names no rate; this is how qwen-vl-utils computes it.
    return wanted(indices.tolist())


def run(function, cases):
    rows = []
    for video, options in cases:
        try:
            with contextlib.redirect_stderr(io.StringIO()):
                wanted = function(video, options)
        except (ValueError, AssertionError, ZeroDivisionError, RuntimeError) as error:
            wanted = type(error).__name__
        rows.append([video, options, wanted])
    return rows


def videos(rng):
    """Random numbers as videos have them: half of them clips up to a minute, the rest up to ten hours."""
    rates = [25, 30, 24, 60, 50, 15, 10, 29.97, 23.976, 59.94, 12.5, 8, 1, 120]
    sizes = [(720, 1280), (1080, 1920), (480, 640), (360, 640), (2160, 3840), (1280, 720), (240, 320), (576, 720)]
    for i in range(N_RANDOM):
        total = int(2 ** (rng.uniform(1.6, 11) if i % 2 else rng.uniform(6, 20)))
        fps = rng.choice(rates) if rng.random() < 0.7 else round(rng.uniform(0.5, 144), 3)
        side = lambda: int(2 ** rng.uniform(5, 12))
        yield [total, fps, *(rng.choice(sizes) if rng.random() < 0.5 else (side(), side()))]


def random_qwen(rng, video):
    options, (total, fps, _, _) = {}, video
    if rng.random() < 0.6:
        kind = rng.randrange(3)
        if kind == 0:
            options["nframes"] = rng.randrange(2, min(total, 900) + 2)
        elif kind == 1:
            options["fps"] = rng.choice([0.1, 0.5, 1, 1.5, 3, 4, 10, 30, round(rng.uniform(0.05, 12), 2)])
        for name, values in [("min_frames", (1, 2, 5, 16, 64)), ("max_frames", (2, 7, 16, 32, 180, 2000))]:
            if kind > 0 and rng.random() < 0.3:
                options[name] = rng.choice(values)
    for name, low, high in [("min_pixels", 10, 17), ("max_pixels", 16, 21), ("total_pixels", 19, 28)]:
        if rng.random() < 0.2:
            options[name] = int(2 ** rng.uniform(low, high))
    if rng.random() < 0.3:
        start, end = sorted(round(rng.uniform(-0.1, 1.1) * total / fps, 2) for _ in range(2))
        options |= rng.choice([dict(video_start=start, video_end=end), dict(video_start=start), dict(video_end=end)])
    if rng.random() < 0.05:
        options |= dict(resized_height=rng.randrange(1, 2000), resized_width=rng.randrange(20, 2000))
    return options


def random_hf(rng, video):
    options, total = {}, video[0]
    kind = rng.randrange(10)
    if kind < 4:
        options["num_frames"] = rng.randrange(2, min(total, 900) + 2)
    elif kind < 9 or total > 4000:
        options["fps"] = rng.choice([0.5, 1, 2, 2, 2, 3, 5, 30, round(rng.uniform(0.05, 12), 2)])
        for name, values in [("min_frames", (1, 2, 5, 16, 64)), ("max_frames", (3, 7, 16, 32, 180, 2000))]:
            if rng.random() < 0.3:
                options[name] = rng.choice(values)
    if rng.random() < 0.5:
        options["pixel_limits"] = rng.choice([MODEL, (3136, 100352), (50176, 401408)])
    return options


def edge_videos():
    hd = (720, 1280)
    yield from ([n, fps, *hd] for n in range(1, 12) for fps in (25, 0.5))
    yield from ([n, 30, *hd] for n in (767, 768, 769, 11519, 11520, 11521, 46080))
    yield from ([250, fps, *hd] for fps in (1e-3, 1e6, 0.0))
    sizes = [(1, 200), (1, 201), (200, 1), (28, 28), (10, 10), (70, 70), (27, 257), (4320, 7680), (14, 2800)]
    yield from ([90, 30, *size] for size in sizes)


def edges_qwen():
    yield from ((video, {}) for video in edge_videos())
    video = [250, 25, 720, 1280]
    yield from ((video, dict(nframes=n)) for n in (0, 1, 2, 3, 5, 6, 7, 9, 248, 249, 250, 251))
    yield from ((video, dict(min_frames=a, max_frames=b)) for a in (0, 1, 3, 50) for b in (1, 2, 3, 30))
    yield from ((video, dict(fps=fps, min_frames=least)) for fps in (1e-9, 0.1, 1e9) for least in (0, 1, 4))
    yield (video, dict(fps=2, nframes=4))
    times = [(0, None), (None, 10), (0, 10), (9.96, None), (10, None), (4, 4), (4, 4.01), (4, 4.04), (4, 4.08), (5, 3)]
    times += [(-3, 2), (3, 99), (99, 100)]
    for start, end in times:
        yield video, {k: v for k, v in dict(video_start=start, video_end=end).items() if v is not None}
    long = [46080, 30, 720, 1280]
    for which in (video, long):
        yield from ((which, dict(max_pixels=n)) for n in (100, 100351, 100352, 105369, 10**9))
        yield from ((which, dict(total_pixels=n)) for n in (0, 1, 10**6, 24576 * 784, 10**12))
        yield from ((which, dict(min_pixels=n)) for n in (0, 1, 784, 602112, 10**7))
        yield which, dict(min_pixels=0, total_pixels=0)
    yield [90, 30, 28, 5600], dict(min_pixels=784, max_pixels=3136)
    sizes = [(100, 100), (1, 200), (1, 201), (9000, 9000), (14, 42)]
    yield from ((video, dict(resized_height=h, resized_width=w)) for h, w in sizes)


def edges_hf():
    yield from ((video, dict(fps=2)) for video in edge_videos())
    yield from ((video, {}) for video in edge_videos() if video[0] < 12)
    video = [250, 25, 720, 1280]
    yield from ((video, dict(num_frames=n)) for n in (0, 1, 2, 3, 5, 6, 7, 9, 248, 249, 250, 251))
    yield from ((video, dict(fps=2, min_frames=a, max_frames=b)) for a in (0, 1, 3, 50) for b in (1, 2, 3, 30))
    yield from ((video, dict(fps=fps, min_frames=least)) for fps in (1e-9, 0.1, 1e9) for least in (0, 1, 4))
    yield (video, dict(fps=2, num_frames=4))
    # The step is rounded down, so that there is an index more than asked for.
    yield from (([n, 25, 240, 320], dict(num_frames=m)) for n, m in ((59, 58), (49, 44), (17, 14), (749, 748), (10841, 612)))


def main():
    if torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
        sys.exit("torch.linspace rounds otherwise on a processor without AVX2")
    transformers.logging.set_verbosity_error()
    vision_process.logger.disabled = True
    install_decoder()
    folder = common.GOLDEN / AREA
    folder.mkdir(parents=True, exist_ok=True)
    counts = {}
    for function, choose, edges in [(qwen_vl_utils, random_qwen, edges_qwen), (hf, random_hf, edges_hf)]:
        # Both references get the same videos.
        rng = random.Random(1)
        cases = [(video, choose(rng, video)) for video in list(videos(random.Random(2)))] + list(edges())
        rows = run(function, cases)
        common.write_jsonl(folder / f"{function.__name__}.jsonl", rows)
        errors = sum(isinstance(row[2], str) for row in rows)
        past_end = sum(row[2][5:] == [IndexError.__name__] for row in rows)
        edges_done = len(rows) - N_RANDOM
        counts[function.__name__] = dict(random=N_RANDOM, edges=edges_done, errors=errors, past_end=past_end)
    common.write_manifest(AREA, PACKAGES, counts=counts)
    print(counts)


if __name__ == "__main__":
    main()
