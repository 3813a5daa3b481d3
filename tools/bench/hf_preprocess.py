"""Times Hugging Face's fast Qwen2-VL image processor by the protocol of the example preprocess_timing.

    python hf_preprocess.py [--images DIR] [--rounds N]
    python hf_preprocess.py --make DIR

Reads 640x480.jpg, 1920x1080.jpg and 4032x3024.jpg and makes those that are missing; both programs take
target/preprocess-bench if no folder is given.
One JSON line per case, source and thread count: {"case", "from": "rgb" or "jpeg", "threads", "wall_ms", "cpu_ms"}.
"""
import argparse
import io
import json
import pathlib
import time

import numpy as np
from PIL import Image, ImageOps

CASES = [(640, 480), (1920, 1080), (4032, 3024)]
BATCH_CASE, BATCH = (1920, 1080), 8
FOLDER = pathlib.Path(__file__).resolve().parents[2] / "target" / "preprocess-bench"


def make(folder):
    """Noise with the spectrum of photographs (1/f), seeded."""
    folder.mkdir(parents=True, exist_ok=True)
    for width, height in CASES:
        if (folder / f"{width}x{height}.jpg").exists():
            continue
        rng = np.random.default_rng(width)
        frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
        frequency[0, 0] = 1
        channels = []
        for _ in range(3):
            noise = np.fft.irfft2(np.fft.rfft2(rng.normal(size=(height, width))) / frequency**1.2, s=(height, width))
            channels.append(128 + 48 * (noise - noise.mean()) / noise.std())
        # Luminance is shared for the most part, as in photographs.
        rgb = np.stack([0.8 * channels[0] + 0.2 * channels[i] for i in range(3)], -1).clip(0, 255).astype(np.uint8)
        Image.fromarray(rgb).save(folder / f"{width}x{height}.jpg", quality=85)


class Times:
    def __init__(self, case, source, threads):
        self.line = {"case": case, "from": source, "threads": threads, "wall_ms": [], "cpu_ms": []}

    def measure(self, work):
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        self.line["cpu_ms"].append(round((time.process_time() - cpu) * 1e3, 3))
        self.line["wall_ms"].append(round((time.perf_counter() - wall) * 1e3, 3))

    def print(self):
        print(json.dumps(self.line), flush=True)


def bench(folder, rounds):
    import torch
    from transformers import Qwen2VLImageProcessorFast

    torch.set_num_threads(1)
    processor = Qwen2VLImageProcessorFast(min_pixels=3136, max_pixels=12845056)
    from_rgb = lambda images: processor(images=images, return_tensors="pt")

    def load(data):
        return ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")

    for width, height in CASES:
        case = f"{width}x{height}"
        data = (folder / f"{case}.jpg").read_bytes()
        image = load(data)
        from_rgb(image)
        rgb, jpeg = Times(case, "rgb", 1), Times(case, "jpeg", 1)
        for _ in range(rounds):
            rgb.measure(lambda: from_rgb(image))
            jpeg.measure(lambda: from_rgb(load(data)))
        rgb.print()
        jpeg.print()
        if (width, height) == BATCH_CASE:
            rgb, jpeg = (Times(f"batch of {BATCH} {case}", source, 1) for source in ("rgb", "jpeg"))
            for _ in range(rounds):
                rgb.measure(lambda: from_rgb([image] * BATCH))
                jpeg.measure(lambda: from_rgb([load(data) for _ in range(BATCH)]))
            rgb.print()
            jpeg.print()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--make", type=pathlib.Path, metavar="DIR", help="write the JPEG files and stop")
    parser.add_argument("--images", type=pathlib.Path, metavar="DIR", help="folder with the JPEG files", default=FOLDER)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    make(args.make or args.images)
    if not args.make:
        bench(args.images, args.rounds)


if __name__ == "__main__":
    main()
