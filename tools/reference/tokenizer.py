"""Goldens of the tokenizer layer: chat template, ids, expansion, positions, detokenizing.

    python tokenizer.py --work DIR

Reference: Hugging Face transformers 4.57.6 (`apply_chat_template`, `Qwen2VLProcessor`, `get_rope_index`) with the demo
model's files, whose tokenizer and template are Qwen2-VL's own. Writes tests/golden/tokenizer.
"""
import argparse
import random
import types

import common
import numpy as np
import torch
from transformers import AutoConfig, AutoProcessor
from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VLModel

IMAGE, VIDEO, START, END = 151655, 151656, 151652, 151653

TEXTS = [
    "", " ", "\n", "\r\n", "\t\ttab", "Hello, world!", "Describe this image.", "naïve café Ångström", "e\u0301 vs é",
    "你好，世界。这是什么？", "日本語のテキスト", "한국어 문장입니다", "مرحبا بالعالم", "שלום עולם", "สวัสดีชาวโลก", "नमस्ते दुनिया",
    "Привет, мир", "Γειά σου Κόσμε", "👋🌍", "👨‍👩‍👧‍👦 family", "🇩🇪🇯🇵", "a\u200db", "\u0000nul", "x" * 3000, "1234567890 3.14159 1,000,000",
    "def f(x):\n    return x ** 2  # square\n", "{\"shape\": \"circle\"}", "   leading and trailing   ", "a  b   c    d",
    "<|im_start|>user\nhi<|im_end|>", "<|vision_start|><|image_pad|><|vision_end|>", "<|image_pad", "|>", "<|endoftext|>",
    "<|object_ref_start|>cat<|object_ref_end|><|box_start|>(1,2),(3,4)<|box_end|>", "I'M you'Re don't", "\u2028\u2029\ufeff",
    "ﬁ ligature ² ½ Ⅷ", "Z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯̞̠͍A̴̵̜̰͔ͫ͗͢L̠ͨͧͩ͘G̴̻͈͍͔̹̑͗̎̅͛́Ǫ̵̹̻̝̳͂̌̌͘",
]
PIECES = ["a", "The quick", " brown", "fox ", "\n\n", "é", "你", "好", "🙂", "1", "23", " ", "  ", ".", ",", "'s", "ß", "العربية",
          "<|im_end|>", "->", "http://x.y/z?q=1", "_", "한", "ไทย", "\t", "ZWJ\u200d", "👩‍🚀"]


def template_cases(rng):
    image, video = {"type": "image"}, {"type": "video"}
    text = lambda t: {"type": "text", "text": t}
    user = lambda *parts: {"role": "user", "content": list(parts)}
    conversations = [
        [{"role": "user", "content": "Hi"}],
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
        [user(image, text("What is this?"))],
        [user(text("Before "), image, text(" between "), image, text(" after"))],
        [user(video, text("What happens?"))],
        [user(image, video, image, video, text("Compare."))],
        [user(*[image] * 10, text("Count."))],
        [user(image)],
        [{"role": "user", "content": []}],
        [user(text(""))],
        [user(text("line\nline  \n  indented {{ x }} {% if %}"))],
        [user({"type": "image_url", "image_url": {"url": "a.png"}}, text("x"))],
        [user({"type": "image", "image": "b.png"}, text("x"))],
        [user(image, text("One?")), {"role": "assistant", "content": "Yes."}, user(text("Two?"))],
        [user(image, text("One?")), {"role": "assistant", "content": [text("A "), text("B")]}, user(image, text("?"))],
        [{"role": "system", "content": [text("S")]}, user(text("x"))],
        [{"role": "user", "content": "a"}, {"role": "system", "content": "late"}, {"role": "user", "content": "b"}],
        [{"role": "user", "content": "😀 你好 <|im_end|>"}],
    ]
    for _ in range(40):
        turns = [{"role": "system", "content": "S"}] if rng.random() < 0.3 else []
        for k in range(rng.randint(1, 5)):
            parts = [rng.choice([image, video, text(rng.choice(TEXTS[:40]))]) for _ in range(rng.randint(0, 5))]
            turns.append({"role": "assistant" if k % 2 else "user",
                          "content": rng.choice(TEXTS[:40]) if rng.random() < 0.3 else parts})
        conversations.append(turns)
    return conversations


def templates(processor, rng):
    rows = []
    for messages in template_cases(rng):
        for generation in (True, False):
            for vision_id in (True, False):
                prompt = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=generation,
                                                       add_vision_id=vision_id)
                rows.append(dict(messages=messages, add_generation_prompt=generation, add_vision_id=vision_id,
                                 prompt=prompt))
    return rows


def encodings(tokenizer, rng):
    texts = TEXTS + ["".join(rng.choice(PIECES) for _ in range(rng.randint(1, 40))) for _ in range(260)]
    rows = []
    for text in texts:
        ids = tokenizer(text)["input_ids"]
        rows.append(dict(text=text, ids=ids, decoded=tokenizer.decode(ids),
                         skipped=tokenizer.decode(ids, skip_special_tokens=True)))
    return rows


def detokenizings(tokenizer, rng):
    """Random ids: bytes that are no UTF-8, special tokens, ids outside the vocabulary."""
    rows = []
    for _ in range(300):
        ids = [rng.choice([rng.randrange(256), rng.randrange(151643), rng.randrange(151643, 151700)])
               for _ in range(rng.randint(1, 30))]
        rows.append(dict(ids=ids, decoded=tokenizer.decode(ids),
                         skipped=tokenizer.decode(ids, skip_special_tokens=True)))
    return rows


def expansions(processor, rng):
    """The whole processor on small pictures and clips: ids with expanded placeholders, and grids."""
    rows = []
    for k in range(40):
        media = [rng.choice("iiv") for _ in range(rng.randint(0, 4))]
        side = lambda: rng.randint(20, 160)
        pictures = [np.zeros((side(), side(), 3), np.uint8) for m in media if m == "i"]
        clips = [np.zeros((rng.randint(2, 5), side(), side(), 3), np.uint8) for m in media if m == "v"]
        parts = [{"type": "image" if m == "i" else "video"} for m in media] + [{"type": "text", "text": f"Question {k}?"}]
        rng.shuffle(parts)
        prompt = processor.apply_chat_template([{"role": "user", "content": parts}], tokenize=False,
                                               add_generation_prompt=True)
        out = processor(text=[prompt], images=pictures or None, videos=clips or None, return_tensors="pt")
        grids = lambda key: out[key].tolist() if key in out else []
        rows.append(dict(prompt=prompt, images=grids("image_grid_thw"), videos=grids("video_grid_thw"),
                         ids=runs(out["input_ids"][0].tolist())))
    return rows


def runs(values):
    """Run lengths, flat: value, count, value, count, ..."""
    out = []
    for value in values:
        if out and out[-2] == value:
            out[-1] += 1
        else:
            out += [value, 1]
    return out


def deltas(values):
    """First value and then run lengths of the differences."""
    return runs([values[0]] + [b - a for a, b in zip(values, values[1:])]) if values else []


def layouts(config, rng):
    model = types.SimpleNamespace(config=config)
    rows = []
    for k in range(420):
        ids, images, videos = [], [], []
        text = lambda: ids.extend(rng.randrange(1000, 2000) for _ in range(rng.choice([0, 0, 1, 2, 5, 20])))
        text()
        for _ in range(rng.randint(0 if k % 20 == 0 else 1, 6)):
            video = rng.random() < 0.4
            grid = [rng.randint(1, 8) if video else 1, 2 * rng.randint(1, 9), 2 * rng.randint(1, 9)]
            (videos if video else images).append(grid)
            n = grid[0] * grid[1] * grid[2] // 4
            ids += [START] + [VIDEO if video else IMAGE] * n + [END]
            text()
        if not ids:
            ids = [5]
        tensor = lambda grids: torch.tensor(grids) if grids else None
        positions, delta = Qwen2VLModel.get_rope_index(model, torch.tensor([ids]), tensor(images), tensor(videos))
        rows.append(dict(ids=runs(ids), images=images, videos=videos, delta=int(delta),
                         positions=[deltas(axis) for axis in positions[:, 0].tolist()]))
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", required=True, help="folder for the unpacked checkpoint")
    folder = common.unpack("demo-model-hf", parser.parse_args().work)
    processor = AutoProcessor.from_pretrained(folder)
    rng = random.Random(20_26)
    out = common.GOLDEN / "tokenizer"
    out.mkdir(parents=True, exist_ok=True)
    common.write_jsonl(out / "template.jsonl", templates(processor, rng))
    common.write_jsonl(out / "encode.jsonl", encodings(processor.tokenizer, rng))
    common.write_jsonl(out / "detokenize.jsonl", detokenizings(processor.tokenizer, rng))
    common.write_jsonl(out / "expand.jsonl", expansions(processor, rng))
    common.write_jsonl(out / "rope_index.jsonl", layouts(AutoConfig.from_pretrained(folder), rng))
    common.write_manifest("tokenizer")


if __name__ == "__main__":
    main()
