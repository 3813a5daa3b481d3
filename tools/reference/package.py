"""Goldens of the package layer: which value transformers takes from which file of a model folder.

    python tools/reference/package.py

Writes tests/golden/package: pixel limits in both spellings, generation defaults, precedence of the chat template's files.
"""
import copy
import itertools
import json
import pathlib
import shutil
import tempfile

import common
from transformers import (
    AutoConfig,
    AutoProcessor,
    GenerationConfig,
    Qwen2VLImageProcessorFast,
    Qwen2VLVideoProcessor,
)

CLASSES = {"image": Qwen2VLImageProcessorFast, "video": Qwen2VLVideoProcessor}
# The constructors write into the class's own `size`: it is put back before each case.
CLASS_SIZES = {kind: copy.deepcopy(cls.size) for kind, cls in CLASSES.items()}


def write(folder, files):
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / name).write_text(text)


def limits(folder, kind):
    CLASSES[kind].size = copy.deepcopy(CLASS_SIZES[kind])
    try:
        size = CLASSES[kind].from_pretrained(folder).size
    except (ValueError, OSError):
        return None
    return [size["shortest_edge"], size["longest_edge"]]


def processors():
    """`image` and `video` are [min, max], or null where transformers refuses the folder."""
    size = dict(shortest_edge=12544, longest_edge=401408)
    spellings = [
        dict(min_pixels=low, max_pixels=high, size=both)
        for low, high, both in itertools.product([None, 3136], [None, 200704], [None, size, dict(longest_edge=401408), dict(shortest_edge=12544)])
    ]
    spellings = [{k: v for k, v in s.items() if v is not None} for s in spellings]
    cases = [{"preprocessor_config.json": s} for s in spellings]
    video = dict(min_pixels=6272, max_pixels=602112)
    cases += [{"preprocessor_config.json": s, "video_preprocessor_config.json": video} for s in spellings[:4]]
    cases += [{"preprocessor_config.json": dict(max_pixels=200704), "video_preprocessor_config.json": s} for s in spellings]
    nested = dict(image_processor=dict(size=size), video_processor=video)
    cases += [{"processor_config.json": nested}, {"processor_config.json": nested, "preprocessor_config.json": dict(max_pixels=200704)}]
    cases += [{"processor_config.json": nested, "video_preprocessor_config.json": dict(max_pixels=200704)}]
    rows = []
    for files in cases:
        with tempfile.TemporaryDirectory() as folder:
            write(pathlib.Path(folder), files)
            rows.append(dict(files=files, **{kind: limits(folder, kind) for kind in CLASSES}))
    return rows


def generations(demo):
    """`fields` is null where transformers refuses the file."""
    names = ["do_sample", "temperature", "top_k", "top_p", "repetition_penalty", "eos_token_id", "max_new_tokens"]
    cases = [
        None,
        {},
        dict(do_sample=True, temperature=0.01, top_k=1, top_p=0.001, eos_token_id=[151645, 151643]),
        dict(do_sample=True, temperature=0.1, repetition_penalty=1.05, top_p=0.001, top_k=1, eos_token_id=[151645, 151643]),
        dict(eos_token_id=151643, max_new_tokens=64),
        dict(do_sample=True, eos_token_id=[151645]),
        dict(temperature=None, top_k=None, top_p=None, eos_token_id=151645),
        dict(do_sample=False, repetition_penalty=2.0),
    ]
    rows = []
    for content in cases:
        with tempfile.TemporaryDirectory() as folder:
            if content is None:
                config = GenerationConfig.from_model_config(AutoConfig.from_pretrained(demo))
            else:
                write(pathlib.Path(folder), {"generation_config.json": content})
                config = GenerationConfig.from_pretrained(folder)
        rows.append(dict(file=content, fields={name: getattr(config, name) for name in names}))
    return rows


def templates(demo):
    """`template` is null where the processor has none."""
    files = {
        "chat_template.json": {"chat_template": "from json"},
        "chat_template.jinja": "from jinja",
        "processor_config.json": {"chat_template": "from processor", "processor_class": "Qwen2VLProcessor"},
    }
    rows = []
    for chosen in itertools.product([False, True], repeat=len(files)):
        case = {name: content for (name, content), use in zip(files.items(), chosen) if use}
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            for name in ["config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"]:
                shutil.copy(demo / name, folder)
            write(folder, case)
            rows.append(dict(files=case, template=AutoProcessor.from_pretrained(folder).chat_template))
    return rows


def main():
    folder = common.GOLDEN / "package"
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as where:
        demo = common.unpack("demo-model-int4-ov", where)
        common.write_jsonl(folder / "processors.jsonl", processors())
        common.write_jsonl(folder / "generation.jsonl", generations(demo))
        common.write_jsonl(folder / "templates.jsonl", templates(demo))
    common.write_manifest("package")


if __name__ == "__main__":
    main()
