"""Measures the demo model, and writes question sets with reference answers.

    python eval.py hf HF_DIR                       greedy exact match for each task, transformers in fp32
    python eval.py ov OV_DIR [--processor HF_DIR]  the same through optimum-intel (OpenVINO)
    python eval.py cli PROGRAM [-- OPTION...]      the same through the command `qwen2vl annotate`
    python eval.py write HF_DIR OV_DIR OUT         pictures, truth and both models' answers -> OUT/eval.jsonl

The pictures are held out: other seeds than training's, and other handwritten digits. A box is right with the
right name and an overlap (intersection over union) of at least 0.5; every other answer must be exactly right.
"""

import argparse
import json
import pathlib
import random
import subprocess
import tempfile
import time

import numpy as np
import scenes as S
import sequences as Q
import torch
from optimum.intel import OVModelForVisualCausalLM
from scoring import iou, right
from transformers import AutoProcessor, Qwen2VLForConditionalGeneration

SEED = 424200


def items(task, n, seed=SEED):
    """n held-out (scene, question, answer): pictures, texts and source digits that training never saw."""
    rng = random.Random(seed * 100 + S.TASKS.index(task))
    out = []
    for _ in range(n):
        sc = S.scene(rng, held=True, task=task)
        _, q, a = rng.choice(sc["qas"])
        out.append((sc, q, a))
    return out


def prompt_of(processor, sc, q):
    """The prompt as the chat template writes it."""
    media = [dict(type="video")] if "video" in sc else [dict(type="image")] * len(sc["images"])
    content = media + [dict(type="text", text=q)] if media else q
    return processor.apply_chat_template(
        [dict(role="user", content=content)], tokenize=False, add_generation_prompt=True
    )


def encode(processor, batch, suffix=None, change=lambda prompt: prompt):
    """Model inputs of (scene, question, answer) triples; `suffix` makes the text behind the prompt from the
    answer, `change` alters the prompt."""
    kw = {}
    images = [sc["images"] for sc, _, _ in batch if sc.get("images")]
    if images:
        kw["images"] = [im for group in images for im in group]
    videos = [np.stack([np.array(f) for f in sc["video"]]) for sc, _, _ in batch if "video" in sc]
    if videos:
        kw["videos"] = videos
    text = [change(prompt_of(processor, sc, q)) + (suffix(a) if suffix else "") for sc, q, a in batch]
    return processor(text=text, padding=len(batch) > 1, return_tensors="pt", **kw)


def load_hf(path):
    """Processor and model in transformers, fp32."""
    return AutoProcessor.from_pretrained(path), Qwen2VLForConditionalGeneration.from_pretrained(
        path, dtype=torch.float32
    ).eval()


def load_ov(path, processor=None):
    """Processor and model in optimum-intel; an export's own processor unless another folder is given."""
    return AutoProcessor.from_pretrained(processor or path), OVModelForVisualCausalLM.from_pretrained(path)


def answers(processor, model, batch):
    """Greedy answers: (ids without the end token, text) per item."""
    processor.tokenizer.padding_side = "left"
    x = encode(processor, batch)
    with torch.no_grad():
        y = model.generate(**x, do_sample=False, temperature=None, top_p=None, top_k=None, max_new_tokens=80)
    out = []
    for row in y[:, x["input_ids"].shape[1] :].tolist():
        ids = row[: row.index(Q.END)] if Q.END in row else row
        out.append((ids, processor.tokenizer.decode(ids, skip_special_tokens=False)))
    return out


def answer_texts(processor, model, batch):
    """What asks a model for the texts of its answers, so many at once."""
    return lambda its: [t for i in range(0, len(its), batch) for _, t in answers(processor, model, its[i : i + batch])]


def command_texts(program, options):
    """The same through the command line."""

    def ask(its):
        with tempfile.TemporaryDirectory() as folder:
            out, rows = pathlib.Path(folder), []
            for number, (scene, question, _) in enumerate(its):
                named = save_pictures(scene, "scene", number, out)
                media = {"image" if kind == "images" else kind: names for kind, names in named.items() if names}
                rows.append(json.dumps(dict(media, prompt=question)))
            table = out / "questions.jsonl"
            table.write_text("\n".join(rows))
            command = [program, "annotate", table, "--format", "jsonl", *options]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        return [json.loads(line)["result"] for line in done.stdout.splitlines()]

    return ask


def table(ask, n):
    """Prints accuracy and two wrong answers for each task."""
    total, begin = {}, time.time()
    for task in S.TASKS:
        its = items(task, n)
        triples = list(zip(its, ask(its), strict=True))
        ok = [right(task, text, a) for (_, _, a), text in triples]
        total[task] = sum(ok) / n
        extra = ""
        if task == "box":
            overlap = np.mean([iou(text, a) for (_, _, a), text in triples])
            exact = np.mean([text == a for (_, _, a), text in triples])
            extra = f"  mean IoU {overlap:.3f} exact {exact:.3f}"
        wrong = [(q, a, text) for ((_, q, a), text), good in zip(triples, ok, strict=True) if not good][:2]
        print(f"{task:8s} {total[task]:.3f}{extra}   {wrong}", flush=True)
    print(f"mean {np.mean(list(total.values())):.3f}  {time.time() - begin:.0f} s", flush=True)
    print(json.dumps(total), flush=True)


# ---------- question sets ----------
def save_pictures(scene, task, number, out):
    """Writes a scene's pictures; the part of a row that names them."""
    if "video" in scene:
        folder = f"video_{number:02d}"
        (out / folder).mkdir(exist_ok=True)
        names, pictures = [f"{folder}/{i}.png" for i in range(len(scene["video"]))], scene["video"]
    else:
        letters = "ab" if len(scene["images"]) > 1 else [""]
        names = [f"{task}_{number:02d}{x}.png" for x in letters[: len(scene["images"])]]
        pictures = scene["images"]
    for name, picture in zip(names, pictures, strict=True):
        picture.save(out / name)
    return {"video" if "video" in scene else "images": names}


def question_set(seed, n):
    """(task, number, scene, questions) of n scenes a task: two different questions each, of a conversation's one."""
    for index, task in enumerate(S.TASKS):
        rng = random.Random(seed * 1000 + index)
        for number in range(n):
            scene = S.scene(rng, held=True, task=task)
            questions = {}
            for _, q, a in scene["qas"]:
                if len(questions) < (1 if task == "chat" else 2):
                    questions.setdefault(q, a)
            yield task, number, scene, questions


def write(hf, ov, out, seed, n):
    """Writes the pictures and eval.jsonl."""
    processor, model = load_hf(hf)
    _, int4 = load_ov(ov, hf)
    out.mkdir(parents=True, exist_ok=True)
    rows = []
    for task, number, scene, questions in question_set(seed, n):
        media = save_pictures(scene, task, number, out)
        for q, a in questions.items():
            ((hf_ids, hf_text),) = answers(processor, model, [(scene, q, a)])
            ((ov_ids, ov_text),) = answers(processor, int4, [(scene, q, a)])
            row = dict(id=len(rows) + 1, task=task, **media, question=q, answer=a)
            row.update(hf_ids=hf_ids, hf=hf_text, hf_right=right(task, hf_text, a))
            row.update(int4_ids=ov_ids, int4=ov_text, int4_right=right(task, ov_text, a))
            if task == "box":
                row.update(hf_iou=round(iou(hf_text, a), 3), int4_iou=round(iou(ov_text, a), 3))
            rows.append(row)
    with open(out / "eval.jsonl", "w") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    right_hf, right_ov = (sum(row[key] for row in rows) for key in ("hf_right", "int4_right"))
    same = sum(row["hf_ids"] == row["int4_ids"] for row in rows)
    print(f"{len(rows)} questions; right: {right_hf} transformers, {right_ov} INT4; same ids: {same}")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    hf = commands.add_parser("hf", help="measure a Hugging Face checkpoint")
    hf.add_argument("model", type=pathlib.Path)
    ov = commands.add_parser("ov", help="measure an OpenVINO export")
    ov.add_argument("model", type=pathlib.Path)
    ov.add_argument("--processor", type=pathlib.Path, help="folder of the processor, if not the export's own")
    cli = commands.add_parser("cli", help="measure through the command line")
    cli.add_argument("program", help="the command qwen2vl")
    cli.add_argument("options", nargs="*", help="options of `qwen2vl annotate`, behind --")
    for command in (hf, ov, cli):
        command.add_argument("--n", type=int, default=200, help="questions for each task")
    new = commands.add_parser("write", help="write a question set")
    for name in ("hf", "ov", "out"):
        new.add_argument(name, type=pathlib.Path)
    new.add_argument("--seed", type=int, default=11, help="11 gives the pictures of ../eval")
    new.add_argument("--n", type=int, default=7, help="scenes for each task")
    args = parser.parse_args()
    if args.command == "hf":
        table(answer_texts(*load_hf(args.model), 50), args.n)
    elif args.command == "ov":
        table(answer_texts(*load_ov(args.model, args.processor), 1), args.n)
    elif args.command == "cli":
        table(command_texts(args.program, args.options), args.n)
    else:
        write(args.hf, args.ov, args.out, args.seed, args.n)


if __name__ == "__main__":
    main()
