"""Goldens of animations: random GIF, APNG and WebP files, each of a few hundred bytes, and what Pillow shows of each frame.

    python animations.py

The files are put together here, so that every disposal, blending and offset occurs. The frames are those of Pillow's
`ImageSequence` after `convert("RGB")`, and laid over white as qwen-vl-utils does it. Each is read from a newly opened file:
what Pillow gives for an APNG's frames one after the other depends on whether their pixels were looked at.
"""
import base64
import io
import random
import struct
import zlib

import common
import numpy as np
from PIL import Image, features

SEED = 5
WIDTH, HEIGHT = 8, 6


def crc(image):
    return zlib.crc32(image.tobytes())


def over_white(image):
    """As qwen-vl-utils 0.0.14, `to_rgb`, lays RGBA over white; other modes with transparency are made RGBA before."""
    image = image.convert("RGBA")
    white = Image.new("RGB", image.size, (255, 255, 255))
    white.paste(image, mask=image.split()[3])
    return white


def area(rng, even=False, outside=0):
    """Left, top, width, height of a part of the canvas, which may reach `outside` it."""
    left, top = rng.randrange(WIDTH - 2), rng.randrange(HEIGHT - 2)
    if even:
        left, top = left & ~1, top & ~1
    width, height = rng.randint(1, WIDTH - left + outside), rng.randint(1, HEIGHT - top + outside)
    return (0, 0, WIDTH, HEIGHT) if rng.random() < 0.3 else (left, top, width, height)


# GIF

def lzw(indices, bits):
    """Codes that never grow: a clear code comes before the table is full."""
    clear, out, n_bits, value, size = 1 << bits, bytearray(), 0, 0, bits + 1
    codes = []
    for i, index in enumerate(indices):
        if i % (clear - 2) == 0:
            codes.append(clear)
        codes.append(index)
    for code in [*codes, clear + 1]:
        value |= code << n_bits
        n_bits += size
        while n_bits >= 8:
            out.append(value & 255)
            value >>= 8
            n_bits -= 8
    if n_bits:
        out.append(value & 255)
    blocks = [out[i:i + 255] for i in range(0, len(out), 255)]
    return bytes([bits]) + b"".join(bytes([len(b)]) + bytes(b) for b in blocks) + b"\0"


def palette(rng, bits):
    return bytes(rng.randrange(256) for _ in range(3 << bits))


def interlaced(rows):
    order = [*range(0, len(rows), 8), *range(4, len(rows), 8), *range(2, len(rows), 4), *range(1, len(rows), 2)]
    return [rows[y] for y in order]


def gif(rng):
    bits = 3
    outside = rng.choice([0, 0, 0, 4])
    with_global = rng.random() < 0.8
    flags = (0x80 if with_global else 0) | (bits - 1)
    file = b"GIF89a" + struct.pack("<HHBBB", WIDTH, HEIGHT, flags, rng.randrange(1 << bits), 0)
    file += palette(rng, bits) if with_global else b""
    for i in range(rng.randint(2, 6)):
        transparent = rng.random() < 0.5
        index = rng.randrange(1 << bits)
        if rng.random() < 0.85:
            control = rng.choice([0, 1, 2, 3]) << 2 | transparent
            file += b"!\xf9\x04" + struct.pack("<BHB", control, rng.randrange(20), index) + b"\0"
        left, top, width, height = area(rng, outside=outside)
        local = not with_global or rng.random() < 0.4
        lace = rng.random() < 0.3
        file += b"," + struct.pack("<HHHHB", left, top, width, height, local << 7 | lace << 6 | (bits - 1))
        file += palette(rng, bits) if local else b""
        rows = [[rng.choice([index, rng.randrange(1 << bits)]) for _ in range(width)] for _ in range(height)]
        file += lzw([i for row in (interlaced(rows) if lace else rows) for i in row], bits)
    return file + (b";" if rng.random() < 0.8 else b"")


# APNG

def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


def png_pixels(rng, color, width, height):
    alphas = [0, 255, rng.randrange(256)]
    rows = b""
    for _ in range(height):
        rows += b"\0"
        for _ in range(width):
            if color == 3:
                rows += bytes([rng.randrange(8)])
                continue
            pixel = [rng.randrange(256) for _ in range(CHANNELS[color])]
            if color in (4, 6):
                pixel[-1] = rng.choice(alphas)
            rows += bytes(pixel)
    return zlib.compress(rows, 9)


def apng(rng):
    color = rng.choice([0, 2, 3, 4, 6, 6])
    n_frames = rng.randint(2, 5)
    hidden = rng.random() < 0.2
    file = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, color, 0, 0, 0))
    if color == 3:
        file += chunk(b"PLTE", palette(rng, 3))
        # Whole or nothing: Pillow blends indices.
        file += chunk(b"tRNS", bytes(rng.choice([0, 255]) for _ in range(8)))
    file += chunk(b"acTL", struct.pack(">II", n_frames, 0))
    sequence = 0
    if hidden:
        file += chunk(b"IDAT", png_pixels(rng, color, WIDTH, HEIGHT))
    for i in range(n_frames):
        # The first covers everything, and with a hidden image replaces it, so that what was before does not show.
        place = (0, 0, WIDTH, HEIGHT) if i == 0 else area(rng)
        left, top, width, height = place
        blend, dispose = (0, rng.choice([0, 1])) if i == 0 else (rng.choice([0, 1]), rng.choice([0, 1, 2]))
        delay = struct.pack(">HH", rng.randrange(1, 50), rng.choice([0, 10, 100, 1000]))
        control = struct.pack(">IIIII", sequence, width, height, left, top) + delay + bytes([dispose, blend])
        file += chunk(b"fcTL", control)
        sequence += 1
        data = png_pixels(rng, color, width, height)
        cut = rng.randrange(len(data)) if rng.random() < 0.3 else len(data)
        for part in [data[:cut], data[cut:]] if cut < len(data) else [data]:
            if i == 0 and not hidden:
                file += chunk(b"IDAT", part)
            else:
                file += chunk(b"fdAT", struct.pack(">I", sequence) + part)
                sequence += 1
    return file + chunk(b"IEND", b""), hidden


# WebP

def riff(kind, data):
    return kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)


def three(number):
    return struct.pack("<I", number)[:3]


def webp_frame(rng, width, height, lossy):
    pixels = np.array([[[rng.randrange(256) for _ in range(4)] for _ in range(width)] for _ in range(height)], np.uint8)
    if lossy:
        # Smooth, so that decoders agree to a few levels.
        y, x = np.mgrid[0:height, 0:width]
        pixels[..., 0], pixels[..., 1], pixels[..., 2] = 20 * x % 256, 40 + 15 * y, rng.randrange(256)
    alpha = rng.random() < 0.7
    if alpha:
        pixels[..., 3] = np.vectorize(lambda a: rng.choice([0, 255, int(a)]))(pixels[..., 3])
    saved = io.BytesIO()
    options = dict(quality=90, alpha_quality=100) if lossy else dict(lossless=True, exact=True)
    Image.fromarray(pixels if alpha else pixels[..., :3].copy()).save(saved, "WEBP", **options)
    data, at, chunks = saved.getvalue(), 12, b""
    while at < len(data):
        kind, size = data[at:at + 4], struct.unpack("<I", data[at + 4:at + 8])[0]
        if kind in (b"VP8 ", b"VP8L", b"ALPH"):
            chunks += riff(kind, data[at + 8:at + 8 + size])
        at += 8 + size + size % 2
    return chunks


def webp(rng, lossy):
    flags = 0x02 | (0x10 if rng.random() < 0.8 else 0)
    file = riff(b"VP8X", bytes([flags, 0, 0, 0]) + three(WIDTH - 1) + three(HEIGHT - 1))
    file += riff(b"ANIM", bytes(rng.randrange(256) for _ in range(4)) + b"\0\0")
    for _ in range(rng.randint(2, 5)):
        left, top, width, height = area(rng, even=True)
        header = three(left // 2) + three(top // 2) + three(width - 1) + three(height - 1) + three(rng.randrange(300))
        frame = webp_frame(rng, width, height, lossy)
        file += riff(b"ANMF", header + bytes([rng.randrange(4)]) + frame)
    return b"RIFF" + struct.pack("<I", len(file) + 4) + b"WEBP" + file


def row(name, file, hidden=False, lossy=False):
    n_frames = Image.open(io.BytesIO(file)).n_frames
    frames, white, pixels, sizes, delays = [], [], [], [], []
    for i in range(int(hidden), n_frames):
        image = Image.open(io.BytesIO(file))
        image.seek(i)
        image.load()
        sizes.append([image.height, image.width])
        delays.append(round(image.info.get("duration", 0) * 1000))
        rgb = image.convert("RGB")
        frames.append(crc(rgb))
        white.append(crc(over_white(image)))
        if lossy:
            pixels.append(base64.b64encode(rgb.tobytes()).decode())
    result = dict(name=name, file=base64.b64encode(file).decode(), sizes=sizes, delays_us=delays)
    if lossy:
        return result | dict(pixels=pixels)
    # In other modes Pillow has no transparency for what a frame uncovers.
    has_alpha = name.startswith("webp") or image.mode in ("LA", "RGBA")
    return result | dict(rgb=frames) | (dict(white=white) if has_alpha else {})


def main():
    out = common.GOLDEN / "animations"
    out.mkdir(exist_ok=True)
    rng = random.Random(SEED)
    rows = [row(f"gif {i}", gif(rng)) for i in range(20)]
    rows += [row(f"apng {i}", *apng(rng)) for i in range(20)]
    rows += [row(f"webp {i}", webp(rng, False)) for i in range(12)]
    rows += [row(f"lossy webp {i}", webp(rng, True), lossy=True) for i in range(2)]
    common.write_jsonl(out / "animations.jsonl", rows)
    common.write_manifest("animations", ["pillow", "numpy"], libwebp=features.version("webp"))


if __name__ == "__main__":
    main()
