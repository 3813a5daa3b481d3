"""The model: transformers' own modules, a forward pass over them for packed images, and its checkpoint.

Only the loop that runs the modules of Qwen2VLForConditionalGeneration is written anew (packed images, several
questions per image); `check` compares it with the library's forward before training starts. During training
the vocabulary holds the few hundred ids that the tasks use plus one row that stands for all others; `save`
copies that row to every unused id of the full vocabulary.
"""

import json
import math
import pathlib
import random
import shutil

import numpy as np
import scenes as S
import sequences as Q
import torch
import torch.nn.functional as F
from transformers import (
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessorFast,
    Qwen2VLVideoProcessor,
)

VOCAB, THETA, SECTION = 151936, 50.0, [4, 6, 6]
MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
# The template of Qwen2-VL's own chat_template.json.
CHAT = (
    "{% set image_count = namespace(value=0) %}{% set video_count = namespace(value=0) %}"
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}<|im_end|>\n{% else %}"
    "{% for content in message['content'] %}"
    "{% if content['type'] == 'image' or 'image' in content or 'image_url' in content %}"
    "{% set image_count.value = image_count.value + 1 %}"
    "{% if add_vision_id %}Picture {{ image_count.value }}: {% endif %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif content['type'] == 'video' or 'video' in content %}"
    "{% set video_count.value = video_count.value + 1 %}"
    "{% if add_vision_id %}Video {{ video_count.value }}: {% endif %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif 'text' in content %}{{ content['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def config(vocab):
    """3 vision blocks and 4 language layers of width 128; a small rope_theta makes the model lean on positions."""
    text = dict(
        vocab_size=vocab,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=32768,
        max_window_layers=4,
        rms_norm_eps=1e-6,
        tie_word_embeddings=True,
        rope_theta=THETA,
        rope_scaling={"type": "mrope", "mrope_section": SECTION},
        bos_token_id=151643,
        eos_token_id=151645,
        use_sliding_window=False,
        sliding_window=32768,
    )
    vision = dict(
        depth=3,
        embed_dim=128,
        hidden_size=128,
        mlp_ratio=4,
        num_heads=4,
        in_channels=3,
        in_chans=3,
        patch_size=14,
        spatial_patch_size=14,
        spatial_merge_size=2,
        temporal_patch_size=2,
    )
    return Qwen2VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=Q.IMAGE,
        video_token_id=Q.VIDEO,
        vision_start_token_id=Q.VSTART,
        vision_end_token_id=Q.VEND,
        vision_token_id=151654,
        tie_word_embeddings=True,
    )


def new_model(vocab):
    """An untrained model with `vocab` ids."""
    return Qwen2VLForConditionalGeneration(config(vocab))


def vocabulary(coder):
    """Every id that the tasks use, found by making many scenes."""
    rng, ids = random.Random(7), {Q.IMAGE, Q.VIDEO, Q.VSTART, Q.VEND, Q.END, 151643}
    for text in [Q.MALFORMED, "<|im_end|>\n<|im_start|>user\n", " $0123456789.", "()[]{},"]:
        ids.update(coder.enc(text))
    ids.update(coder.system + coder.user + coder.mid)
    for _ in range(25000):
        for _, q, a in S.scene(rng)["qas"]:
            ids.update(coder.enc(q) + coder.enc(a))
    return sorted(ids - {Q.UNSEEN})


def lookup(ids):
    """The compact id of each full one; unused ids share the last."""
    table = np.full(VOCAB, len(ids), np.int64)
    table[ids] = np.arange(len(ids))
    return table


# ---------- forward pass over the library's modules ----------
def rotate(x, cos, sin):
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


def see(tower, b):
    """Packed patches -> one row per merged patch."""
    x = b["pix"].float().view(-1, 3, 392)
    x = ((x - torch.tensor(MEAN).view(1, 3, 1) * 255) / (torch.tensor(STD).view(1, 3, 1) * 255)).flatten(1)
    x = F.linear(x, tower.patch_embed.proj.weight.flatten(1))
    N, C = x.shape
    H = tower.blocks[0].attn.num_heads
    D = C // H
    inv = tower.rotary_pos_emb.inv_freq
    angle = (b["places"][:, :, None] * inv).flatten(1)[:, None]
    cos, sin = angle.cos(), angle.sin()
    ok = b["ok"]
    n, L = ok.shape
    mask = None if ok.all() else ok[:, None, None]
    for k in tower.blocks:
        q, kk, v = k.attn.qkv(k.norm1(x)).view(N, 3, H, D).unbind(1)
        q, kk = rotate(q, cos, sin), rotate(kk, cos, sin)
        qkv = (
            torch.cat([q, kk, v], 1)
            .flatten(1)
            .index_select(0, b["pad"])
            .view(n, L, 3, H, D)
            .permute(2, 0, 3, 1, 4)
        )
        o = (
            F.scaled_dot_product_attention(*qkv, attn_mask=mask)
            .transpose(1, 2)
            .reshape(n * L, C)
            .index_select(0, b["packed"])
        )
        x = x + k.attn.proj(o)
        h = k.mlp.fc1(k.norm2(x))
        x = x + k.mlp.fc2(h * torch.sigmoid(1.702 * h))
    return tower.merger(x)


def rms(x, m):
    return F.rms_norm(x, x.shape[-1:], m.weight, m.variance_epsilon)


def read(model, b, seen=None):
    """Hidden states [B, T, C] of a collated batch; `seen` collects the vision rows and what two layers make of them."""
    lm = model.model.language_model
    x = lm.embed_tokens(b["ids"])
    B, T, C = x.shape
    if "pix" in b:
        v = see(model.model.visual, b)
        if seen is not None:
            seen.append(v)
        x = x.view(-1, C).index_copy(0, b["slots"], v).view(B, T, C)
    inv = lm.rotary_emb.inv_freq
    axis = torch.tensor(sum([[i] * n for i, n in enumerate(SECTION)], []))
    angle = (b["pos"].float().permute(1, 2, 0)[..., axis] * inv)[:, None]
    cos, sin = angle.cos(), angle.sin()
    seg = b["seg"]
    mask = torch.ones(T, T, dtype=torch.bool).tril() & (
        (seg[:, None] == 0) | (seg[:, None] == seg[:, :, None])
    )
    mask = mask[:, None]
    for n, k in enumerate(lm.layers):
        if n == 2 and seen:
            seen.append(x.view(-1, C)[b["slots"]])
        a = k.self_attn
        h = rms(x, k.input_layernorm)
        q = rotate(a.q_proj(h).view(B, T, -1, a.head_dim).transpose(1, 2), cos, sin)
        kk = rotate(a.k_proj(h).view(B, T, -1, a.head_dim).transpose(1, 2), cos, sin)
        v = a.v_proj(h).view(B, T, -1, a.head_dim).transpose(1, 2)
        r = a.num_key_value_groups
        o = F.scaled_dot_product_attention(
            q, kk.repeat_interleave(r, 1), v.repeat_interleave(r, 1), attn_mask=mask
        )
        x = x + a.o_proj(o.transpose(1, 2).reshape(B, T, -1))
        h = rms(x, k.post_attention_layernorm)
        x = x + k.mlp.down_proj(F.silu(k.mlp.gate_proj(h)) * k.mlp.up_proj(h))
    return rms(x, lm.norm)


def logits_of(model, h, share=1.0):
    """Scores over the compact vocabulary; with share 1 the shared row counts as often as it will stand in the full one."""
    y = F.linear(h, model.lm_head.weight)
    extra = torch.zeros(y.shape[-1])
    extra[-1] = share * math.log(VOCAB - y.shape[-1] + 1)
    return y + extra


def tensors(batch):
    return {k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in batch.items()}


def losses(model, batch, share=1.0, seen=None):
    h = read(model, batch, seen)
    at = (batch["target"] >= 0).nonzero(as_tuple=True)
    y = logits_of(model, h[at], share)
    return F.cross_entropy(y, batch["target"][at]), y.argmax(-1) == batch["target"][at], at


# ---------- checks ----------
def check(coder, table, ids):
    """Patches, positions and hidden states against transformers itself."""
    lim = dict(min_pixels=Q.MIN_PIXELS, max_pixels=Q.MAX_PIXELS)
    ip, vp = Qwen2VLImageProcessorFast(**lim), Qwen2VLVideoProcessor(**lim)
    model, rng, worst = new_model(len(ids) + 1).eval(), random.Random(3), 0
    for name, token in dict(image=Q.IMAGE, video=Q.VIDEO, vision_start=Q.VSTART).items():
        setattr(model.config, f"{name}_token_id", int(table[token]))
    mean, std = (
        np.repeat(np.array(MEAN, np.float32), 392) * 255,
        np.repeat(np.array(STD, np.float32), 392) * 255,
    )
    for i in range(120):
        sc = S.scene(rng, task=rng.choice(["two", "video", None]))
        sc["qas"] = sc["qas"][:1]
        s = Q.sequence(coder, rng, sc, 10**6, train=False)
        b = tensors(Q.collate([s], table))
        kw = {}
        if sc.get("images"):
            o = ip(sc["images"], return_tensors="pt")
            kw = dict(pixel_values=o["pixel_values"], image_grid_thw=o["image_grid_thw"])
        if "video" in sc:
            o = vp([np.stack([np.array(f) for f in sc["video"]])], return_tensors="pt")
            kw = dict(pixel_values_videos=o["pixel_values_videos"], video_grid_thw=o["video_grid_thw"])
        if kw:
            ours, grids = (np.concatenate(s["pix"]).astype(np.float32) - mean) / std, torch.tensor(s["grids"])
            theirs, g = list(kw.values())
            assert (
                ours.shape == theirs.shape
                and np.abs(ours - theirs.numpy()).max() < 1e-5
                and torch.equal(g, grids)
            ), (sc, g, grids)
        pos, _ = model.model.get_rope_index(
            b["ids"], kw.get("image_grid_thw"), kw.get("video_grid_thw"), torch.ones_like(b["ids"])
        )
        assert torch.equal(pos, b["pos"]), i
        with torch.no_grad():
            worst = max(
                worst,
                (
                    model.model(input_ids=b["ids"], attention_mask=torch.ones_like(b["ids"]), **kw)[0]
                    - read(model, b)
                )
                .abs()
                .max()
                .item(),
            )
    assert worst < 1e-3, worst
    print(f"check: patches and positions equal to transformers, hidden states within {worst:.1e}", flush=True)


# ---------- checkpoint ----------
def save(model, ids, tokenizer, out, dtype=torch.float16):
    """Writes the checkpoint with the full vocabulary; `tokenizer` is the folder of Qwen2-VL's."""
    full = new_model(VOCAB)
    sd = dict(model.state_dict())
    small = sd["model.language_model.embed_tokens.weight"]
    rows = small[-1].repeat(VOCAB, 1)
    rows[ids] = small[:-1]
    sd["model.language_model.embed_tokens.weight"] = sd["lm_head.weight"] = rows
    full.load_state_dict(sd)
    full.to(dtype).save_pretrained(out)
    shutil.copy(tokenizer / "tokenizer.json", out)
    tc = json.loads((tokenizer / "tokenizer_config.json").read_text())
    tc.update(chat_template=CHAT, tokenizer_class="Qwen2Tokenizer")

    def dump(content, name):
        (pathlib.Path(out) / name).write_text(json.dumps(content, indent=2))

    dump(tc, "tokenizer_config.json")
    dump({"chat_template": CHAT}, "chat_template.json")
    dump(
        dict(
            min_pixels=Q.MIN_PIXELS,
            max_pixels=Q.MAX_PIXELS,
            patch_size=14,
            temporal_patch_size=2,
            merge_size=2,
            image_mean=MEAN,
            image_std=STD,
            image_processor_type="Qwen2VLImageProcessor",
            processor_class="Qwen2VLProcessor",
        ),
        "preprocessor_config.json",
    )
    dump(
        dict(
            bos_token_id=151643,
            pad_token_id=151643,
            do_sample=True,
            eos_token_id=[151645, 151643],
            repetition_penalty=1.0,
            temperature=0.01,
            top_p=0.001,
            top_k=1,
        ),
        "generation_config.json",
    )
