"""Goldens of whole answers: the demo model's evaluation set through the references.

    python end_to_end.py --work DIR

Writes tests/golden/end_to_end: for every item of demo-model/eval/eval.jsonl the greedy token ids of

- `hf`: Hugging Face transformers 4.57.6, fp32 (tests/models/demo-model-fp32-ov.zip.zst is its fp32 OpenVINO export),
- `int4`: optimum-intel with the INT4 export, in f32 arithmetic, so that the result does not depend on the CPU's
  instruction sets,

each with the smallest gap between the first and the second logit of any step (`gap`: small ones are near-ties), and the
first step's logits of the eight likeliest tokens (`first`), and whether the answer is right: equal to the truth, a box
with the right name and an overlap (IoU) of at least one half. `vision.json` has the vision tower's output of three items.
With `--export` the fp32 export is made anew (optimum-cli) before.
"""
import argparse
import json
import pathlib
import subprocess
import sys

import common
import numpy as np
import torch
from optimum.intel import OVModelForVisualCausalLM
from PIL import Image
from transformers import AutoProcessor, Qwen2VLForConditionalGeneration

sys.path.insert(0, str(common.DEMO / "training"))
from scoring import right  # noqa: E402

END = 151645
MAX_NEW_TOKENS = 80
EVAL = common.DEMO / "eval"
FP32_ZIP = "demo-model-fp32-ov"
F32_ARITHMETIC = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0", "KV_CACHE_PRECISION": "f32"}
VISION_ITEMS = ("caption", "two", "video")


def read_items():
    return [json.loads(line) for line in open(EVAL / "eval.jsonl")]


def inputs_of(processor, item):
    picture = lambda name: Image.open(EVAL / name).convert("RGB")
    images = [picture(name) for name in item.get("images", [])]
    frames = [np.asarray(picture(name)) for name in item.get("video", [])]
    media = [{"type": "image"}] * len(images) + ([{"type": "video"}] if frames else [])
    content = media + [{"type": "text", "text": item["question"]}]
    prompt = processor.apply_chat_template([{"role": "user", "content": content}], tokenize=False,
                                           add_generation_prompt=True)
    return processor(text=[prompt], images=images or None, videos=[np.stack(frames)] if frames else None,
                     return_tensors="pt")


def answer(model, inputs, tokenizer, item):
    """Greedy ids without the end token, the smallest gap, the first step's likeliest tokens, and the verdict."""
    with torch.no_grad():
        out = model.generate(**inputs, do_sample=False, temperature=None, top_p=None, top_k=None,
                             max_new_tokens=MAX_NEW_TOKENS, output_logits=True, return_dict_in_generate=True)
    ids = out.sequences[0, inputs["input_ids"].shape[1]:].tolist()
    top = [torch.topk(step[0].float(), 8) for step in out.logits]
    gaps = [float(t.values[0] - t.values[1]) for t in top]
    ids = ids[:ids.index(END)] if END in ids else ids
    first = [[int(i), round(float(v), 4)] for i, v in zip(top[0].indices, top[0].values)]
    verdict = right(item["task"], tokenizer.decode(ids), item["answer"])
    return dict(ids=ids, right=verdict, gap=round(min(gaps), 4), first=first)


def vision(model, processor, items):
    """The first and last values and the mean of every row of the vision tower's output."""
    rows = []
    for task in VISION_ITEMS:
        item = next(i for i in items if i["task"] == task)
        inputs = inputs_of(processor, item)
        kind = "pixel_values_videos" if "video" in item else "pixel_values"
        grid = inputs["video_grid_thw" if "video" in item else "image_grid_thw"]
        with torch.no_grad():
            out = model.model.visual(inputs[kind].float(), grid_thw=grid)
        rows.append(dict(id=item["id"], grids=grid.tolist(), shape=list(out.shape),
                         head=[[round(float(v), 5) for v in row[:8]] for row in out]))
    return rows


def export_fp32(checkpoint, work):
    target = f"{work}/{FP32_ZIP}"
    subprocess.run(["optimum-cli", "export", "openvino", "-m", checkpoint, "--task", "image-text-to-text",
                    "--weight-format", "fp32", target], check=True)
    models = ["language_model", "text_embeddings_model", "vision_embeddings_model", "vision_embeddings_merger_model"]
    files = [pathlib.Path(target) / f"openvino_{model}.{end}" for model in models for end in ("xml", "bin")]
    common.write_model_zip(FP32_ZIP, files)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", required=True, help="folder for the unpacked models")
    parser.add_argument("--export", action="store_true", help="make the fp32 export first")
    args = parser.parse_args()
    checkpoint = common.unpack("demo-model-hf", args.work)
    if args.export:
        export_fp32(checkpoint, args.work)
    processor = AutoProcessor.from_pretrained(checkpoint)
    hf = Qwen2VLForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.float32).eval()
    int4 = OVModelForVisualCausalLM.from_pretrained(common.unpack("demo-model-int4-ov", args.work),
                                                    ov_config=F32_ARITHMETIC)
    items = read_items()
    rows = []
    for item in items:
        inputs = inputs_of(processor, item)
        one = lambda model: answer(model, inputs, processor.tokenizer, item)
        rows.append(dict(id=item["id"], prompt_tokens=inputs["input_ids"].shape[1], hf=one(hf), int4=one(int4)))
    out = common.GOLDEN / "end_to_end"
    out.mkdir(parents=True, exist_ok=True)
    common.write_jsonl(out / "answers.jsonl", rows)
    (out / "vision.json").write_text(json.dumps(vision(hf, processor, items)))
    common.write_manifest("end_to_end")


if __name__ == "__main__":
    main()
