"""Goldens of generation options: transformers' `generate` under each of them on the demo model, fp32, greedy.

    python generation_options.py --work DIR

Writes tests/golden/generation_options: for some items of the evaluation set and each of OPTIONS the token ids without the
end token, with the log-probability of each by the model's own logits (`output_logits`, before any processor), and how
many of them are sure: before the first step whose two best scores are less than NEAR_TIE apart, after which two
implementations in f32 may go different ways.
"""
import argparse

import common
import torch
import transformers
from end_to_end import END, inputs_of, read_items
from transformers import AutoProcessor, Qwen2VLForConditionalGeneration

AREA = "generation_options"
PACKAGES = ["transformers", "torch", "torchvision", "pillow", "numpy", "tokenizers"]
EVERY = 7
MAX_NEW_TOKENS = 24
NEAR_TIE = 0.01
# " purple", " red", " blue", " green", " yellow", " orange", " circle", " star", " triangle", " square"
WORDS = [24932, 2518, 6303, 6176, 13753, 18575, 12671, 6774, 21495, 9334]
OPTIONS = [
    dict(),
    dict(repetition_penalty=1.3),
    dict(no_repeat_ngram_size=2),
    dict(no_repeat_ngram_size=3, min_new_tokens=20),
    dict(min_new_tokens=16),
    dict(suppress_tokens=WORDS),
    dict(logit_bias={str(id): 12.0 for id in WORDS[:4]}),
    dict(stop_strings=[" of", "quare", "0"]),
    dict(repetition_penalty=1.1, no_repeat_ngram_size=4, min_new_tokens=12, suppress_tokens=WORDS[:2],
         logit_bias={"6774": 3.0, "13": -6.0}, stop_strings=["circle"]),
]


def answer(model, processor, inputs, options):
    fields = dict(options)
    if bias := fields.pop("logit_bias", None):
        fields["sequence_bias"] = {(int(id),): value for id, value in bias.items()}
    if "stop_strings" in fields:
        fields["tokenizer"] = processor.tokenizer
    with torch.no_grad():
        out = model.generate(**inputs, **fields, do_sample=False, temperature=None, top_p=None, top_k=None,
                             max_new_tokens=MAX_NEW_TOKENS, output_logits=True, output_scores=True,
                             return_dict_in_generate=True)
    ids = out.sequences[0, inputs["input_ids"].shape[1]:].tolist()
    gaps = [float(t[0] - t[1]) for t in (torch.topk(step[0].float(), 2).values for step in out.scores)]
    sure = next((i for i, gap in enumerate(gaps) if gap < NEAR_TIE), len(gaps))
    ended = END in ids
    ids = ids[:ids.index(END)] if ended else ids
    raw = [torch.log_softmax(step[0].double(), -1) for step in out.logits]
    logprobs = [round(float(row[id]), 4) for row, id in zip(raw, ids)]
    # Whether the end is sure as well.
    return dict(ids=ids, sure=min(sure, len(ids)), whole=sure == len(gaps), logprobs=logprobs)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", required=True, help="folder for the unpacked models")
    args = parser.parse_args()
    transformers.logging.set_verbosity_error()
    checkpoint = common.unpack("demo-model-hf", args.work)
    processor = AutoProcessor.from_pretrained(checkpoint)
    model = Qwen2VLForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.float32).eval()
    rows = []
    for item in read_items()[::EVERY]:
        inputs = inputs_of(processor, item)
        for options in OPTIONS:
            rows.append(dict(id=item["id"], options=options, **answer(model, processor, inputs, options)))
    folder = common.GOLDEN / AREA
    folder.mkdir(parents=True, exist_ok=True)
    common.write_jsonl(folder / "answers.jsonl", rows)
    common.write_manifest(AREA, PACKAGES)


if __name__ == "__main__":
    main()
