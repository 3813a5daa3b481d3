"""Checks the data of tests/golden/spark-package, as far as that goes without Spark NLP, and writes its manifest.

    python spark_package.py --work DIR

The data were written by the real Spark NLP and are kept as they came:

- `expected.json`: what a reader must find in a saved Qwen2VLTransformer whose weights are random and tiny and whose
  tokenizer is the true one (the model itself, 23 MB, is left out): counts, samples, class descriptors, parameters, and the
  ids that Spark NLP and Hugging Face make of 17 prompts,
- `schema.json`: the schema of a frame with the annotator's input and output, and one row,
- `pipeline-model-excerpt.zip`: a saved PipelineModel of ImageAssembler and Qwen2VLTransformer, with two of the four
  features and one of the seven models.

Checked here: Hugging Face's ids, vocabulary, merges and added tokens against the demo model's tokenizer; every `.crc` side
file in the excerpt; the classes' order of fields. Versions that wrote the data: Spark 3.5.9 (Scala 2.12.18, Hadoop 3.3.4),
JDK 17.0.15, spark-nlp 5.5.3 from Maven Central with the published source of its annotator Qwen2VLTransformer (new in
6.0.0), the Python package spark-nlp 6.4.2.
"""
import argparse
import json
import posixpath
import zipfile

import common
from pack_spark import Checksums
from transformers import AutoTokenizer

AREA = common.GOLDEN / "spark-package"
WRITTEN_BY = {"spark": "3.5.9", "scala": "2.12.18", "hadoop": "3.3.4", "jdk": "17.0.15", "spark-nlp (jar)": "5.5.3",
              "spark-nlp (python)": "6.4.2"}
IMAGE_PAD = "<|image_pad|>"


def check_tokenizer(expected, tokenizer):
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    vocabulary, merges = content["model"]["vocab"], content["model"]["merges"]
    added = expected["addedTokens"]
    assert expected["vocabulary"]["size"] == len(vocabulary) + len(added)
    assert expected["merges"]["count"] == len(merges)
    for token, token_id in [*expected["vocabulary"]["sample"].items(), *added.items()]:
        assert tokenizer.convert_tokens_to_ids(token) == token_id, token
    for first, second, rank in expected["merges"]["sample"]:
        assert merges[rank] in ([first, second], f"{first} {second}"), rank


def check_prompts(expected, tokenizer):
    for name, case in expected["prompt_tokens"].items():
        if case.get("hugging_face") is not None:
            prompt = case["prompt"].replace(IMAGE_PAD, IMAGE_PAD * case["image_tokens"])
            assert tokenizer(prompt)["input_ids"] == case["hugging_face"], name


def check_classes(expected):
    """Primitive fields before references, each by name: what the order of values in a stream rests on."""
    for feature in expected["features_on_disk"].values():
        for name, described in feature["classes"].items():
            fields = [(kind in "L[", field) for kind, field in described["fields"]]
            assert fields == sorted(fields), name


def check_excerpt(path):
    with zipfile.ZipFile(path) as archive:
        names = [n for n in archive.namelist() if n.endswith(".crc")]
        assert names
        for name in names:
            folder, base = posixpath.split(name)
            checksums = Checksums()
            checksums.write(archive.read(posixpath.join(folder, base[1:-len(".crc")])))
            assert checksums.content() == archive.read(name), name


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", required=True, help="folder for the unpacked checkpoint")
    tokenizer = AutoTokenizer.from_pretrained(common.unpack("demo-model-hf", parser.parse_args().work))
    expected = json.loads((AREA / "expected.json").read_text())
    check_tokenizer(expected, tokenizer)
    check_prompts(expected, tokenizer)
    check_classes(expected)
    check_excerpt(AREA / "pipeline-model-excerpt.zip")
    common.write_manifest("spark-package", written_by=WRITTEN_BY)


if __name__ == "__main__":
    main()
