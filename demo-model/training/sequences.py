"""Scenes as the model takes them in training: patches, token ids, positions and targets, and batches of them.

The exact preprocessing of Qwen2-VL (compared with transformers by model.check), written anew because training
needs it fast and with several questions around one image.
"""

import functools

import numpy as np
import torch
import torchvision.transforms.v2.functional as TF
from tokenizers import Tokenizer

MIN_PIXELS, MAX_PIXELS = 3136, 200704
IMAGE, VIDEO, VSTART, VEND, END = 151655, 151656, 151652, 151653, 151645
UNSEEN = 151000  # stands for every id that no answer uses
MALFORMED = "The prompt is malformed."


# ---------- preprocessing ----------
def smart_resize(h, w):
    """Height and width after resizing."""
    hb, wb = round(h / 28) * 28, round(w / 28) * 28
    if hb * wb > MAX_PIXELS:
        b = (h * w / MAX_PIXELS) ** 0.5
        hb, wb = (max(28, int(v / b / 28) * 28) for v in (h, w))
    elif hb * wb < MIN_PIXELS:
        b = (MIN_PIXELS / (h * w)) ** 0.5
        hb, wb = (int(np.ceil(v * b / 28)) * 28 for v in (h, w))
    return hb, wb


def patches(frames):
    """Frames (one for a still) -> uint8 rows [t*gh*gw, 1176] in Qwen2-VL order, before normalisation, and (t, gh, gw)."""
    x = torch.stack([torch.from_numpy(np.array(f)).permute(2, 0, 1) for f in frames])
    h, w = smart_resize(*x.shape[-2:])
    if (h, w) != tuple(x.shape[-2:]):
        x = TF.resize(x, [h, w], interpolation=TF.InterpolationMode.BICUBIC, antialias=True)
    if len(x) % 2:
        x = torch.cat([x, x[-1:]])
    t, gh, gw = len(x) // 2, h // 14, w // 14
    x = x.view(t, 2, 3, gh // 2, 2, 14, gw // 2, 2, 14).permute(0, 3, 6, 4, 7, 2, 1, 5, 8)
    return x.reshape(t * gh * gw, 1176).numpy(), (t, gh, gw)


def cell_labels(marks, w, h, gh, gw):
    """Per merged patch: kind and colour of what fills it (0: nothing), and the edges of that thing's box
    measured from the patch, in patches."""
    gh, gw = gh // 2, gw // 2
    out = np.zeros((gh, gw, 6), np.float32)
    col, row = np.arange(gw), np.arange(gh)
    for kind, color, x0, y0, x1, y1 in marks:
        x0, x1, y0, y1 = x0 * gw / w, x1 * gw / w, y0 * gh / h, y1 * gh / h
        over = (
            np.clip(np.minimum(row + 1, y1) - np.maximum(row, y0), 0, None)[:, None]
            * np.clip(np.minimum(col + 1, x1) - np.maximum(col, x0), 0, None)[None]
        )
        r, c = np.nonzero(over >= min(0.35, over.max() * 0.8))
        out[r, c] = np.stack(
            [np.full(len(r), kind), np.full(len(r), color), x0 - c, y0 - r, x1 - c, y1 - r], 1
        )
    return out.reshape(-1, 6)


def patch_places(t, gh, gw):
    """Row and column of every patch, in the same order."""
    r, c = np.mgrid[0:gh, 0:gw]
    return np.tile(
        np.stack([v.reshape(gh // 2, 2, gw // 2, 2).transpose(0, 2, 1, 3).ravel() for v in (r, c)], 1), (t, 1)
    )


# ---------- token sequences ----------
class Coder:
    """Text to Qwen2 token ids, with a cache."""

    def __init__(self, path):
        self.tok = Tokenizer.from_file(str(path))
        self.enc = functools.lru_cache(200000)(
            lambda s: tuple(self.tok.encode(s, add_special_tokens=False).ids)
        )
        self.system = self.enc("<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n")
        self.user = self.enc("<|im_start|>user\n")
        self.mid = self.enc("<|im_end|>\n<|im_start|>assistant\n")


def sequence(coder, rng, scene, budget, train=True):
    """Tokens, 3-D positions, segments and targets.

    In training several questions share one image: either as turns of one chat, or side by side, each seeing the
    image but not the other questions (segments > 0) with positions restarted. A few training prompts are damaged
    on purpose: unseen ids in the system prompt or the question, or no <|vision_end|>, whose answer is MALFORMED.
    """
    ids, pos = [], []
    out = dict(ids=ids, pos=pos, pix=[], grids=[], places=[], cells=[])

    def text(tokens):
        p = max(map(max, pos)) + 1 if pos else 0
        for k, t in enumerate(tokens):
            ids.append(t)
            pos.append((p + k,) * 3)

    system = coder.system
    if train and rng.random() < 0.06:
        k = rng.randint(1, 14)
        system = system[:3] + (UNSEEN,) * k + system[-2:]
    text(system + coder.user)
    media = [scene["video"]] if "video" in scene else [[im] for im in scene["images"]]
    malformed = train and media and rng.random() < 0.025
    for frames in media:
        grid = add_media(out, scene, frames, train)
        text((VSTART,))
        p = pos[-1][0] + 1
        for t, r, c in np.ndindex(grid[0], grid[1] // 2, grid[2] // 2):
            ids.append(VIDEO if "video" in scene else IMAGE)
            pos.append((p + t, p + r, p + c))
        if not malformed:
            text((VEND,))
    seg, target = [0] * len(ids), [-1] * len(ids)
    apart = rng.random() < 0.7 if train else True
    start = max(map(max, pos)) + 1
    for n, (_, q, a) in enumerate(scene["qas"]):
        q = coder.enc(q)
        if train and rng.random() < 0.08:
            k, cut = rng.randint(1, 5), rng.choice([0, 0, len(q), rng.randint(0, len(q))])
            q = q[:cut] + (UNSEEN,) * k + q[cut:]
        answer = coder.enc(MALFORMED if malformed else a) + (END,)
        head = q + coder.mid
        if n and not apart:
            head = coder.enc("\n") + coder.user + head
        new = head + answer
        if n and len(ids) + len(new) > budget:
            break
        p = start if apart or n == 0 else max(pos[-1]) + 1
        ids += new
        pos += [(p + k,) * 3 for k in range(len(new))]
        seg += [n + 1 if apart else 0] * len(new)
        target += [-1] * (len(head) - 1) + list(answer) + [-1]
    return dict(out, seg=seg, target=target)


def add_media(out, scene, frames, train):
    """Puts the patches of one image or video into a sequence, and for training what fills them; the grid."""
    x, grid = patches(frames)
    if train:
        first = len(out["cells"])
        for f in range(grid[0]):
            out["cells"].append(cell_labels(scene["marks"][first + f], *frames[0].size, *grid[1:]))
    out["pix"].append(x)
    out["grids"].append(grid)
    out["places"].append(patch_places(*grid))
    return grid


def collate(seqs, table):
    """Numpy batch: padded token arrays, packed patches, and the index tables of the vision attention."""
    B, T = len(seqs), max(len(s["ids"]) for s in seqs)
    raw, pos = np.zeros((B, T), np.int64), np.zeros((3, B, T), np.int64)
    seg, target = np.full((B, T), -1, np.int64), np.full((B, T), -1, np.int64)
    for b, s in enumerate(seqs):
        n = len(s["ids"])
        raw[b, :n], pos[:, b, :n], seg[b, :n], target[b, :n] = (
            s["ids"],
            np.array(s["pos"]).T,
            s["seg"],
            s["target"],
        )
    slots = np.flatnonzero((raw.reshape(-1) == IMAGE) | (raw.reshape(-1) == VIDEO))
    target = np.where(target >= 0, table[target], -1)
    return dict(ids=table[raw], pos=pos, seg=seg, target=target, slots=slots, **collate_pictures(seqs))


def collate_pictures(seqs):
    """The part of a batch that the vision tower needs; frames of different sizes are padded by `pad` and `ok`."""
    if not any(s["pix"] for s in seqs):
        return {}
    pix = [p for s in seqs for p in s["pix"]]
    lens = np.array([h * w for s in seqs for t, h, w in s["grids"] for _ in range(t)])
    ok = np.arange(lens.max())[None] < lens[:, None]
    pad = np.zeros(ok.shape, np.int64)
    pad[ok] = np.arange(lens.sum())
    out = dict(
        pix=np.concatenate(pix),
        places=np.concatenate([p for s in seqs for p in s["places"]]),
        pad=pad.ravel(),
        ok=ok,
        packed=np.flatnonzero(ok.ravel()),
    )
    if any(s["cells"] for s in seqs):
        out["cells"] = np.concatenate([c for s in seqs for c in s["cells"]])
        out["spots"] = np.concatenate(
            [
                np.tile(np.mgrid[0 : h // 2, 0 : w // 2].reshape(2, -1).T, (t, 1))
                for s in seqs
                for t, h, w in s["grids"]
            ]
        ).clip(0, 7)
    return out
