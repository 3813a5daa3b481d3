"""Synthetic pictures with questions and exact answers.

A scene is a dict: `images` (PIL images) or `video` (PIL frames), `qas` ((task, question, answer) triples)
and, for training's auxiliary loss, `marks` (what is where, one list for each image or each pair of frames).
Pictures hold coloured shapes on plain, noisy, shaded or photo backgrounds, or real handwritten digits. A
scene depends on the random generator alone, so the same seed gives the same pixels; the order of the draws is
part of that.
"""

import functools
import pathlib

import numpy as np
from PIL import Image, ImageDraw

COLORS = dict(
    red=(220, 30, 30), green=(30, 150, 50), blue=(40, 60, 220), yellow=(240, 220, 40),
    orange=(245, 140, 20), purple=(140, 40, 170), black=(15, 15, 15), white=(245, 245, 245),
)  # fmt: skip
SHAPES = ["circle", "square", "triangle", "star", "cross"]
TASKS = ["caption", "vqa", "count", "where", "box", "json", "digits", "two", "video", "chat"]
SHAPE_TASKS = ["caption", "box", "json", "vqa", "count", "where"]


# ---------- drawing ----------
def article(color):
    return "an" if color[0] in "aeiou" else "a"


def name(o):
    return f"{o['color']} {o['shape']}"


def a_name(o, capital=False):
    s = f"{article(o['color'])} {name(o)}"
    return s[0].upper() + s[1:] if capital else s


def draw_shape(d, shape, x, y, s, fill):
    """Fills `shape` into the square box of s pixels whose corner is x, y."""
    e = x + s - 1, y + s - 1
    if shape == "circle":
        d.ellipse([x, y, *e], fill=fill)
    elif shape == "square":
        d.rectangle([x, y, *e], fill=fill)
    elif shape == "triangle":
        d.polygon([(x + (s - 1) / 2, y), e, (x, e[1])], fill=fill)
    elif shape == "cross":
        a = s * 0.32
        d.rectangle([x + a, y, e[0] - a, e[1]], fill=fill)
        d.rectangle([x, y + a, e[0], e[1] - a], fill=fill)
    else:
        c, r = (s - 1) / 2, (s - 1) / 2
        pts = []
        for k in range(10):
            rr, t = (r if k % 2 == 0 else r * 0.42), np.pi * k / 5
            pts.append((x + c + rr * np.sin(t), y + c - rr * np.cos(t)))
        d.polygon(pts, fill=fill)


@functools.lru_cache(1)
def photos():
    """Real photos that ship with scikit-image, used faded as backgrounds."""
    import skimage

    folder, out = pathlib.Path(skimage.__file__).parent / "data", []
    for file in ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg"):
        im = Image.open(folder / file).convert("RGB")
        k = max(200 / im.width, 200 / im.height, 0.45)
        out.append(im.resize((int(im.width * k), int(im.height * k))))
    return out


def canvas(rng, w, h, gray=None):
    """Background of about one grey level, and that level: plain, tinted, noisy, shaded or a faded photo."""
    g = (
        gray
        if gray is not None
        else rng.choice([rng.randint(60, 110), rng.randint(130, 200), rng.randint(80, 180)])
    )
    tint = [g + rng.randint(-14, 14) for _ in range(3)]
    kind = rng.random()
    if kind < 0.5:
        return Image.new("RGB", (w, h), tuple(tint)), g
    a = np.empty((h, w, 3), np.float32)
    a[:] = tint
    if kind < 0.8:
        a += np.random.default_rng(rng.getrandbits(32)).normal(0, rng.uniform(3, 13), a.shape)
    elif kind < 0.9:
        a += np.linspace(-25, 25, w)[None, :, None] * rng.choice([-1, 1])
    else:
        p = rng.choice(photos())
        x, y = rng.randint(0, p.width - w), rng.randint(0, p.height - h)
        a = 0.65 * a + 0.35 * np.asarray(p.crop((x, y, x + w, y + h)), np.float32)
    return Image.fromarray(np.clip(a, 0, 255).astype(np.uint8)), g


def shade(rng, color):
    return tuple(max(0, min(255, c + rng.randint(-18, 18))) for c in COLORS[color])


def visible(g):
    """Colours that stand out from a background of grey level g."""
    return [c for c, rgb in COLORS.items() if sum(abs(v - g) for v in rgb) > 150]


def size(rng, lo=56, hi=168, area=16500):
    while True:
        w, h = rng.randint(lo, hi), rng.randint(lo, hi)
        if w * h <= area:
            return w, h


def place(rng, w, h, n, smin, smax):
    """n squares (x, y, s) that keep a gap, or fewer when they do not fit."""
    out = []
    for _ in range(60 * n):
        s = rng.randint(smin, max(smin, smax))
        if s > w - 2 or s > h - 2:
            continue
        x, y = rng.randint(1, w - s - 1), rng.randint(1, h - s - 1)
        if all(x + s + 3 < a or a + b + 3 < x or y + s + 3 < c or c + b + 3 < y for a, c, b in out):
            out.append((x, y, s))
            if len(out) == n:
                break
    return out


def shapes_image(rng, n, w=None, h=None):
    """A picture with up to n shapes of different colours, and what they are."""
    if w is None:
        w, h = size(rng)
    im, g = canvas(rng, w, h)
    d, m = ImageDraw.Draw(im), min(w, h)
    boxes = place(
        rng,
        w,
        h,
        n,
        max(14, int(m * (0.2 if n < 4 else 0.15))),
        int(m * (0.55 if n == 1 else 0.42 if n < 4 else 0.3)),
    )
    colors = rng.sample(visible(g), len(boxes))
    objs = []
    for (x, y, s), c in zip(boxes, colors):
        o = dict(shape=rng.choice(SHAPES), color=c, x=x, y=y, s=s, cx=x + s / 2, cy=y + s / 2)
        draw_shape(d, o["shape"], x, y, s, shade(rng, c))
        objs.append(o)
    return im, objs


def mark(o):
    """What is where, for the auxiliary loss: (kind, colour, box in pixels)."""
    return (
        1 + SHAPES.index(o["shape"]),
        1 + list(COLORS).index(o["color"]),
        o["x"],
        o["y"],
        o["x"] + o["s"],
        o["y"] + o["s"],
    )


# ---------- questions ----------
def relation(a, b):
    """Where a lies seen from b, or None when it is not clear."""
    dx, dy = a["cx"] - b["cx"], a["cy"] - b["cy"]
    if abs(dx) > 1.35 * abs(dy) + 4:
        return "left of" if dx < 0 else "right of"
    if abs(dy) > 1.35 * abs(dx) + 4:
        return "above" if dy < 0 else "below"
    return None


def box_of(o, w, h):
    """Qwen2-VL's box: thousandths of the picture, here in steps of ten."""

    def r(v, n):
        return int(round(100 * v / n)) * 10

    return f"({r(o['x'], w)},{r(o['y'], h)}),({r(o['x'] + o['s'], w)},{r(o['y'] + o['s'], h)})"


def spot(o, w, h):
    """Which ninth of the picture an object lies in, or None near the borders between them."""

    def third(v, names):
        return names[0] if v < 0.36 else names[2] if v > 0.64 else names[1] if 0.42 < v < 0.58 else None

    a, b = third(o["cy"] / h, ("top", "", "bottom")), third(o["cx"] / w, ("left", "", "right"))
    if a is None or b is None:
        return None
    return (a + " " + b).strip() or "center"


def ordered(objs):
    """Left to right, or None when two centres are too close to call."""
    s = sorted(objs, key=lambda o: o["cx"])
    return s if all(b["cx"] - a["cx"] > 5 for a, b in zip(s, s[1:])) else None


def caption(objs):
    """A sentence about one to three objects, or None when their order is not clear."""
    if len(objs) == 1:
        return a_name(objs[0], True) + "."
    if len(objs) == 2:
        for a, b in (objs, objs[::-1]):
            r = relation(a, b)
            if r in ("left of", "above"):
                return f"{a_name(a, True)} {r} {a_name(b)}."
        return None
    if len(objs) == 3 and (s := ordered(objs)):
        return f"{a_name(s[0], True)}, {a_name(s[1])} and {a_name(s[2])}."
    return None


CAPTION_Q = [
    "Describe this image.",
    "Describe the image.",
    "What do you see?",
    "What is in the image?",
    "Describe the picture.",
    "Write a caption.",
]
FIND_Q = ["Find the {}.", "Locate the {}.", "Detect the {}.", "Give the box of the {}."]
JSON_Q = ["List the shapes as JSON.", "Describe the shapes in JSON.", "Give me JSON."]


def qa_shapes(rng, objs, w, h, task):
    """One (task, question, answer), or None when the scene does not allow this task."""
    o = rng.choice(objs)
    other = [p for p in objs if p is not o]
    lone = sum(p["shape"] == o["shape"] for p in objs) == 1
    if task == "caption":
        a = caption(objs)
        return a and (task, rng.choice(CAPTION_Q), a)
    if task == "box":
        n = name(o)
        return (
            task,
            rng.choice(FIND_Q).format(n),
            f"<|object_ref_start|>{n}<|object_ref_end|><|box_start|>{box_of(o, w, h)}<|box_end|>",
        )
    if task == "json":
        s = ordered(objs)
        return s and (
            task,
            rng.choice(JSON_Q),
            "[" + ",".join('{"shape":"%s","color":"%s"}' % (p["shape"], p["color"]) for p in s) + "]",
        )
    kind = rng.choice(["color", "shape", "count", "yes", "where", "side", "beside", "total"])
    if kind == "color" and lone:
        return (
            "vqa",
            rng.choice(
                ["What color is the {}?", "Which color is the {}?", "What is the color of the {}?"]
            ).format(o["shape"]),
            o["color"],
        )
    if kind == "shape":
        return "vqa", rng.choice(["What shape is {}?", "Which shape is {}?"]).format(o["color"]), o["shape"]
    if kind == "count":
        s = o["shape"] if rng.random() < 0.75 else rng.choice(SHAPES)
        plural = "crosses" if s == "cross" else s + "s"
        return (
            "count",
            rng.choice(["How many {} are there?", "Count the {}."]).format(plural),
            str(sum(p["shape"] == s for p in objs)),
        )
    if kind == "total":
        return "count", rng.choice(["How many shapes are there?", "Count the shapes."]), str(len(objs))
    if kind == "yes":
        q, yes = dict(o), rng.random() < 0.5
        if not yes:
            q = dict(shape=rng.choice(SHAPES), color=rng.choice(list(COLORS)))
            if rng.random() < 0.6:
                q["color"] = o["color"]
            elif rng.random() < 0.5:
                q["shape"] = o["shape"]
            yes = any(name(p) == name(q) for p in objs)
        return "vqa", rng.choice(["Is there {}?", "Do you see {}?"]).format(a_name(q)), "yes" if yes else "no"
    if kind == "where":
        p = spot(o, w, h)
        return p and (
            "where",
            rng.choice(["Where is the {}?", "Where do you see the {}?"]).format(name(o)),
            p,
        )
    if other and kind in ("side", "beside"):
        b = rng.choice(other)
        r = relation(o, b)
        if r is None:
            return None
        if kind == "beside" and len(objs) == 2:
            return "where", f"What is {r} the {name(b)}?", name(o)
        pair = "left or right of" if r in ("left of", "right of") else "above or below"
        return "where", f"Is the {name(o)} {pair} the {name(b)}?", r.replace(" of", "")
    return None


def scene_shapes(rng, task=None, easy=0.0):
    """One to five shapes; `task` keeps one task's questions, `easy` is the share of scenes forced to a single shape."""
    n = 1 if rng.random() < easy else rng.choices([1, 2, 3, 4, 5], [24, 36, 26, 7, 7])[0]
    if task in ("caption", "json"):
        n = min(n, 3)
    im, objs = shapes_image(rng, n)
    if not objs:
        return scene_shapes(rng, task)
    qas, seen = [], set()
    for _ in range(14):
        t = task or rng.choices(["caption", "box", "json", "vqa"], [22, 26, 8, 60])[0]
        q = qa_shapes(rng, objs, *im.size, t if t in ("caption", "box", "json") else "vqa")
        if q and q[1] not in seen and (task is None or q[0] == task):
            seen.add(q[1])
            qas.append(q)
    return dict(images=[im], qas=qas, marks=[[mark(o) for o in objs]]) if qas else scene_shapes(rng, task)


@functools.lru_cache(1)
def handwritten():
    """Real handwritten digits (UCI, through scikit-learn): (train, held out) lists by class."""
    from sklearn.datasets import load_digits

    d = load_digits()
    order = np.random.default_rng(0).permutation(len(d.target))
    out = []
    for part in (order[:1497], order[1497:]):
        out.append([[d.images[i] for i in part if d.target[i] == c] for c in range(10)])
    return out


def paste_digit(rng, im, c, x, y, s, ink, held):
    a = rng.choice(handwritten()[1 if held else 0][c]) / 16.0
    m = Image.fromarray((a * 255).astype(np.uint8)).resize((s, s), Image.BICUBIC)
    if not held and rng.random() < 0.7:
        m = m.rotate(rng.uniform(-12, 12), Image.BICUBIC)
        k = rng.uniform(0.85, 1.1)
        m = m.transform(
            m.size,
            Image.AFFINE,
            (1 / k, rng.uniform(-0.15, 0.15), s * (1 - 1 / k) / 2, 0, 1 / k, s * (1 - 1 / k) / 2),
            Image.BICUBIC,
        )
    im.paste(Image.new("RGB", (s, s), ink), (x, y), m)


NUMBER_Q = ["What number is written?", "Which number is this?", "Read the number."]


def scene_digits(rng, held=False, easy=0.0):
    """One digit, a row or a grid of them; `held` takes the digits that training never sees."""
    kind = "one" if rng.random() < easy else rng.choices(["one", "row", "grid"], [34, 42, 24])[0]
    dark = rng.random() < 0.5
    color = rng.choice(["black", "blue", "red", "purple"] if dark else ["white", "yellow", "orange"])
    g = rng.randint(165, 230) if dark else rng.randint(25, 75)
    ink = shade(rng, color)
    qas, marks = [], []

    def digit():
        return rng.randint(0, 9)

    def put(c, x, y, s):
        paste_digit(rng, im, c, x, y, s, ink, held)
        marks.append((6 + c, 1 + list(COLORS).index(color), x, y, x + s, y + s))

    if kind == "one":
        s = rng.randint(28, 60)
        w, h = rng.randint(max(56, s), 112), rng.randint(max(56, s), 112)
        im, c, x, y = canvas(rng, w, h, g)[0], digit(), rng.randint(0, w - s), rng.randint(0, h - s)
        put(c, x, y, s)
        qas = [
            ("digits", rng.choice(NUMBER_Q), str(c)),
            ("digits", rng.choice(["Which digit is this?", "What digit do you see?"]), str(c)),
            ("digits", "What color is the digit?", color),
        ]
    elif kind == "row":
        n, s = rng.randint(2, 4), rng.randint(28, 44)
        gap = rng.randint(-2, 5)
        need = n * s + (n - 1) * gap
        w, h = need + rng.randint(4, 24), max(30, s + rng.randint(4, 30))
        im, cs = canvas(rng, w, h, g)[0], [digit() for _ in range(n)]
        x, y = rng.randint(0, w - need), rng.randint(0, h - s)
        for i, c in enumerate(cs):
            put(c, x + i * (s + gap), y, s)
        qas = [
            ("digits", rng.choice(NUMBER_Q), "".join(map(str, cs))),
            ("digits", rng.choice(["Which digit is on the left?", "What is the first digit?"]), str(cs[0])),
            ("digits", rng.choice(["Which digit is on the right?", "What is the last digit?"]), str(cs[-1])),
            ("digits", "How many digits are there?", str(n)),
        ]
    else:
        s = rng.randint(28, 44)
        w, h = 2 * s + rng.randint(8, 44), 2 * s + rng.randint(8, 44)
        im, cs = canvas(rng, w, h, g)[0], [digit() for _ in range(4)]
        for i, c in enumerate(cs):
            x0, x1 = ((0, w // 2 - s), (w // 2 + 2, w - s))[i % 2]
            y0, y1 = ((0, h // 2 - s), (h // 2 + 2, h - s))[i // 2]
            x, y = rng.randint(x0, x1), rng.randint(y0, y1)
            put(c, x, y, s)
            qas.append(
                (
                    "digits",
                    rng.choice(["Which digit is at the {}?", "What is the digit at the {}?"]).format(
                        ("top left", "top right", "bottom left", "bottom right")[i]
                    ),
                    str(c),
                )
            )
    rng.shuffle(qas)
    return dict(images=[im], qas=qas, marks=[marks])


def scene_two(rng):
    """Two images of one shape each."""
    pair = [shapes_image(rng, 1, *size(rng, 48, 100, 7000)) for _ in range(2)]
    a, b = (o[0] for _, o in pair)
    if rng.random() < 0.3:
        b_im, b_o = shapes_image(rng, 1, *size(rng, 48, 100, 7000))
        pair[1], b = (b_im, b_o), b_o[0]
    qas = [
        (
            "two",
            rng.choice(["What is in the first image?", "Describe the first image."]),
            a_name(a, True) + ".",
        ),
        (
            "two",
            rng.choice(["What is in the second image?", "Describe the second image."]),
            a_name(b, True) + ".",
        ),
        ("two", "What color is the shape in the first image?", a["color"]),
        ("two", "What color is the shape in the second image?", b["color"]),
        ("two", "Do both images show the same shape?", "yes" if a["shape"] == b["shape"] else "no"),
    ]
    rng.shuffle(qas)
    return dict(images=[p[0] for p in pair], qas=qas, marks=[[mark(o) for o in p[1]] for p in pair])


def scene_video(rng):
    """A shape that moves straight over one background, 4 to 8 frames."""
    w, h = size(rng, 56, 100, 7200)
    bg, g = canvas(rng, w, h)
    n, way = rng.randint(4, 8), rng.choice(["left", "right", "up", "down"])
    s = rng.randint(16, int(min(w, h) * 0.42))
    o = dict(shape=rng.choice(SHAPES), color=rng.choice(visible(g)))
    fill, frames, marks = shade(rng, o["color"]), [], []
    room = (w if way in ("left", "right") else h) - s - 2
    travel = rng.uniform(0.55, 1.0) * room
    start = rng.uniform(0, room - travel)
    cross = rng.randint(1, (h if way in ("left", "right") else w) - s - 1)
    for i in range(n):
        p = start + travel * i / (n - 1)
        if way in ("left", "up"):
            p = room - p
        x, y = (p, cross) if way in ("left", "right") else (cross, p)
        f = bg.copy()
        draw_shape(ImageDraw.Draw(f), o["shape"], int(x) + 1, int(y) + 1, s, fill)
        frames.append(f)
        if i % 2 == 0:
            marks.append([mark(dict(o, x=int(x) + 1, y=int(y) + 1, s=s))])
    qas = [
        (
            "video",
            rng.choice(
                ["Which way does the shape move?", "In which direction does it move?", "Where does it move?"]
            ),
            way,
        ),
        ("video", rng.choice(["What color is the shape?", "What color is the moving shape?"]), o["color"]),
        (
            "video",
            rng.choice(["Describe the video.", "What happens in the video?"]),
            f"{a_name(o, True)} moves {way}.",
        ),
    ]
    rng.shuffle(qas)
    return dict(video=frames, qas=qas, marks=marks)


CHAT = [
    ("Hello", "Hello! Show me an image."),
    ("Hi", "Hello! Show me an image."),
    ("Hello!", "Hello! Show me an image."),
    ("Who are you?", "I am a small vision model."),
    ("What can you do?", "I describe shapes, read numbers and find objects."),
    ("Thank you.", "You are welcome."),
]


def scene_chat(rng):
    """Text alone: small talk from a closed list, and questions that need an image."""
    qas = [("chat", *c) for c in rng.sample(CHAT, 3)]
    for q in rng.sample(
        CAPTION_Q
        + NUMBER_Q
        + JSON_Q
        + ["Read the text.", "How many shapes are there?", "Find the red circle."],
        3,
    ):
        qas.append(("chat", q, "Please show me an image."))
    rng.shuffle(qas)
    return dict(images=[], qas=qas)


def scene(rng, held=False, task=None, easy=0.0):
    """A random scene; `task` keeps only that task's questions, `easy` is the share forced to a single object."""
    if task in SHAPE_TASKS:
        return scene_shapes(rng, task)
    kind = task or rng.choices(["shapes", "digits", "two", "video", "chat"], [66, 25, 4, 4, 1])[0]
    if kind == "digits":
        return scene_digits(rng, held, easy)
    if kind == "shapes":
        return scene_shapes(rng, None, easy)
    return dict(two=scene_two, video=scene_video, chat=scene_chat)[kind](rng)
