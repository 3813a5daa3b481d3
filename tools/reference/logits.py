"""Goldens of logits processing: transformers' own LogitsProcessor classes on random rows.

    python tools/reference/logits.py

Writes tests/golden/logits: a file for each processor, a row for each of its ROWS cases. Logits, vocabulary, prompt and
answer of a case are made from its file's number and its own by SplitMix64, by exact arithmetic, so that a test makes the
same ones; kept are the options, the SHA-256 of the resulting f32 row (its first 16 digits), the first of the largest
values and, after the warpers, how many tokens are left. `frequency` follows vLLM's apply_penalties
(vllm/model_executor/layers/utils.py), which transformers lacks. `all` runs what `_get_logits_processor` makes of a
GenerationConfig, so it holds the order as well.
"""
import hashlib
import random

import common
import torch
import transformers
from transformers import GenerationConfig, GenerationMixin, PretrainedConfig
from transformers.generation.logits_process import (
    MinNewTokensLengthLogitsProcessor,
    MinPLogitsWarper,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
    SuppressTokensLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

AREA = "logits"
PACKAGES = ["transformers", "torch", "numpy"]
ROWS = 220
MASK = (1 << 64) - 1


class SplitMix64:
    def __init__(self, state):
        self.state = state

    def next(self):
        self.state = (self.state + 0x9E3779B97F4A7C15) & MASK
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        return z ^ (z >> 31)


class Case:
    """The inputs of row `row` of file `file`."""

    def __init__(self, file, row):
        made = SplitMix64(file << 32 | row)
        self.vocab = 64 + made.next() % 449
        n_prompt, n_answer = 1 + made.next() % 24, made.next() % 24
        # Every second case has few different tokens, so that runs of them repeat.
        alphabet = 4 if row % 2 else self.vocab
        self.ids = [made.next() % alphabet for _ in range(n_prompt + n_answer)]
        self.n_prompt = n_prompt
        # 24 bits, from -8 on in steps of 2^-20: exact in f32.
        logits = [(made.next() >> 40) / 2**20 - 8 for _ in range(self.vocab)]
        self.logits = torch.tensor([logits], dtype=torch.float32)
        self.input_ids = torch.tensor([self.ids])


def result(scores, warped=False):
    row = scores[0].to(torch.float32).contiguous()
    digest = hashlib.sha256(row.numpy().astype("<f4").tobytes()).hexdigest()[:16]
    best = int(torch.argmax(row))
    assert best == next(i for i, v in enumerate(row.tolist()) if v == row.max().item())
    out = dict(hash=digest, argmax=best)
    if warped:
        out["kept"] = int(torch.isfinite(row).sum())
    return out


def some_ids(rng, case, most=8):
    return sorted({rng.randrange(case.vocab) for _ in range(rng.randint(1, most))})


def uniform(rng, low, high):
    return round(rng.uniform(low, high), 3)


def bias(rng, case):
    values = {i: uniform(rng, -12, 12) for i in some_ids(rng, case)}
    scores = SequenceBiasLogitsProcessor({(i,): b for i, b in values.items()})(case.input_ids, case.logits)
    return dict(logit_bias=values), result(scores)


def repetition(rng, case):
    penalty = uniform(rng, 0.5, 2.5)
    return dict(repetition_penalty=penalty), result(RepetitionPenaltyLogitsProcessor(penalty)(case.input_ids, case.logits))


def frequency(rng, case):
    frequency, presence = uniform(rng, -2, 2), uniform(rng, -2, 2)
    counts = torch.bincount(case.input_ids[0, case.n_prompt :], minlength=case.vocab).unsqueeze(0)
    scores = case.logits.clone()
    scores -= torch.tensor([[frequency]]) * counts
    scores -= torch.tensor([[presence]]) * (counts > 0)
    return dict(frequency_penalty=frequency, presence_penalty=presence), result(scores)


def ngram(rng, case):
    size = rng.randint(1, 5)
    return dict(no_repeat_ngram_size=size), result(NoRepeatNGramLogitsProcessor(size)(case.input_ids, case.logits))


def min_new_tokens(rng, case):
    least, stop = rng.randint(0, 24), some_ids(rng, case, 3)
    scores = MinNewTokensLengthLogitsProcessor(case.n_prompt, least, stop)(case.input_ids, case.logits)
    return dict(min_new_tokens=least, stop_token_ids=stop), result(scores)


def suppress(rng, case):
    ids = some_ids(rng, case)
    return dict(suppress_tokens=ids), result(SuppressTokensLogitsProcessor(ids)(case.input_ids, case.logits))


def temperature(rng, case):
    value = uniform(rng, 0.05, 3)
    return dict(temperature=value), result(TemperatureLogitsWarper(value)(case.input_ids, case.logits), True)


def top_k(rng, case):
    k, ties = rng.randint(2, 100), rng.random() < 0.3
    logits = case.logits.floor() if ties else case.logits
    return dict(top_k=k), dict(result(TopKLogitsWarper(k)(case.input_ids, logits), True), floor=ties)


def top_p(rng, case):
    p = uniform(rng, 0.01, 0.999)
    return dict(top_p=p), result(TopPLogitsWarper(p)(case.input_ids, case.logits), True)


def min_p(rng, case):
    p = rng.choice([uniform(rng, 0.001, 0.1), uniform(rng, 0.001, 1)])
    return dict(min_p=p), result(MinPLogitsWarper(p)(case.input_ids, case.logits), True)


def logprobs(rng, case):
    """Not by hash: logarithms and exponentials differ in their last bits."""
    values = torch.log_softmax(case.logits.double(), -1)[0]
    token, n = rng.randrange(case.vocab), rng.randint(0, 5)
    top = torch.topk(values, n)
    rounded = [[int(i), round(float(v), 6)] for i, v in zip(top.indices, top.values)]
    return dict(logprobs=n), dict(token=token, logprob=round(float(values[token]), 6), top=rounded)


class Model(GenerationMixin):
    config = PretrainedConfig()


def everything(rng, case):
    """Each option in half of the cases; every third case is greedy."""
    def maybe(value):
        return value if rng.random() < 0.5 else None

    stop = some_ids(rng, case, 2)
    options = dict(
        logit_bias=maybe({i: uniform(rng, -6, 6) for i in some_ids(rng, case)}),
        repetition_penalty=maybe(uniform(rng, 0.7, 1.8)),
        no_repeat_ngram_size=maybe(rng.randint(2, 4)),
        min_new_tokens=maybe(rng.randint(1, 24)),
        suppress_tokens=maybe(some_ids(rng, case)),
        temperature=maybe(uniform(rng, 0.2, 2)),
        top_k=maybe(rng.randint(2, 80)),
        top_p=maybe(uniform(rng, 0.2, 0.99)),
        min_p=maybe(uniform(rng, 0.001, 0.2)),
        do_sample=rng.randrange(3) > 0,
    )
    options = {k: v for k, v in options.items() if v is not None}
    fields = dict(options, top_k=options.get("top_k", 0))
    if values := fields.pop("logit_bias", None):
        fields["sequence_bias"] = {(i,): b for i, b in values.items()}
    config = GenerationConfig(**fields, eos_token_id=stop)
    config._eos_token_tensor = torch.tensor(stop)
    processors = Model()._get_logits_processor(config, input_ids_seq_length=case.n_prompt)
    scores = processors(case.input_ids, case.logits.clone())
    return dict(options, stop_token_ids=stop), result(scores, options["do_sample"])


# The position is the file's number: add at the end.
FILES = [bias, repetition, frequency, ngram, min_new_tokens, suppress, temperature, top_k, top_p, min_p, logprobs, everything]


def main():
    # Options without effect in greedy cases are meant.
    transformers.logging.set_verbosity_error()
    folder = common.GOLDEN / AREA
    folder.mkdir(parents=True, exist_ok=True)
    for file, function in enumerate(FILES):
        rng = random.Random(file)
        rows = []
        for row in range(ROWS):
            options, wanted = function(rng, Case(file, row))
            rows.append(dict(options=options, **wanted))
        common.write_jsonl(folder / f"{function.__name__}.jsonl", rows)
    common.write_manifest(AREA, PACKAGES)


if __name__ == "__main__":
    main()
