"""Goldens of prompt lookup: transformers' PromptLookupCandidateGenerator on random tokens.

    python tools/reference/prompt_lookup.py

Writes tests/golden/prompt-lookup/guesses.jsonl: tokens of few kinds, so that runs of them repeat, and the candidates.
"""
import random

import common
import torch
from transformers.generation.candidate_generator import PromptLookupCandidateGenerator

AREA = "prompt-lookup"
PACKAGES = ["transformers", "torch", "numpy"]
ROWS = 400


def case(made):
    kinds = made.choice([2, 4, 8, 30])
    tokens = [made.randrange(kinds) for _ in range(made.randint(1, 40))]
    num_tokens, ngram_size, stop = made.randint(1, 10), made.randint(1, 4), made.randrange(kinds + 4)
    generator = PromptLookupCandidateGenerator(
        eos_token_id=torch.tensor([stop]),
        num_output_tokens=num_tokens,
        max_matching_ngram_size=ngram_size,
        max_length=1 << 20,
    )
    candidates, _ = generator.get_candidates(torch.tensor([tokens]))
    return {
        "tokens": tokens,
        "num_tokens": num_tokens,
        "ngram_size": ngram_size,
        "stop_token_id": stop,
        "guess": candidates[0, len(tokens) :].tolist(),
    }


def main():
    made = random.Random(0)
    folder = common.GOLDEN / AREA
    folder.mkdir(parents=True, exist_ok=True)
    common.write_jsonl(folder / "guesses.jsonl", [case(made) for _ in range(ROWS)])
    common.write_manifest(AREA, PACKAGES)


if __name__ == "__main__":
    main()
