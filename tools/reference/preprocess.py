"""Goldens of the preprocessing layer: pixel_values of images and videos, sizes, and what truncation does.

    python preprocess.py

Reference: Hugging Face transformers 4.57.6 (`load_image`, `Qwen2VLImageProcessorFast`, `Qwen2VLVideoProcessor`,
`smart_resize`) with torchvision and Pillow, on the pictures of tests/images and of the demo model. Writes
tests/golden/preprocess. One deviation on purpose: 16-bit grey is scaled to 8 bits before the reference sees it.
"""
import hashlib
import io
import random
import zlib

import common
import numpy as np
import torch
from PIL import Image, ImageFile
from transformers import Qwen2VLImageProcessorFast, Qwen2VLVideoProcessor
from transformers.image_utils import load_image
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

OUT = common.GOLDEN / "preprocess"
IMAGES = common.ROOT / "tests" / "images"
MODEL, CLASS = (3136, 12845056), (3136, 1003520)
LIMITS = [CLASS, (3136, 200704), (200704, 401408), (50176, 50176), (3136, 3136)]
# All limits for these; the model's own for every picture.
MANY_LIMITS = ["rocket.jpg", "coffee_444.jpg", "cat_progressive.jpg", "astronaut.png", "cat_lossless.webp", "scene_640x480.jpg",
               "scene_480x640_422.jpg", "scene_350x350.jpg", "size_257x27.png", "size_600x3.png", "exif_6.jpg", "cat.gif"]
ERRORS = ["aspect_201x1.png"]
DEMO = ["eval/box_00.png", "eval/count_03.png", "eval/digits_01.png", "eval/caption_02.png"]


def load(path):
    """The reference's RGB image; 16-bit grey scaled as 16-bit colour is."""
    raw = Image.open(path)
    if raw.mode.startswith("I"):
        return Image.fromarray((np.asarray(raw).astype(np.uint16) >> 8).astype(np.uint8)).convert("RGB")
    return load_image(str(path))


def digest(array):
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def expected(pixels, grid):
    """The hash of all values, and of a few rows their checksum and first values, to find a first difference."""
    pixels = pixels.numpy().astype("<f4")
    rows = sorted({0, 1, 2, len(pixels) // 3, len(pixels) // 2, len(pixels) - 1} & set(range(len(pixels))))
    sample = [dict(row=r, crc32=zlib.crc32(pixels[r].tobytes()), first=[float(v) for v in pixels[r, :4]]) for r in rows]
    return dict(grid_thw=[int(v) for v in grid], sha256=digest(pixels), rows=sample)


def image_case(path, limits, processor, **options):
    image = load(path)
    result = processor(images=image, min_pixels=limits[0], max_pixels=limits[1], return_tensors="pt",
                       **{k: v for k, v in options.items()})
    return dict(
        image=str(path.relative_to(common.ROOT)),
        limits=limits,
        size=[image.height, image.width],
        rgb_sha256=digest(np.asarray(image)),
        **expected(result.pixel_values, result.image_grid_thw[0]),
        **({"options": options} if options else {}),
    )


def images():
    processor = Qwen2VLImageProcessorFast()
    paths = sorted(p for p in IMAGES.iterdir() if p.suffix != ".md" and p.name not in ERRORS)
    paths += [common.DEMO / name for name in DEMO]
    cases = [image_case(path, MODEL, processor) for path in paths]
    cases += [image_case(IMAGES / name, limits, processor) for name in MANY_LIMITS for limits in LIMITS]
    for options in [dict(patch_size=16), dict(merge_size=1), dict(temporal_patch_size=1), dict(patch_size=16, merge_size=3),
                    dict(do_rescale=False), dict(do_normalize=False), dict(image_mean=[0.5] * 3, image_std=[0.5] * 3)]:
        cases += [image_case(IMAGES / name, CLASS, processor, **options) for name in ["astronaut.png", "coffee_444.jpg"]]
    cases.append(image_case(IMAGES / "size_84x56.png", CLASS, processor, do_resize=False))
    common.write_jsonl(OUT / "images.jsonl", cases)
    return len(cases), len({case["image"] for case in cases})


def videos():
    processor = Qwen2VLVideoProcessor()
    small = [f"frame_{i}.png" for i in range(5)]
    photos = ["rocket.jpg", "scene_640x480.jpg"]
    cases = []
    for names, limits in [(small[:n], limits) for n in range(1, 6) for limits in [MODEL, (100352, 602112)]] + [
        (photos[:1] * 3, CLASS), ([*small, *small[::-1]], CLASS), (photos[1:] * 2, (3136, 100352)),
    ]:
        frames = np.stack([np.asarray(load(IMAGES / name)) for name in names])
        result = processor(videos=[torch.from_numpy(frames).permute(0, 3, 1, 2)], return_tensors="pt",
                           size=dict(shortest_edge=limits[0], longest_edge=limits[1]))
        cases.append(dict(frames=names, limits=limits, **expected(result.pixel_values_videos, result.video_grid_thw[0])))
    common.write_jsonl(OUT / "videos.jsonl", cases)
    return len(cases)


def sizes(rng):
    """[height, width, factor, min, max, resized height, resized width], the last two null where the reference raises."""
    ties = [14 + 28 * k for k in range(150)]
    wanted = [(tie, other, 28, *MODEL) for tie in ties for other in (280, 281, 1000)]
    wanted += [(w, h, f, *limits) for h, w, f, *limits in wanted]
    wanted += [(a, b, 28, *MODEL) for a in ties[:12] for b in ties[:12]]
    wanted += [(16 + 32 * k, 320, 32, *MODEL) for k in range(40)]
    wanted += [(h, h * 200 + d, 28, *MODEL) for h in (1, 2, 3, 7, 50) for d in (-1, 0, 1)]
    wanted += [(h * 200 + d, h, 28, *CLASS) for h in (1, 2, 3, 7, 50) for d in (-1, 0, 1)]
    wanted += [(h, w, 28, *MODEL) for h in range(1, 31) for w in range(1, 31)]
    limits = [MODEL, CLASS, (3136, 200704), (100352, 602112), (200704, 12845056), (50176, 50176), (1, 784), (401408, 3136)]
    side = lambda: int(2 ** rng.uniform(0, 14.5))
    wanted += [(side(), side(), rng.choice([28, 28, 28, 32, 14, 20]), *rng.choice(limits)) for _ in range(2500)]
    rows = []
    for height, width, factor, low, high in wanted:
        try:
            new = smart_resize(height, width, factor, low, high)
            # With a tiny minimum the reference returns an empty image here and fails later.
            new = new if all(new) else (None, None)
        except ValueError:
            new = (None, None)
        rows.append([height, width, factor, low, high, *new])
    common.write_jsonl(OUT / "sizes.jsonl", rows)
    return len(rows)


def truncation():
    """Whether the reference still reads a file without its last bytes."""
    assert not ImageFile.LOAD_TRUNCATED_IMAGES
    names = ["coffee_420.jpg", "cat_progressive.jpg", "cat_restart.jpg", "camera_grey.jpg", "astronaut_cmyk.jpg", "exif_6.jpg",
             "astronaut.png", "palette.png", "cat.gif", "animated.gif", "cat.bmp", "cat_lzw.tif", "grey.tif", "cat_lossless.webp",
             "cat_lossy.webp", "rgb.ppm"]
    rows = []
    for name in names:
        data = (IMAGES / name).read_bytes()
        for keep in sorted({len(data) - 1, len(data) - 2, len(data) - 20, len(data) * 9 // 10, len(data) // 2, len(data) // 5, 60, 12, 3}):
            try:
                Image.open(io.BytesIO(data[:keep])).convert("RGB")
                reads = True
            except (OSError, SyntaxError, ValueError, EOFError):
                reads = False
            rows.append(dict(image=f"tests/images/{name}", keep=keep, reads=reads))
    common.write_jsonl(OUT / "truncation.jsonl", rows)
    return len(rows)


def composite():
    """Transparency laid over white, as qwen-vl-utils 0.0.14 does: `paste` with the alpha channel as the mask."""
    rows = []
    for name in ["rgba.png", "rgba.tif", "rgba_lossless.webp", "la.png", "rgba_16bit.png"]:
        for color in [(255, 255, 255), (10, 200, 90)]:
            image = Image.open(IMAGES / name).convert("RGBA")
            back = Image.new("RGB", image.size, color)
            back.paste(image, mask=image.split()[3])
            rows.append(dict(image=f"tests/images/{name}", color=color, rgb_sha256=digest(np.asarray(back))))
    common.write_jsonl(OUT / "composite.jsonl", rows)
    return len(rows)


def main():
    torch.set_num_threads(1)
    OUT.mkdir(parents=True, exist_ok=True)
    pairs, pictures = images()
    counts = dict(pairs=pairs, pictures=pictures, videos=videos(), sizes=sizes(random.Random(20)), truncation=truncation(),
                  composite=composite())
    print(counts)
    common.write_manifest("preprocess", counts=counts, images={
        p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(IMAGES.iterdir()) if p.suffix != ".md"
    })


if __name__ == "__main__":
    main()
