"""Trains a very small real Qwen2-VL on synthetic pictures, on a CPU, and saves an ordinary Hugging Face
checkpoint.

    python train.py --tokenizer DIR --minutes 50 --out hf

First the vision tower alone learns what fills each patch, then the whole model answers questions, with that
first task as an auxiliary loss which fades out. One process draws pictures while the other trains. How long
is said in minutes, so two machines do not train the same model.
"""

import argparse
import math
import os
import pathlib
import random
import time

import model as M
import numpy as np
import scenes as S
import sequences as Q
import torch
import torch.multiprocessing as mp
import torch.nn as nn
import torch.nn.functional as F


# ---------- optimiser ----------
class Muon:
    """Momentum whose update is made orthogonal by Newton-Schulz steps, for the matrices of the transformer blocks."""

    def __init__(self, params, wd=0.02):
        self.groups, self.wd = {}, wd
        for p in params:
            self.groups.setdefault(tuple(p.shape), []).append(p)
        self.m = {k: torch.zeros(len(v), *k) for k, v in self.groups.items()}

    @torch.no_grad()
    def step(self, lr):
        for shape, ps in self.groups.items():
            g = torch.stack([p.grad for p in ps])
            m = self.m[shape].mul_(0.95).add_(g)
            x = g.add(m, alpha=0.95)
            flip = shape[0] > shape[1]
            x = x.transpose(1, 2) if flip else x
            x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
            for _ in range(5):
                a = x @ x.transpose(1, 2)
                x = 3.4445 * x + (-4.775 * a + 2.0315 * a @ a) @ x
            x = x.transpose(1, 2) if flip else x
            s = 0.2 * max(shape) ** 0.5
            for p, u in zip(ps, x):
                p.mul_(1 - lr * self.wd).add_(u, alpha=-lr * s)


def optimisers(module, extra=()):
    """Muon for the matrices of the blocks, Adam for the rest."""
    matrices = [p for n, p in module.named_parameters() if p.ndim == 2 and ("blocks." in n or "layers." in n)]
    taken = {id(p) for p in matrices}
    # Adam moves every weight by about lr; where many correlated inputs meet (flat patches), and where tokens of
    # one kind share one gradient (tied embeddings), that must be a small step.
    slow = {"patch_embed": 0.08, "embed_tokens": 0.25, "merger.mlp": 0.35}

    def speed(name):
        return next((v for part, v in slow.items() if part in name), 0.6)

    rest = [
        dict(params=[p], weight_decay=0.02 if p.ndim > 1 else 0.0, speed=speed(n))
        for n, p in module.named_parameters()
        if id(p) not in taken
    ]
    rest += [dict(params=[p], weight_decay=0.0, speed=0.6) for p in extra]
    return Muon(matrices), torch.optim.AdamW(rest, lr=1e-3, betas=(0.9, 0.98), eps=1e-8)


def update(module, muon, adam, lr, muon_factor):
    """One step of both optimisers."""
    nn.utils.clip_grad_norm_(module.parameters(), 1.0)
    for g in adam.param_groups:
        g["lr"] = g["speed"] * lr
    adam.step()
    muon.step(muon_factor * lr)
    module.zero_grad()


# ---------- vision first ----------
def smooth_filters(tower):
    """Starts the patch embedding from low cosine waves of brightness and two colour differences, the constant
    ones weak: from random filters flat areas drown all edges and the tower takes very long to tell shapes apart."""
    k, waves = np.arange(14), []
    for u, v in sorted(
        ((u, v) for u in range(8) for v in range(8)), key=lambda p: (p[0] ** 2 + p[1] ** 2, p)
    )[:42]:
        c = np.outer(np.cos(np.pi * (k + 0.5) * u / 14), np.cos(np.pi * (k + 0.5) * v / 14))
        waves.append(c / np.linalg.norm(c) * (0.35 if u == v == 0 else 1))
    mix = np.array([[1, 1, 1], [1, -1, 0], [0.5, 0.5, -1]])
    mix = mix / np.linalg.norm(mix, axis=1, keepdims=True) * np.array([[0.5], [0.8], [0.8]])
    w = torch.zeros(128, 3, 2, 14, 14)
    for c in range(3):
        for i, wave in enumerate(waves):
            w[c * 42 + i] = torch.tensor(mix[c])[:, None, None, None] * torch.tensor(wave)
    w[78:84, :, 1] *= -1  # a few filters see what changes between the two frames
    w[126:] = torch.randn(2, 3, 2, 14, 14) * 0.02
    with torch.no_grad():
        tower.patch_embed.proj.weight.copy_(0.35 * (w + torch.randn_like(w) * 0.004))
        for n, p in tower.named_parameters():
            if p.ndim == 2:
                nn.init.normal_(p, std=0.04 if "merger" in n else 0.06)


def picture_producer(q, seed, batch):
    """Fills the queue of the first stage."""
    os.nice(1)
    torch.set_num_threads(1)
    rng = random.Random(seed)
    while True:
        pool = []
        for _ in range(3 * batch):
            s = S.scene_shapes(rng) if rng.random() < 0.62 else S.scene_digits(rng)
            x, g = Q.patches(s["images"])
            pool.append(
                dict(
                    pix=[x],
                    grids=[g],
                    places=[Q.patch_places(*g)],
                    cells=[Q.cell_labels(s["marks"][0], *s["images"][0].size, *g[1:])],
                )
            )
        pool.sort(key=lambda s: len(s["pix"][0]))
        parts = [pool[k * batch : (k + 1) * batch] for k in range(3)]
        rng.shuffle(parts)
        for p in parts:
            q.put(Q.collate_pictures(p))


def cell_loss(rows, heads, cells):
    """Auxiliary loss of the vision rows: what fills each merged patch, in which colour, and where its box ends."""
    kind, color, edges = F.linear(F.layer_norm(rows, (128,)), heads[:29]).split([16, 9, 4], 1)
    full, truth = cells[:, 0] > 0, cells[:, :2].long()
    loss = F.cross_entropy(kind, truth[:, 0]) + F.cross_entropy(color, truth[:, 1])
    if full.any():
        loss = loss + 2 * F.smooth_l1_loss(edges[full], cells[full, 2:], beta=0.2)
    return loss, (kind.argmax(1) == truth[:, 0])[full]


def spot_loss(rows, heads, spots):
    """Auxiliary loss of the language model after its second layer: row and column of every image token."""
    row, col = F.linear(F.layer_norm(rows, (128,)), heads[29:]).split(8, 1)
    return F.cross_entropy(row, spots[:, 0]) + F.cross_entropy(col, spots[:, 1])


def learn_to_see(tower, heads, minutes, seed, batch=48):
    """The first stage: the vision tower alone."""
    q, muon, adam = mp.Queue(12), *optimisers(tower, [heads])
    process = mp.Process(target=picture_producer, args=(q, seed, batch), daemon=True)
    process.start()
    begin, step, hits = time.time(), 0, 0.0
    while (f := (time.time() - begin) / (60 * minutes)) < 1:
        b = M.tensors(q.get())
        loss, hit = cell_loss(M.see(tower, b), heads, b["cells"])
        loss.backward()
        update(tower, muon, adam, 2e-3 * min(1, (step + 1) / 50) * (1 - 0.75 * f), 1.0)
        heads.grad = None
        step, hits = step + 1, 0.96 * hits + 0.04 * hit.float().mean().item()
        if step % 100 == 0:
            print(
                f"vision {f * minutes * 60:5.0f} s step {step} loss {loss.item():.3f} object cells right {hits:.3f}",
                flush=True,
            )
    process.terminate()


# ---------- data process ----------
def producer(q, tokenizer, ids, seed, batch, budget, level):
    """Fills the queue of the second stage; `level` is the share of training that is over."""
    os.nice(1)
    torch.set_num_threads(1)
    coder, table, rng = Q.Coder(tokenizer), M.lookup(ids), random.Random(seed)
    while True:
        easy = max(0.0, 0.5 - 4 * level.value)  # mostly single objects at first
        pool = [Q.sequence(coder, rng, S.scene(rng, easy=easy), budget) for _ in range(3 * batch)]
        # Batches of similar image size waste less padding.
        pool.sort(key=lambda s: max((h * w for _, h, w in s["grids"]), default=0))
        parts = [pool[k * batch : (k + 1) * batch] for k in range(3)]
        rng.shuffle(parts)
        for p in parts:
            q.put(Q.collate(p, table))


def held_out(coder, table, n, seed=990001):
    """Per task a collated batch of n single questions that training never sees."""
    out = {}
    for k, t in enumerate(S.TASKS):
        rng = random.Random(seed + k)
        seqs = []
        for _ in range(n):
            sc = S.scene(rng, held=True, task=t)
            sc["qas"] = sc["qas"][:1]
            seqs.append(Q.sequence(coder, rng, sc, 10**6, train=False))
        out[t] = M.tensors(Q.collate(seqs, table))
    return out


def exact(model, sets):
    """Share of answers with every token right (teacher forcing, so the same as greedy exact match)."""
    out = {}
    with torch.no_grad():
        for t, b in sets.items():
            _, hit, at = M.losses(model, b, 0.0)
            bad = torch.zeros(len(b["ids"]), dtype=torch.bool)
            bad[at[0][~hit]] = True
            out[t] = 1 - bad.float().mean().item()
    return out


# ---------- joint training ----------
def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--tokenizer",
        type=pathlib.Path,
        required=True,
        help="folder with Qwen2-VL's tokenizer.json and tokenizer_config.json",
    )
    parser.add_argument("--minutes", type=float, default=50, help="joint training")
    parser.add_argument("--vision-minutes", type=float, default=4, help="first stage: the vision tower alone")
    parser.add_argument("--batch", type=int, default=24)
    parser.add_argument("--budget", type=int, default=130, help="tokens per sequence")
    parser.add_argument("--lr", type=float, default=1.2e-3)
    parser.add_argument("--seed", type=int, help="of the pictures; the time if not given")
    parser.add_argument("--init", type=pathlib.Path, help="continue from this compact checkpoint")
    parser.add_argument(
        "--work", type=pathlib.Path, default="work", help="folder of the compact checkpoint, last.pt"
    )
    parser.add_argument(
        "--out", type=pathlib.Path, default="hf", help="folder of the Hugging Face checkpoint"
    )
    return parser.parse_args()


def train_jointly(model, heads, queue, level, args, save_now):
    """The second stage: all tasks. `save_now` is called with the number of steps every three minutes, and at
    the end."""
    muon, adam = optimisers(model, [heads])
    begin = last = saved = time.time()
    total, step, run, hits = args.minutes * 60, 0, 0.0, 0.0
    while (gone := time.time() - begin) < total:
        f = gone / total
        lr = args.lr * min(1, (step + 1) / 120) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * f)))
        batch = M.tensors(queue.get())
        seen, level.value = [], f
        loss, hit, _ = M.losses(model, batch, min(1.0, max(0.0, 3 * f - 1)), seen)
        aux = torch.zeros(())
        if seen and f < 0.75:
            aux = cell_loss(seen[0], heads, batch["cells"])[0] + spot_loss(seen[1], heads, batch["spots"])
        (loss + aux * (1 - f / 0.75)).backward()
        update(model, muon, adam, lr, 2.0)
        heads.grad = None
        step += 1
        run, hits = 0.97 * run + 0.03 * loss.item(), 0.97 * hits + 0.03 * hit.float().mean().item()
        if step % 50 == 0:
            c, speed = 1 - 0.97 ** min(step, 400), 50 * args.batch / (time.time() - last)
            print(
                f"{gone:6.0f} s step {step} loss {run / c:.4f} token {hits / c:.4f} aux {aux.item():.3f} lr {lr:.2e} "
                f"{speed:.0f} samples/s queue {queue.qsize()}",
                flush=True,
            )
            last = time.time()
        if time.time() - saved > 180:
            save_now(step)
            saved = last = time.time()
    print(f"done: {step} steps, {step * args.batch} samples, {time.time() - begin:.0f} s", flush=True)
    save_now(step)


def main():
    args = arguments()
    args.work.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    seed = int(time.time()) if args.seed is None else args.seed
    tokenizer = args.tokenizer / "tokenizer.json"
    coder = Q.Coder(tokenizer)
    state = torch.load(args.init) if args.init else {}
    ids = state.get("ids") or M.vocabulary(coder)
    table = M.lookup(ids)
    print(len(ids), "ids in use", flush=True)
    M.check(coder, table, ids)
    model = M.new_model(len(ids) + 1)
    print(sum(p.numel() for p in model.parameters()) / 1e6, "M parameters, compact", flush=True)
    # Wide enough that tokens of one kind do not collapse into one direction.
    nn.init.normal_(model.lm_head.weight, std=0.08)
    if args.init:
        model.load_state_dict(state["model"])
    # Of the auxiliary losses; thrown away at the end.
    heads = nn.Parameter(state["heads"] if "heads" in state else torch.randn(45, 128) * 0.05)
    queue, level = mp.Queue(12), mp.Value("d", 0.0)
    inputs = (queue, tokenizer, ids, seed, args.batch, args.budget, level)
    mp.Process(target=producer, args=inputs, daemon=True).start()
    sets = held_out(coder, table, 64)
    if not args.init:
        smooth_filters(model.model.visual)
        learn_to_see(model.model.visual, heads, args.vision_minutes, seed + 1)

    def save_now(step):
        print("  held-out " + " ".join(f"{k} {v:.2f}" for k, v in exact(model, sets).items()), flush=True)
        torch.save(
            dict(model=model.state_dict(), ids=ids, heads=heads.data, step=step), args.work / "last.pt"
        )

    train_jointly(model, heads, queue, level, args, save_now)
    M.save(model, ids, args.tokenizer, args.out)


if __name__ == "__main__":
    main()
