"""Exports a Qwen2-VL checkpoint as the seven OpenVINO models that Spark NLP's Qwen2VLTransformer.loadSavedModel reads.

    python export_spark_layout.py HF_DIR OUT_DIR [--int4] [--group-size 128] [--only NAME ...]

For Qwen2-VL checkpoints of any size. OUT_DIR gets `openvino_NAME_model.{xml,bin}` and `assets/` with the configs and the
tokenizer. With `--int4` the language model and the vision merger are compressed as the published 2B package was:
INT4_ASYM, ratio 1.0, data-free, the last linear layer of each in 8 bits. The group size is halved until the input width of
every linear layer is a multiple of it. The demo model's package (tests/models/demo-spark-nlp.zip.zst) was made from the
result by Spark NLP itself; pack_spark.py packs one the same way. A 2B model takes 14 GB of memory.

Versions: transformers 4.57.6, torch 2.15.0, openvino 2026.4.1, nncf 3.4.0.
"""
import argparse
import gc
import json
import pathlib
import shutil

import numpy as np
import openvino as ov
import torch
from openvino import opset13
from openvino._offline_transformations import apply_make_stateful_transformation
from transformers import Qwen2VLForConditionalGeneration

# Spark NLP's merge model has it as a constant.
IMAGE_TOKEN = 151655
ROTARY_THETA = 10000.0
SMALLEST_GROUP = 8
ASSETS = ["tokenizer_config.json", "generation_config.json", "chat_template.json"]


class PatchReshape(torch.nn.Module):
    """[frames, 3, height, width], repeated to pairs of frames -> [n_patches, patch_len], patches in 2x2 blocks."""

    def __init__(self, config):
        super().__init__()
        self.frames, self.merge, self.side = config.temporal_patch_size, config.spatial_merge_size, config.patch_size

    def forward(self, patches, repetition_factor):
        x = patches.repeat(repetition_factor, 1, 1, 1)
        t = x.shape[0] // self.frames
        h, w = x.shape[2] // self.side, x.shape[3] // self.side
        x = x.reshape(t, self.frames, x.shape[1], h // self.merge, self.merge, self.side, w // self.merge, self.merge, self.side)
        return x.permute(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(t * h * w, -1)


class Rotary(torch.nn.Module):
    """grid_thw [3] -> [n_patches, head_dim / 2]: row angles, then column angles, in the order of the patches."""

    def __init__(self, config):
        super().__init__()
        self.merge = config.spatial_merge_size
        dim = config.embed_dim // config.num_heads // 2
        frequencies = 1.0 / (ROTARY_THETA ** (torch.arange(0, dim, 2, dtype=torch.float) / dim))
        self.register_buffer("frequencies", frequencies, persistent=False)

    def forward(self, grid_thw):
        t, h, w = grid_thw[0], grid_thw[1], grid_thw[2]
        m = self.merge

        def in_blocks(ids):
            return ids.reshape(h // m, m, w // m, m).permute(0, 2, 1, 3).flatten()

        rows = in_blocks(torch.arange(h).unsqueeze(1).expand(-1, w))
        columns = in_blocks(torch.arange(w).unsqueeze(0).expand(h, -1))
        positions = torch.stack([rows, columns], dim=-1).repeat(t, 1)
        table = torch.outer(torch.arange(grid_thw.max()).to(self.frequencies.dtype), self.frequencies)
        return table[positions].flatten(1)


class MultimodalMerge(torch.nn.Module):
    """Vision rows replace the embeddings of the image placeholders, in order."""

    def forward(self, vision_embeds, inputs_embeds, input_ids):
        mask = (input_ids == IMAGE_TOKEN).unsqueeze(-1).expand_as(inputs_embeds)
        return {"inputs_embeds": inputs_embeds.masked_scatter(mask, vision_embeds)}


def rotate_half(x):
    a, b = x.chunk(2, dim=-1)
    return torch.cat((-b, a), dim=-1)


class VisionMerger(torch.nn.Module):
    """All vision blocks and the merger; the mask [1, n_patches, n_patches] is float and added to the scores."""

    def __init__(self, visual):
        super().__init__()
        self.blocks, self.merger, self.heads = visual.blocks, visual.merger, visual.config.num_heads

    def attention(self, block, x, mask, cos, sin):
        n = x.shape[0]
        q, k, v = block.qkv(x).reshape(n, 3, self.heads, -1).permute(1, 0, 2, 3).unbind(0)
        q = q * cos + rotate_half(q) * sin
        k = k * cos + rotate_half(k) * sin
        y = torch.nn.functional.scaled_dot_product_attention(q.transpose(0, 1), k.transpose(0, 1), v.transpose(0, 1), mask)
        return block.proj(y.transpose(0, 1).reshape(n, -1))

    def forward(self, hidden_states, attention_mask, rotary_pos_emb):
        cos = rotary_pos_emb.cos().repeat(1, 2).unsqueeze(1)
        sin = rotary_pos_emb.sin().repeat(1, 2).unsqueeze(1)
        x = hidden_states
        for block in self.blocks:
            x = x + self.attention(block.attn, block.norm1(x), attention_mask, cos, sin)
            x = x + block.mlp(block.norm2(x))
        return self.merger(x)


class LanguageModel(torch.nn.Module):
    """Logits of every position, and the keys and values, which become states after the conversion."""

    def __init__(self, model):
        super().__init__()
        self.text, self.lm_head = model.model.language_model, model.lm_head
        config = self.text.config
        self.sections = list(config.rope_scaling["mrope_section"])
        self.kv_heads, self.head_dim = config.num_key_value_heads, head_dim(config)
        self.groups = config.num_attention_heads // self.kv_heads

    def angles(self, position_ids):
        """[3, batch, n] -> cos and sin [batch, 1, n, head_dim]: frequencies in sections of time, height and width."""
        f = position_ids.unsqueeze(-1).float() * self.text.rotary_emb.inv_freq.float()
        parts = f.split(self.sections, dim=-1)
        f = torch.cat([parts[axis][axis] for axis in range(3)], dim=-1)
        f = torch.cat([f, f], dim=-1).unsqueeze(1)
        return f.cos(), f.sin()

    def expand(self, x, batch):
        x = x.unsqueeze(2).expand(-1, -1, self.groups, -1, -1)
        return x.reshape(batch, self.kv_heads * self.groups, -1, self.head_dim)

    def forward(self, attention_mask, position_ids, past_key_values, inputs_embeds):
        batch, n, _ = inputs_embeds.shape
        total = attention_mask.shape[1]
        seen = torch.arange(total).unsqueeze(0) <= torch.arange(total - n, total).unsqueeze(1)
        mask = (seen.unsqueeze(0) & attention_mask.bool().unsqueeze(1)).unsqueeze(1)
        cos, sin = self.angles(position_ids)
        x, present = inputs_embeds, []
        for layer, (past_key, past_value) in zip(self.text.layers, past_key_values):
            h, attention = layer.input_layernorm(x), layer.self_attn
            q, k, v = (project(h).view(batch, n, -1, self.head_dim).transpose(1, 2)
                       for project in (attention.q_proj, attention.k_proj, attention.v_proj))
            q = q * cos + rotate_half(q) * sin
            k = k * cos + rotate_half(k) * sin
            k, v = torch.cat([past_key, k], dim=2), torch.cat([past_value, v], dim=2)
            present += [k, v]
            y = torch.nn.functional.scaled_dot_product_attention(q, self.expand(k, batch), self.expand(v, batch), mask)
            x = x + attention.o_proj(y.transpose(1, 2).reshape(batch, n, -1))
            x = x + layer.mlp(layer.post_attention_layernorm(x))
        return (self.lm_head(self.text.norm(x)), *present)


def head_dim(config):
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def convert(module, example):
    with torch.no_grad():
        return ov.convert_model(module.eval(), example_input=example)


def compress(model, module, group_size):
    import nncf
    widths = [m.in_features for m in module.modules() if isinstance(m, torch.nn.Linear)]
    while group_size > SMALLEST_GROUP and any(width % group_size for width in widths):
        group_size //= 2
    print(f"  INT4_ASYM, group size {group_size}", flush=True)
    return nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT4_ASYM, group_size=group_size, ratio=1.0)


def name_ports(model, inputs, outputs):
    for port, name in [*zip(model.inputs, inputs), *zip(model.outputs, outputs)]:
        port.get_tensor().set_names({name})


def make_stateful(model, past_names, present_names):
    """Past inputs become variables, gathered by beam_idx and empty at first."""
    embeddings = model.input("inputs_embeds")
    beam = opset13.parameter(ov.PartialShape([embeddings.get_partial_shape()[0]]), ov.Type.i32, name="beam_idx")
    beam.output(0).get_tensor().add_names({"beam_idx"})
    model.add_parameters([beam])
    for name in past_names:
        port = model.input(name)
        readers = port.get_target_inputs()
        gathered = opset13.gather(port, beam, opset13.constant(np.int64(0)))
        for reader in readers:
            reader.replace_source_output(gathered.output(0))
    model.validate_nodes_and_infer_types()
    apply_make_stateful_transformation(model, dict(zip(past_names, present_names)))
    shape = opset13.shape_of(model.input("inputs_embeds").node.output(0), output_type="i64")
    batch = opset13.gather(shape, opset13.constant(np.array([0], np.int64)), opset13.constant(np.int64(0)))
    for node in model.get_ops():
        if node.get_type_name() == "ReadValue":
            dims = [batch if i == 0 else opset13.constant(np.array([d.min_length], np.int64))
                    for i, d in enumerate(node.get_output_partial_shape(0))]
            zero = opset13.constant(0.0, dtype=node.get_output_element_type(0))
            node.set_arguments([opset13.broadcast(zero, opset13.concat(dims, axis=0))])
    model.validate_nodes_and_infer_types()


def language(model, group_size):
    config = model.model.language_model.config
    kv_heads, width, layers = config.num_key_value_heads, head_dim(config), range(config.num_hidden_layers)
    past = tuple((torch.randn(2, kv_heads, 2, width), torch.randn(2, kv_heads, 2, width)) for _ in layers)
    converted = convert(LanguageModel(model), {
        "attention_mask": torch.ones(2, 4, dtype=torch.long),
        "position_ids": torch.arange(2, 4).view(1, 1, -1).expand(3, 2, -1),
        "past_key_values": past,
        "inputs_embeds": torch.randn(2, 2, config.hidden_size),
    })
    past_names = [f"past_key_values.{i}.{kind}" for i in layers for kind in ("key", "value")]
    present_names = [f"present.{i}.{kind}" for i in layers for kind in ("key", "value")]
    name_ports(converted, ["attention_mask", "position_ids", *past_names, "inputs_embeds"], ["logits", *present_names])
    shapes = {name: [-1, kv_heads, -1, width] for name in past_names}
    shapes.update(inputs_embeds=[-1, -1, config.hidden_size], position_ids=[3, -1, -1])
    for name, shape in shapes.items():
        converted.input(name).get_node().set_partial_shape(ov.PartialShape(shape))
    converted.validate_nodes_and_infer_types()
    make_stateful(converted, past_names, present_names)
    linears = torch.nn.ModuleList([model.model.language_model, model.lm_head])
    return compress(converted, linears, group_size) if group_size else converted


def vision_merger(visual, group_size):
    config, module = visual.config, VisionMerger(visual)
    converted = convert(module, {
        "hidden_states": torch.randn(96, config.embed_dim),
        "attention_mask": torch.ones(1, 96, 96),
        "rotary_pos_emb": torch.randn(96, config.embed_dim // config.num_heads // 2),
    })
    return compress(converted, module, group_size) if group_size else converted


def export(source, out, group_size=None, only=None):
    """Writes the models, in INT4 if there is a group size. `only`: names without `openvino_` and `_model`."""
    model = Qwen2VLForConditionalGeneration.from_pretrained(source, dtype=torch.float32, attn_implementation="sdpa").eval()
    visual, text = model.model.visual, model.model.language_model
    vision, hidden = visual.config, text.config.hidden_size
    out.mkdir(parents=True, exist_ok=True)

    def emit(name, build, compress_to_fp16=True):
        if not only or name in only:
            ov.save_model(build(), out / f"openvino_{name}_model.xml", compress_to_fp16=compress_to_fp16)
            print(f"{name}: {(out / f'openvino_{name}_model.bin').stat().st_size / 1e6:.1f} MB", flush=True)
            gc.collect()

    emit("patch_reshape", lambda: convert(PatchReshape(vision), {
        "patches": torch.ones(1, 3, 112, 168), "repetition_factor": torch.tensor(2)}))
    emit("rotary_embeddings", lambda: convert(Rotary(vision), {"grid_thw": torch.tensor([1, 8, 12])}))
    emit("multimodal_merge", lambda: convert(MultimodalMerge(), {
        "vision_embeds": torch.randn(24, hidden), "inputs_embeds": torch.randn(1, 40, hidden),
        "input_ids": torch.randint(0, IMAGE_TOKEN + 1, (1, 40))}))
    emit("text_embeddings", lambda: convert(text.embed_tokens, torch.ones(2, 2, dtype=torch.int64)))
    patch_len = 3 * vision.temporal_patch_size * vision.patch_size ** 2
    emit("vision_embeddings", lambda: convert(visual.patch_embed, {"hidden_states": torch.randn(96, patch_len)}))
    emit("vision_embeddings_merger", lambda: vision_merger(visual, group_size))
    # A 2B model in f32 takes 8.8 GB: the vision part is dropped before the largest conversion.
    del visual
    model.model.visual = None
    gc.collect()
    emit("language", lambda: language(model, group_size), compress_to_fp16=False)


def write_assets(source, out):
    """The files of `assets/`, with the spellings that Spark NLP wants."""
    out.mkdir(parents=True, exist_ok=True)
    config = json.loads((source / "config.json").read_text())
    for key, value in config.get("text_config", {}).items():
        if key in ("bos_token_id", "eos_token_id", "vocab_size", "hidden_size", "num_hidden_layers") and config.get(key) is None:
            config[key] = value
    if isinstance(config.get("eos_token_id"), list):
        config["eos_token_id"] = config["eos_token_id"][0]
    (out / "config.json").write_text(json.dumps(config, indent=1))
    processor = json.loads((source / "preprocessor_config.json").read_text())
    # Spark NLP wants an integer here; Hugging Face has min_pixels and max_pixels, or an object.
    if not isinstance(processor.get("size"), int):
        processor["size"] = 224
    defaults = dict(do_normalize=True, do_resize=True, resample=3)
    processor.update({key: value for key, value in defaults.items() if processor.get(key) is None})
    (out / "preprocessor_config.json").write_text(json.dumps(processor, indent=1))
    tokenizer = json.loads((source / "tokenizer.json").read_text())
    # Merges as pairs: Spark NLP does not read the older "a b".
    tokenizer["model"]["merges"] = [m.split(" ") if isinstance(m, str) else m for m in tokenizer["model"]["merges"]]
    (out / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False))
    for name in ASSETS:
        if (source / name).exists():
            shutil.copy(source / name, out)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=pathlib.Path, metavar="HF_DIR")
    parser.add_argument("out", type=pathlib.Path, metavar="OUT_DIR")
    parser.add_argument("--int4", action="store_true")
    parser.add_argument("--group-size", type=int, default=128)
    parser.add_argument("--only", nargs="*", metavar="NAME", help="export these alone, named as text_embeddings")
    args = parser.parse_args()
    export(args.source, args.out, args.group_size if args.int4 else None, args.only)
    write_assets(args.source, args.out / "assets")


if __name__ == "__main__":
    main()
