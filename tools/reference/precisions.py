"""Models of the demo model in other precisions, and goldens of whole answers with them and with the Spark NLP form.

    python precisions.py --work DIR [--make]

Writes tests/golden/precisions/answers.jsonl: greedy answers of optimum-intel in f32 arithmetic, with the smallest gap
between the first and the second logit of any step, for

- `spark`: the seven-model form, INT4 (tests/models/demo-spark-nlp.zip.zst), on every item of the evaluation set,
- each model in tests/models/precisions.zip.zst, which replaces its namesake in the INT4 export of optimum-intel (`optimum-*`)
  or in the seven-model form (`spark-*`), on every fourth item.

optimum-intel runs the seven-model form too, once the outputs have the names that it asks for. It gives the vision blocks
their full mask, so equal answers show that ours need none. With `--make` precisions.zip.zst is made anew before:
nncf.compress_weights on fp32 models, the export's (tests/models/demo-model-fp32-ov.zip.zst) and export_spark_layout.py's.
Needs the `zstd` program.
"""
import argparse
import io
import pathlib
import shutil
import zipfile

import common
import nncf
import openvino as ov
from end_to_end import F32_ARITHMETIC, FP32_ZIP, answer, inputs_of, read_items
from export_spark_layout import export
from optimum.intel import OVModelForVisualCausalLM
from pack_spark import DEMO_PACKAGE
from transformers import AutoProcessor

ZIP = "precisions"
TEXT, MERGER = "openvino_text_embeddings_model", "openvino_vision_embeddings_merger_model"
U8 = dict(mode=nncf.CompressWeightsMode.INT8_ASYM)
U4 = dict(mode=nncf.CompressWeightsMode.INT4_ASYM, group_size=32, ratio=1.0, all_layers=True)
# Form, model, and how the weights are compressed; None: f16.
VARIANTS = {
    "optimum-text-f16": ("optimum", TEXT, None),
    "optimum-text-u8": ("optimum", TEXT, U8),
    "optimum-text-u4": ("optimum", TEXT, U4),
    "optimum-merger-u4": ("optimum", MERGER, U4),
    "spark-text-u8": ("spark", TEXT, U8),
    "spark-text-u4": ("spark", TEXT, U4),
    "spark-merger-u8": ("spark", MERGER, U8),
}
# What optimum-intel calls the outputs.
OUTPUTS = {
    "openvino_language_model": "logits",
    TEXT: "inputs_embeds",
    "openvino_vision_embeddings_model": "last_hidden_state",
    MERGER: "last_hidden_state",
}
EVERY = 4


def make(work):
    """precisions.zip.zst: `VARIANT.xml` and `.bin` of each variant."""
    fp32 = {"optimum": work / "fp32-optimum", "spark": work / "fp32-spark"}
    common.model_zip(FP32_ZIP).extractall(fp32["optimum"])
    export(common.unpack("demo-model-hf", work), fp32["spark"], only=["text_embeddings", "vision_embeddings_merger"])
    out = work / "precisions"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    for name, (form, model, options) in VARIANTS.items():
        read = ov.Core().read_model(fp32[form] / f"{model}.xml")
        ov.save_model(nncf.compress_weights(read, **options) if options else read, out / f"{name}.xml")
    common.write_model_zip(ZIP, sorted(out.iterdir()))


def bases(work):
    """The folder of each form."""
    spark = work / "demo-spark"
    package = common.model_zip(DEMO_PACKAGE)
    for name in (n for n in package.namelist() if n.startswith("openvino_")):
        with zipfile.ZipFile(io.BytesIO(package.read(name))) as inner:
            inner.extractall(spark)
    return {"optimum": common.unpack("demo-model-int4-ov", work), "spark": spark}


def assemble(folder, base, configs, replaced):
    """A folder as optimum-intel writes it, of the models in `base` but for the replaced ones."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for path in configs.iterdir():
        if not path.name.endswith(("_model.xml", "_model.bin")):
            shutil.copy(path, folder)
    for model, output in OUTPUTS.items():
        read = ov.Core().read_model(replaced.get(model, base / f"{model}.xml"))
        read.outputs[0].get_tensor().set_names({output})
        ov.save_model(read, folder / f"{model}.xml", compress_to_fp16=False)
    return folder


def answers(name, folder, items):
    processor = AutoProcessor.from_pretrained(folder)
    model = OVModelForVisualCausalLM.from_pretrained(folder, ov_config=F32_ARITHMETIC)
    rows = []
    for item in items:
        row = answer(model, inputs_of(processor, item), processor.tokenizer, item)
        rows.append(dict(model=name, id=item["id"], ids=row["ids"], right=row["right"], gap=row["gap"]))
    print(f"{name}: {sum(row['right'] for row in rows)} of {len(rows)} right", flush=True)
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", required=True, type=pathlib.Path, help="folder for models")
    parser.add_argument("--make", action="store_true", help="make precisions.zip.zst first")
    args = parser.parse_args()
    if args.make:
        make(args.work)
    variants = args.work / "precisions"
    common.model_zip(ZIP).extractall(variants)
    folders, items = bases(args.work), read_items()
    run = lambda name, base, replaced, items: answers(
        name, assemble(args.work / "assembled", base, folders["optimum"], replaced), items)
    rows = run("spark", folders["spark"], {}, items)
    for name, (form, model, _) in VARIANTS.items():
        rows += run(name, folders[form], {model: variants / f"{name}.xml"}, items[::EVERY])
    out = common.GOLDEN / "precisions"
    out.mkdir(parents=True, exist_ok=True)
    common.write_jsonl(out / "answers.jsonl", rows)
    common.write_manifest("precisions", packages=[*common.PACKAGES, "nncf"])


if __name__ == "__main__":
    main()
