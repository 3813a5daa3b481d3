"""Times Hugging Face's fast Qwen2-VL image processor by the protocol of the example preprocess_timing.

    python hf_preprocess.py --check                print the versions, or say what is missing and exit 3
    python hf_preprocess.py [--images DIR] [--rounds N]

Reads 640x480.jpg, 1920x1080.jpg and 4032x3024.jpg, which the example makes; both programs take target/preprocess-bench
if no folder is given. One JSON line per case, source and thread count, in milliseconds an image:
{"case", "from": "rgb" or "jpeg", "threads", "wall_ms", "cpu_ms"}.
"""
import argparse
import io
import json
import pathlib
import sys
import time

CASES = [(640, 480), (1920, 1080), (4032, 3024)]
BATCH_CASE, BATCH = (1920, 1080), 8
FOLDER = pathlib.Path(__file__).resolve().parents[2] / "target" / "preprocess-bench"


def check():
    try:
        import PIL
        import torch
        import torchvision
        import transformers
        from transformers import Qwen2VLImageProcessorFast  # noqa: F401
    except ImportError as error:
        print(f"{error} ({sys.executable})", file=sys.stderr)
        sys.exit(3)
    modules = dict(transformers=transformers, torch=torch, torchvision=torchvision, pillow=PIL)
    print(json.dumps({name: module.__version__ for name, module in modules.items()}))


class Times:
    def __init__(self, case, source, threads):
        self.line = {"case": case, "from": source, "threads": threads, "wall_ms": [], "cpu_ms": []}

    def measure(self, work, images=1):
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        self.line["cpu_ms"].append(round((time.process_time() - cpu) * 1e3 / images, 3))
        self.line["wall_ms"].append(round((time.perf_counter() - wall) * 1e3 / images, 3))

    def print(self):
        print(json.dumps(self.line), flush=True)


def bench(folder, rounds):
    import torch
    from PIL import Image, ImageOps
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
                rgb.measure(lambda: from_rgb([image] * BATCH), BATCH)
                jpeg.measure(lambda: from_rgb([load(data) for _ in range(BATCH)]), BATCH)
            rgb.print()
            jpeg.print()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--images", type=pathlib.Path, metavar="DIR", help="folder with the JPEG files", default=FOLDER)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    if args.check:
        check()
    else:
        bench(args.images, args.rounds)


if __name__ == "__main__":
    main()
