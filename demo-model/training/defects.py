"""What typical porting mistakes cost: accuracy of the demo model with one part made wrong at a time.

    python defects.py HF_DIR

Teacher forcing in fp32: an answer counts if every token is the most probable one, which is the same as greedy
exact match. Boxes count only when exact, so that column is near 0 even without a mistake.
"""

import argparse
import pathlib
import re

import numpy as np
import scenes as S
import sequences as Q
import torch
from eval import encode, items, load_hf
from model import MEAN, STD
from PIL import Image


def swap_twice(im):
    h, w = Q.smart_resize(im.height, im.width)
    return im.resize((h, w), Image.BICUBIC).resize((w, h), Image.BICUBIC)


def half_up(im):
    """The grid of ports that round .5 away from zero."""
    h, w = (int(v / 28 + 0.5) * 28 for v in (im.height, im.width))
    return (
        im
        if h * w < Q.MIN_PIXELS or (h, w) == Q.smart_resize(im.height, im.width)
        else im.resize((w, h), Image.BICUBIC)
    )


def per_image(f):
    def g(sc):
        return {k: [f(im) for im in v] if k in ("images", "video") else v for k, v in sc.items()}

    return g


def bgr(im):
    return Image.fromarray(np.array(im)[:, :, ::-1].copy())


def row_major(p, grids):
    out, at = [], 0
    for t, h, w in grids.tolist():
        place = Q.patch_places(t, h, w)
        frame = np.repeat(np.arange(t), h * w)
        order = np.lexsort((place[:, 1], place[:, 0], frame))
        out.append(p[at : at + t * h * w][torch.from_numpy(order)])
        at += t * h * w
    return torch.cat(out)


def time_first(p, grids):
    return p.view(-1, 3, 2, 196).transpose(1, 2).reshape(len(p), -1)


def transposed(p, grids):
    return p.view(-1, 6, 14, 14).transpose(2, 3).reshape(len(p), -1)


def not_normalised(p, grids):
    mean, std = (torch.tensor(v).repeat_interleave(392) for v in (MEAN, STD))
    return p * std + mean


def half_normalised(p, grids):
    return (not_normalised(p, grids) - 0.5) / 0.5


def flat(pos, start, ids):
    return torch.arange(pos.shape[2]).expand_as(pos).contiguous()


def h_w_swapped(pos, start, ids):
    return pos[[0, 2, 1]]


def no_delta(pos, start, ids):
    """The answer continues at the number of tokens so far, as if rope_delta were 0."""
    pos = pos.clone()
    for b, s in enumerate(start):
        pos[:, b, s:] = torch.arange(s, pos.shape[2])
    return pos


def step_two(pos, start, ids):
    pos = pos.clone()
    for b in range(len(ids)):
        v = (ids[b] == Q.VIDEO).nonzero().flatten()
        if len(v):
            t0 = pos[0, b, v[0]].clone()
            pos[0, b, v] = t0 + 2 * (pos[0, b, v] - t0)
            shift = max(0, int(pos[:, b, v].max()) + 1 - int(pos[0, b, v[-1] + 1]))
            pos[:, b, v[-1] + 1 :] += shift
    return pos


DEFECTS = {
    "none": {},
    "1-D positions instead of M-RoPE": dict(pos=flat),
    "M-RoPE with row and column swapped": dict(pos=h_w_swapped),
    "decode without rope_delta": dict(pos=no_delta),
    "video time step 2": dict(pos=step_two),
    "row-major patches": dict(pix=row_major),
    "time before channel in a patch": dict(pix=time_first),
    "patch rows and columns swapped": dict(pix=transposed),
    "BGR": dict(scene=per_image(bgr)),
    "sides swapped, resized twice": dict(scene=per_image(swap_twice)),
    "no normalisation (0..1)": dict(pix=not_normalised),
    "mean 0.5, std 0.5": dict(pix=half_normalised),
    "half-up rounding of the sides": dict(scene=per_image(half_up)),
    # Trained to be answered by sequences.MALFORMED, so this row is 0 by construction.
    "without <|vision_end|>": dict(text=lambda s: s.replace("<|vision_end|>", "")),
    "without system prompt": dict(text=lambda s: s.split("<|im_end|>\n", 1)[1]),
    "image after the question": dict(
        text=lambda s: re.sub(
            r"((?:<\|vision_start\|>.*<\|vision_end\|>)+)(.*?)<\|im_end\|>\n<\|im_start\|>a",
            r"\2\1<|im_end|>\n<|im_start|>a",
            s,
        )
    ),
}


def forced(processor, model, its, d):
    """Per item: is every answer token the argmax? (the same as greedy exact match)"""
    tok = processor.tokenizer
    tok.padding_side = "right"
    its = [(d["scene"](sc) if "scene" in d else sc, q, a) for sc, q, a in its]
    x = encode(processor, its, lambda a: a + "<|im_end|>", d.get("text", lambda prompt: prompt))
    ids, mask = x["input_ids"], x["attention_mask"]
    n = [len(tok(a + "<|im_end|>")["input_ids"]) for _, _, a in its]
    end = mask.sum(1).tolist()
    start = [e - k for e, k in zip(end, n)]
    pos, _ = model.model.get_rope_index(ids, x.get("image_grid_thw"), x.get("video_grid_thw"), mask)
    if "pos" in d:
        pos = d["pos"](pos, start, ids)
    if "pix" in d:
        for k, g in (("pixel_values", "image_grid_thw"), ("pixel_values_videos", "video_grid_thw")):
            if k in x:
                x[k] = d["pix"](x[k], x[g])
    with torch.no_grad():
        h = model.model(**x, position_ids=pos)[0]
        return [
            bool((model.lm_head(h[b, s - 1 : e - 1]).argmax(-1) == ids[b, s:e]).all())
            for b, (s, e) in enumerate(zip(start, end))
        ]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=pathlib.Path, help="a Hugging Face checkpoint")
    parser.add_argument("--n", type=int, default=50, help="questions for each task")
    args = parser.parse_args()
    n = args.n
    processor, model = load_hf(args.model)
    print("| defect | " + " | ".join(S.TASKS) + " | mean |\n|" + "---|" * (len(S.TASKS) + 2), flush=True)
    for name, d in DEFECTS.items():
        acc = []
        for t in S.TASKS:
            its = items(t, n)
            acc.append(
                np.mean([k for i in range(0, n, 50) for k in forced(processor, model, its[i : i + 50], d)])
            )
        print(
            f"| {name} | " + " | ".join(f"{100 * v:.0f}" for v in acc) + f" | {100 * np.mean(acc):.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
