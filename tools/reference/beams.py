"""Goldens of beam search: transformers' `generate` with beams.

    python beams.py --work DIR

Writes tests/golden/beams:

- `scripted.jsonl`: CASES random sets of options on a scripted model whose logits are made from the last two tokens by
  SplitMix64, by exact arithmetic, so that a test has the same model: token ids and scores of all returned beams;
- `demo.jsonl`: the demo model, fp32, on some items of the evaluation set with beams: ids and scores.

A search has near-ties where two implementations in f32 may choose differently. `Watched` looks at every choice of the
search and keeps the smallest distance of what is just in and what is just out. Scripted cases below their limit are not
written, those of the demo model are marked.
"""
import argparse
import random

import common
import torch
import transformers
from end_to_end import inputs_of, read_items
from logits import SplitMix64, uniform
from transformers import (
    AutoProcessor,
    GenerationConfig,
    GenerationMixin,
    PretrainedConfig,
    PreTrainedModel,
    Qwen2VLForConditionalGeneration,
)
from transformers.modeling_outputs import CausalLMOutput

AREA = "beams"
PACKAGES = ["transformers", "torch", "torchvision", "pillow", "numpy", "tokenizers"]
CASES = 260
# Of scores whose f32 steps are 1e-6, after some 20 additions.
SCRIPTED_NEAR_TIE = 5e-5
# What two implementations in f32 differ by at most, here and there.
DEMO_NEAR_TIE = 0.002
EVERY = 6
VOCAB = 120


class Watched(GenerationMixin):
    """Keeps the smallest distance of two scores between which a choice was made."""

    gap = float("inf")

    def near(self, distance):
        self.gap = min(self.gap, abs(float(distance)))

    def _get_running_beams_for_next_iteration(self, **kwargs):
        scores, ends = kwargs["topk_log_probs"][0], kwargs["next_token_hits_stopping_criteria"][0]
        beams = kwargs["num_beams"]
        # Which go on.
        kept = scores[~ends][: beams + 1]
        if len(kept) > beams:
            self.near(kept[-2] - kept[-1])
        # Whether one may end.
        if ends[beams - 1] != ends[beams] or ends.all():
            self.near(scores[beams - 1] - scores[beams])
        return super()._get_running_beams_for_next_iteration(**kwargs)

    def _update_finished_beams(self, **kwargs):
        ended = kwargs["next_token_hits_stopping_criteria"] & kwargs["top_num_beam_mask"][None, :]
        length = kwargs["cur_len"] + 1 - kwargs["decoder_prompt_len"]
        new = (kwargs["topk_log_probs"] / length ** kwargs["length_penalty"])[ended]
        scores = torch.cat((kwargs["beam_scores"][0][kwargs["is_sent_finished"][0]], new))
        scores = torch.sort(scores, descending=True).values[: kwargs["num_beams"] + 1]
        for a, b in zip(scores, scores[1:]):
            self.near(a - b)
        return super()._update_finished_beams(**kwargs)

    def _check_early_stop_heuristic(self, **kwargs):
        length = kwargs["cur_len"] - kwargs["decoder_prompt_len"]
        if kwargs["early_stopping"] == "never" and kwargs["length_penalty"] > 0:
            length = kwargs["max_length"] - kwargs["decoder_prompt_len"]
        if kwargs["is_sent_finished"].all() and kwargs["early_stopping"] is not True:
            best = kwargs["running_beam_scores"][0, 0] / length ** kwargs["length_penalty"]
            self.near(best - kwargs["beam_scores"].min())
        return super()._check_early_stop_heuristic(**kwargs)


class Scripted(Watched, PreTrainedModel):
    """Logits of the next token: 24 bits each, from -8 on in steps of 2^-20, seeded by the last two tokens."""

    config_class = PretrainedConfig

    def __init__(self, seed):
        super().__init__(PretrainedConfig(vocab_size=VOCAB, is_decoder=True))
        self.unused = torch.nn.Parameter(torch.zeros(1))
        self.seed = seed
        self.generation_config = GenerationConfig()

    def row(self, ids):
        made = SplitMix64(self.seed << 32 | ids[-2] << 16 | ids[-1])
        return [(made.next() >> 40) / 2**20 - 8 for _ in range(VOCAB)]

    def forward(self, input_ids, attention_mask=None, **_):
        rows = [[self.row(ids)] for ids in input_ids.tolist()]
        return CausalLMOutput(logits=torch.tensor(rows, dtype=torch.float32))


def beams(out, prompt_tokens, stop):
    rows = []
    for ids, score in zip(out.sequences[:, prompt_tokens:].tolist(), out.sequences_scores.tolist()):
        end = next((i for i, id in enumerate(ids) if id in stop), None)
        rows.append(dict(ids=ids[:end], stopped=end is not None, score=round(score, 7)))
    return rows


def scripted_case(number):
    rng = random.Random(number)
    num_beams = rng.randint(2, 8)
    max_new_tokens = rng.choice([1, 2, rng.randint(3, 24), rng.randint(3, 24)])
    stop = rng.sample(range(VOCAB), rng.choice([0, 1, 1, 2, 3]))
    maybe = lambda value, chance=0.3: value if rng.random() < chance else None
    options = dict(
        num_beams=num_beams,
        num_return_sequences=rng.randint(1, num_beams),
        max_new_tokens=max_new_tokens,
        length_penalty=rng.choice([1.0, 0.0, uniform(rng, -2, 0), uniform(rng, 0, 3)]),
        early_stopping=rng.choice([False, True, "never"]),
        min_new_tokens=maybe(rng.randint(1, max_new_tokens)),
        repetition_penalty=maybe(uniform(rng, 0.7, 1.8)),
        no_repeat_ngram_size=maybe(rng.randint(2, 4)),
        suppress_tokens=maybe(rng.sample(range(VOCAB), rng.randint(1, 30))),
        # Makes stop tokens so likely, or unlikely, that searches end in all ways.
        logit_bias=maybe({id: uniform(rng, -2, 4) for id in stop}, 0.6),
    )
    options = {k: v for k, v in options.items() if v not in (None, {})}
    prompt = [rng.randrange(VOCAB) for _ in range(rng.randint(2, 12))]
    fields = dict(options)
    if bias := fields.pop("logit_bias", None):
        fields["sequence_bias"] = {(id,): value for id, value in bias.items()}
    model = Scripted(number)
    out = model.generate(torch.tensor([prompt]), do_sample=False, use_cache=False, eos_token_id=stop or None, pad_token_id=0,
                         output_scores=True, return_dict_in_generate=True, **fields)
    case = dict(seed=number, prompt=prompt, stop_token_ids=stop, options=options, want=beams(out, len(prompt), stop))
    return case, model.gap


def scripted():
    rows, number = [], 0
    while len(rows) < CASES:
        case, gap = scripted_case(number)
        number += 1
        if gap >= SCRIPTED_NEAR_TIE:
            rows.append(case)
    print(f"{number - CASES} of {number} cases left out as near-ties")
    return rows


class WatchedQwen2VL(Watched, Qwen2VLForConditionalGeneration):
    pass


def demo(work):
    checkpoint = common.unpack("demo-model-hf", work)
    processor = AutoProcessor.from_pretrained(checkpoint)
    model = WatchedQwen2VL.from_pretrained(checkpoint, dtype=torch.float32).eval()
    stop = model.generation_config.eos_token_id
    stop = stop if isinstance(stop, list) else [stop]
    rows = []
    for number, item in enumerate(read_items()[::EVERY]):
        inputs = inputs_of(processor, item)
        for num_beams in (2, 4):
            model.gap = float("inf")
            options = dict(num_beams=num_beams, num_return_sequences=num_beams, max_new_tokens=24,
                           length_penalty=[1.0, 0.0, 2.0][number % 3],
                           early_stopping=[False, True, "never"][number // 3 % 3])
            with torch.no_grad():
                out = model.generate(**inputs, **options, do_sample=False, temperature=None, top_p=None, top_k=None,
                                     output_scores=True, return_dict_in_generate=True)
            want = beams(out, inputs["input_ids"].shape[1], stop)
            rows.append(dict(id=item["id"], options=options, near_tie=model.gap < DEMO_NEAR_TIE, want=want))
    print(f"{sum(row['near_tie'] for row in rows)} of {len(rows)} with near-ties")
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", required=True, help="folder for the unpacked models")
    args = parser.parse_args()
    transformers.logging.set_verbosity_error()
    folder = common.GOLDEN / AREA
    folder.mkdir(parents=True, exist_ok=True)
    common.write_jsonl(folder / "scripted.jsonl", scripted())
    common.write_jsonl(folder / "demo.jsonl", demo(args.work))
    common.write_manifest(AREA, PACKAGES)


if __name__ == "__main__":
    main()
