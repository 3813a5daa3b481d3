"""The pictures of tests/images: photographs in the public domain, recoded in many ways, and synthetic ones.

    pip download --no-deps scikit-image==0.26.0 -d DIR
    python preprocess_images.py --scikit-image DIR/scikit_image-0.26.0-*.whl

Seeded, so that a second run writes the same pictures; licences are in tests/images/README.md.
"""
import argparse
import io
import struct
import zipfile
import zlib

import common
import numpy as np
from PIL import Image, TiffImagePlugin

OUT = common.ROOT / "tests" / "images"


def scene(height, width, seed):
    """Smooth colours, hard edges and a little noise: compresses well, and every filter tap matters."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    a, b, c = rng.uniform(0.02, 0.3, 3)
    rgb = np.stack([127 + 120 * np.sin(a * x + seed), 127 + 120 * np.cos(b * y + c * x), (x * 3 + y * 5 + seed * 40) % 256], -1)
    for _ in range(5):
        top, left = rng.integers(0, max(1, height)), rng.integers(0, max(1, width))
        rgb[top:top + max(1, height // 5), left:left + max(1, width // 6)] = rng.integers(0, 256, 3)
    return rgb.clip(0, 255).astype(np.uint8)


def save(name, image, **options):
    image.save(OUT / name, **options)


def exif(orientation):
    data = Image.Exif()
    data[0x112] = orientation
    return data.tobytes()


def png(name, width, height, depth, color, rows, *chunks):
    """A PNG of kinds that Pillow does not write. `rows` are the packed bytes of each line."""
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    body = zlib.compress(b"".join(b"\0" + row for row in rows), 9)
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    parts = [chunk(b"IHDR", header), *[chunk(k, d) for k, d in chunks], chunk(b"IDAT", body), chunk(b"IEND", b"")]
    (OUT / name).write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


def bmp(name, width, height, depth, compression, pixels, palette=b"", masks=b""):
    offset = 14 + 40 + len(masks) + len(palette)
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, depth, compression, len(pixels), 2835, 2835, len(palette) // 4, 0)
    head = b"BM" + struct.pack("<IHHI", offset + len(pixels), 0, 0, offset)
    (OUT / name).write_bytes(head + info + masks + palette + pixels)


def photographs(archive):
    load = lambda name: Image.open(io.BytesIO(archive.read(f"skimage/data/{name}"))).convert("RGB")
    (OUT / "rocket.jpg").write_bytes(archive.read("skimage/data/rocket.jpg"))
    astronaut, coffee, cat, camera = map(load, ["astronaut.png", "coffee.png", "chelsea.png", "camera.png"])
    save("astronaut.png", astronaut.crop((150, 20, 350, 230)))
    save("coffee_444.jpg", coffee.crop((100, 60, 433, 281)), quality=90, subsampling=0)
    save("coffee_422.jpg", coffee.resize((401, 267)), quality=75, subsampling=1)
    save("coffee_420.jpg", coffee, quality=60, subsampling=2, optimize=True)
    save("cat_progressive.jpg", cat, quality=80, progressive=True)
    save("cat_progressive_444.jpg", cat.crop((0, 0, 233, 177)), quality=95, subsampling=0, progressive=True)
    save("cat_restart.jpg", cat.resize((225, 150)), quality=85, restart_marker_rows=1)
    save("cat.gif", cat.resize((225, 150)).quantize(64))
    save("cat_lossless.webp", cat.resize((225, 150)), lossless=True)
    save("cat_lossy.webp", cat, quality=70)
    save("cat.bmp", cat.resize((97, 65)))
    save("cat_lzw.tif", cat.resize((151, 100)), compression="tiff_lzw")
    save("camera_grey.jpg", camera.convert("L").resize((300, 300)), quality=85)
    save("camera_grey.png", camera.convert("L").resize((131, 131)))
    save("astronaut_cmyk.jpg", astronaut.resize((128, 128)).convert("CMYK"), quality=85)
    # Adobe's transform byte says how four components are stored: 0 is CMYK, 2 is YCCK.
    data = bytearray((OUT / "astronaut_cmyk.jpg").read_bytes())
    at = data.index(b"Adobe") + 11
    assert data[at] == 0
    data[at] = 2
    (OUT / "astronaut_ycck.jpg").write_bytes(data)
    save("astronaut_rgb.jpg", astronaut.resize((128, 128)), quality=85, keep_rgb=True)


def large():
    save("scene_1920x1080.jpg", Image.fromarray(scene(1080, 1920, 1)).resize((1920, 1080)), quality=50)
    save("scene_640x480.jpg", Image.fromarray(scene(480, 640, 2)), quality=75)
    save("scene_480x640_422.jpg", Image.fromarray(scene(640, 480, 3)), quality=70, subsampling=1)
    save("scene_350x350.jpg", Image.fromarray(scene(350, 350, 4)), quality=70)
    save("scene_2000x1500.jpg", Image.fromarray(scene(150, 200, 5)).resize((2000, 1500), Image.BICUBIC), quality=60)


def small():
    sizes = [(1, 1), (2, 3), (10, 10), (14, 14), (27, 27), (28, 28), (29, 28), (55, 57), (70, 70), (126, 70), (42, 98),
             (257, 27), (27, 257), (200, 1), (1, 200), (3, 600), (56, 84)]
    for i, (height, width) in enumerate(sizes):
        save(f"size_{width}x{height}.png", Image.fromarray(scene(height, width, 10 + i)))
    save("aspect_201x1.png", Image.fromarray(scene(1, 201, 9)))


def oriented():
    image = Image.fromarray(scene(37, 61, 40))
    for orientation in range(1, 9):
        save(f"exif_{orientation}.jpg", image, quality=90, exif=exif(orientation))
    save("exif_6.png", image, exif=exif(6))
    save("exif_5.webp", image, lossless=True, exif=exif(5))
    save("exif_9.jpg", image, quality=90, exif=exif(9))
    info = TiffImagePlugin.ImageFileDirectory_v2()
    info[274] = 8
    save("exif_8.tif", image, tiffinfo=info)
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="7"/></x:xmpmeta>'
    save("xmp_7.jpg", image, quality=90, xmp=xmp)


def pixel_kinds():
    height, width = 45, 67
    rgb = scene(height, width, 50)
    grey = rgb[..., 1]
    alpha = np.linspace(0, 255, height * width).reshape(height, width).astype(np.uint8)
    rgba = np.dstack([rgb, alpha])
    wide = (rgb.astype(np.uint16) << 8) | scene(height, width, 51)
    wide_alpha = (alpha.astype(np.uint16) << 8) | 37
    packed = lambda array: [row.astype(">u2").tobytes() for row in array]
    for name in ["rgba.png", "rgba.tif"]:
        save(name, Image.fromarray(rgba))
    save("rgba_lossless.webp", Image.fromarray(rgba), lossless=True, exact=True)
    save("la.png", Image.fromarray(np.dstack([grey, alpha])))
    save("grey.tif", Image.fromarray(grey))
    save("grey.bmp", Image.fromarray(grey))
    save("grey.pgm", Image.fromarray(grey))
    save("rgb.ppm", Image.fromarray(rgb))
    save("bilevel.png", Image.fromarray(grey).convert("1"))
    save("bilevel.tif", Image.fromarray(grey).convert("1"))
    save("bilevel.bmp", Image.fromarray(grey).convert("1"))
    save("bilevel.pbm", Image.fromarray(grey).convert("1"))
    nibbles = lambda v: [bytes((a << 4) | b for a, b in zip(row[::2], np.append(row[1::2], 0))) for row in v]
    png("grey_4bit.png", width, height, 4, 0, nibbles(grey >> 4))
    png("grey_16bit.png", width, height, 16, 0, packed(wide[..., 0]))
    png("la_16bit.png", width, height, 16, 4, packed(np.dstack([wide[..., 0], wide_alpha]).reshape(height, -1)))
    png("rgb_16bit.png", width, height, 16, 2, packed(wide.reshape(height, -1)))
    png("rgba_16bit.png", width, height, 16, 6, packed(np.dstack([wide, wide_alpha]).reshape(height, -1)))
    png("rgb_transparent_color.png", width, height, 8, 2, [r.tobytes() for r in rgb], (b"tRNS", struct.pack(">HHH", *map(int, rgb[3, 3]))))
    png("grey_transparent_level.png", width, height, 8, 0, [r.tobytes() for r in grey], (b"tRNS", struct.pack(">H", int(grey[3, 3]))))
    save("rgb_16bit_grey.tif", Image.fromarray(wide[..., 0]))
    palette = Image.fromarray(rgb).quantize(37)
    save("palette.png", palette)
    save("palette_transparent.png", palette, transparency=bytes(range(0, 37 * 6, 6)))
    save("palette.bmp", palette)
    save("palette_4bit.png", Image.fromarray(rgb).quantize(11), bits=4)
    save("cmyk.tif", Image.fromarray(rgb).convert("CMYK"))
    save("deflate.tif", Image.fromarray(rgb), compression="tiff_adobe_deflate")
    save("packbits.tif", Image.fromarray(rgb), compression="packbits")
    line = lambda row: row + b"\0" * (-len(row) % 4)
    five = (rgb >> 3).astype(np.uint16)
    fives = (five[..., 0] << 10) | (five[..., 1] << 5) | five[..., 2]
    bmp("rgb_555.bmp", width, height, 16, 0, b"".join(line(r.astype("<u2").tobytes()) for r in fives[::-1]))
    six = (five[..., 0] << 11) | ((rgb[..., 1] >> 2).astype(np.uint16) << 5) | five[..., 2]
    bmp("rgb_565.bmp", width, height, 16, 3, b"".join(line(r.astype("<u2").tobytes()) for r in six[::-1]), masks=struct.pack("<III", 0xF800, 0x7E0, 0x1F))
    bmp("rgbx.bmp", width, height, 32, 0, np.dstack([rgb[::-1, :, ::-1], np.full((height, width), 9, np.uint8)]).tobytes())
    bmp("top_down.bmp", width, -height, 24, 0, b"".join(line(r[:, ::-1].tobytes()) for r in rgb))


def gifs():
    frames = [Image.fromarray(scene(40, 60, 60 + i)).quantize(30) for i in range(3)]
    save("animated.gif", frames[0], save_all=True, append_images=frames[1:], duration=80, loop=0)
    save("animated_transparent.gif", frames[0], save_all=True, append_images=frames[1:], duration=80, transparency=4, disposal=2)
    save("interlaced.gif", frames[1], interlace=1)
    save("grey.gif", Image.fromarray(scene(33, 47, 66)[..., 0]))
    # A frame that does not fill its canvas, and one that reaches beyond it.
    plain = io.BytesIO()
    frames[2].save(plain, "gif", interlace=0)
    data = plain.getvalue()
    at = data.index(b",", 13 + 3 * 2 ** ((data[10] & 7) + 1))
    assert struct.unpack_from("<HHHH", data, at + 1) == (0, 0, 60, 40)
    moved = data[:at + 1] + struct.pack("<HH", 11, 7) + data[at + 5:]
    (OUT / "offset.gif").write_bytes(moved[:6] + struct.pack("<HH", 90, 75) + moved[10:])
    control = b"!\xf9\x04" + bytes([1, 0, 0, 5]) + b"\0"
    (OUT / "offset_transparent.gif").write_bytes(moved[:6] + struct.pack("<HH", 90, 75) + moved[10:at] + control + moved[at:])
    (OUT / "beyond.gif").write_bytes(moved[:6] + struct.pack("<HH", 30, 20) + moved[10:])


def webps():
    frames = [Image.fromarray(scene(40, 60, 70 + i)) for i in range(2)]
    save("animated.webp", frames[0], save_all=True, append_images=frames[1:], lossless=True, duration=100)


def frames():
    for i in range(5):
        save(f"frame_{i}.png", Image.fromarray(scene(48, 64, 80 + i)))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scikit-image", required=True, help="wheel with the photographs")
    args = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(args.scikit_image) as archive:
        photographs(archive)
    for make in [large, small, oriented, pixel_kinds, gifs, webps, frames]:
        make()
    files = [p for p in OUT.iterdir() if p.suffix != ".md"]
    print(f"{len(files)} pictures, {sum(p.stat().st_size for p in files) / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
