"""Goldens of label scoring: log-probabilities of given answers by transformers, each label in a pass of its own.

    python score.py --work DIR

Writes tests/golden/score/labels.jsonl: for some items of the evaluation set labels, answers to other items of the same
task, one that another begins with among them, and for each the logarithm of the probability of its tokens and of one of
the model's stop tokens behind them: the demo model, fp32, one pass over prompt and label.
"""
import argparse

import common
import torch
import transformers
from end_to_end import inputs_of, read_items
from transformers import AutoProcessor, Qwen2VLForConditionalGeneration

AREA = "score"
PACKAGES = ["transformers", "torch", "torchvision", "pillow", "numpy", "tokenizers"]
EVERY = 6
MOST = 6


def labels_of(item, items):
    answers = [item["answer"]] + [other["answer"] for other in items if other["task"] == item["task"]]
    labels = list(dict.fromkeys(answers))[:MOST]
    words = item["answer"].split(" ")
    shorter = " ".join(words[:-1]) if len(words) > 1 else item["answer"] + "s"
    return labels + [label for label in (shorter, "no such thing") if label not in labels]


def logprob(model, inputs, label, stop):
    ids = torch.cat((inputs["input_ids"], torch.tensor([label])), 1)
    n = inputs["input_ids"].shape[1]
    media = {k: v for k, v in inputs.items() if k not in ("input_ids", "attention_mask")}
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), **media).logits[0, n - 1 :]
    rows = torch.log_softmax(logits.double(), -1)
    chosen = sum(float(row[id]) for row, id in zip(rows, label))
    return chosen + float(torch.logsumexp(rows[len(label)][stop], 0))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", required=True, help="folder for the unpacked models")
    args = parser.parse_args()
    transformers.logging.set_verbosity_error()
    checkpoint = common.unpack("demo-model-hf", args.work)
    processor = AutoProcessor.from_pretrained(checkpoint)
    model = Qwen2VLForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.float32).eval()
    stop = model.generation_config.eos_token_id
    stop = stop if isinstance(stop, list) else [stop]
    items, rows = read_items(), []
    for item in items[::EVERY]:
        inputs = inputs_of(processor, item)
        labels = labels_of(item, items)
        encoded = [processor.tokenizer(label, add_special_tokens=False)["input_ids"] for label in labels]
        logprobs = [round(logprob(model, inputs, ids, stop), 5) for ids in encoded]
        rows.append(dict(id=item["id"], labels=labels, logprobs=logprobs))
    folder = common.GOLDEN / AREA
    folder.mkdir(parents=True, exist_ok=True)
    common.write_jsonl(folder / "labels.jsonl", rows)
    common.write_manifest(AREA, PACKAGES, stop_token_ids=stop)


if __name__ == "__main__":
    main()
