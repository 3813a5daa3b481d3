"""Goldens of HEIC and AVIF: small files, and the pixels that pillow-heif and Pillow read from them.

    pip install pillow==13.0.0 pillow-heif==1.8.1 numpy
    python heif.py

Of HEIC what pillow-heif gives, of AVIF what Pillow's own plugin (libavif) gives.
"""
import base64
import io

import common
import numpy as np
import pillow_heif
from PIL import Image

HEIGHT, WIDTH = 16, 24


def picture(channels=3):
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(float)
    rgb = np.stack([127 + 110 * np.sin(x / 6), 127 + 110 * np.cos(y / 5), 6 * x + 5 * y], -1)
    rgb[:, WIDTH // 2:] = rgb[:, WIDTH // 2:, ::-1]
    rgba = np.dstack([rgb, np.where(x < WIDTH // 2, 255, 16 * y % 256)])
    return Image.fromarray(rgba.clip(0, 255).astype(np.uint8)[..., :channels])


def heic(image, **options):
    out = io.BytesIO()
    pillow_heif.from_pillow(image).save(out, **options)
    return out.getvalue()


def avif(image, **options):
    out = io.BytesIO()
    image.save(out, "AVIF", **options)
    return out.getvalue()


def deep():
    """10 bits a channel."""
    data = np.asarray(picture()).astype(np.uint16) << 8
    out = io.BytesIO()
    pillow_heif.encode("RGB;16", (WIDTH, HEIGHT), data.tobytes(), out, quality=90, chroma=444)
    return out.getvalue()


def exif(orientation):
    data = Image.Exif()
    data[0x112] = orientation
    return data.tobytes()


def turned(orientation):
    """pillow-heif writes EXIF's turn as the format's own."""
    return heic(picture(), quality=90, chroma=444, exif=exif(orientation))


def pixels(name, file):
    if name.startswith("heic"):
        return pillow_heif.open_heif(io.BytesIO(file), convert_hdr_to_8bit=True).to_pillow()
    from PIL import ImageOps
    return ImageOps.exif_transpose(Image.open(io.BytesIO(file)))


def main():
    files = {
        "heic 4:4:4": heic(picture(), quality=90, chroma=444),
        "heic 4:2:0": heic(picture(), quality=90, chroma=420),
        "heic alpha": heic(picture(4), quality=90, chroma=444),
        "heic 10 bits": deep(),
        "heic turned 6": turned(6),
        "avif 4:4:4": avif(picture(), quality=90, subsampling="4:4:4"),
        "avif alpha": avif(picture(4), quality=90, subsampling="4:4:4"),
        "avif turned 8": avif(picture(), quality=90, subsampling="4:4:4", exif=exif(8)),
    }
    rows = []
    for name, file in files.items():
        image = pixels(name, file)
        rgb = base64.b64encode(image.convert("RGB").tobytes()).decode()
        rows.append(dict(name=name, file=base64.b64encode(file).decode(), size=[image.height, image.width], rgb=rgb))
    out = common.GOLDEN / "heif"
    out.mkdir(exist_ok=True)
    common.write_jsonl(out / "heif.jsonl", rows)
    common.write_manifest("heif", ["pillow", "pillow-heif", "numpy"], libheif=pillow_heif.libheif_version())


if __name__ == "__main__":
    main()
