"""The whole model against a direct, slow implementation of the paper's blocks."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from mmvitaccel.adapters.eventful.apply import apply_eventful
from mmvitaccel.core.eventful.gates.policy import Always, TopK
from mmvitaccel.core.eventful.modes import windowed_attention
from mmvitaccel.models.vitdet.backbone import ViTDet

HEADS, WINDOWS, SIDE, PATCH = 3, (0, 2), 3, 8
CONFIG = dict(
    img_size=64, patch_size=PATCH, embed_dim=24, depth=4, num_heads=HEADS, window_size=SIDE,
    window_block_indexes=WINDOWS, pretrain_img_size=32,
)  # fmt: skip
SIZE = (40, 56)  # 5 x 7 tokens: windows are padded, and so are pools of 2 x 2
TOKENS = 35


def make_model(**changes):
    model = ViTDet(**{**CONFIG, **changes})
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.2
    return model.eval()


def make_video(frames, size=SIZE, seed=1, share=0.25):
    """A share of the pixels wanders, the others stand still."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(1, 3, *size, generator=generator)
    video = [x]
    for _ in range(frames - 1):
        moving = torch.rand(1, 1, *size, generator=generator) < share
        x = x + 0.3 * moving * torch.randn(x.shape, generator=generator)
        video.append(x)
    return video


def run(model, video):
    with torch.no_grad():
        return [model(frame)[0] for frame in video]


class SlowEventful:
    """ViTDet with gates, one token and one window at a time, N x N everywhere."""

    def __init__(self, state, k, mode="tokenwise", before=False, last_frame=False, pool=1):
        self.state, self.k, self.mode = state, k, mode
        self.before, self.last_frame, self.pool = before, last_frame, pool
        self.memory = [{} for _ in range(CONFIG["depth"])]

    def frame(self, img):
        state = self.state
        x = F.conv2d(img, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], PATCH)
        self.grid = tuple(x.shape[2:])
        pos = state["pos_embed"][0, 1:].reshape(1, 4, 4, -1).permute(0, 3, 1, 2)
        x = x + F.interpolate(pos, self.grid, mode="bicubic", align_corners=False)
        x = x[0].flatten(1).t()
        for i, memory in enumerate(self.memory):
            x = self.block(x, i, memory)
        return x.t().reshape(1, -1, *self.grid)

    def block(self, x, i, memory):
        p = {k[len(f"blocks.{i}.") :]: v for k, v in self.state.items() if f"blocks.{i}." in k}

        def norm(t, n):
            return F.layer_norm(t, t.shape[-1:], p[f"norm{n}.weight"], p[f"norm{n}.bias"], 1e-6)

        def linear(t, name):
            return F.linear(t, p[f"{name}.weight"], p[f"{name}.bias"])

        def gated(name, c, compute):
            passed = self.gate(memory, name, c)
            results = memory.setdefault(f"{name}_results", torch.empty(len(c), len(compute(c[0]))))
            for token in passed:
                results[token] = compute(c[token])
            return passed, results

        one, two = (lambda t: norm(t, 1)), (lambda t: norm(t, 2))
        if self.before:
            passed, qkv = gated("qkv", x, lambda t: linear(one(t), "attn.qkv"))
        else:
            passed, qkv = gated("qkv", one(x), lambda t: linear(t, "attn.qkv"))
        out = self.attention(qkv, i, p, memory, passed)
        x = x + gated("proj", out, lambda t: linear(t, "attn.proj"))[1]

        def mlp(t):
            return linear(F.gelu(linear(t, "mlp.fc1")), "mlp.fc2")

        if self.before:
            return x + gated("mlp", x, lambda t: mlp(two(t)))[1]
        return x + gated("mlp", two(x), mlp)[1]

    def gate(self, memory, name, c):
        if name not in memory:
            memory[name] = c.clone()
            return list(range(len(c)))
        errors = (memory[name] - c).pow(2).sum(1).sqrt()
        passed = errors.argsort(descending=True)[: self.k].tolist()
        if self.last_frame:
            memory[name] = c.clone()
        for token in passed:
            memory[name][token] = c[token]
        return passed

    def attention(self, qkv, i, p, memory, passed):
        height, width = self.grid
        qkv = qkv.reshape(height, width, 3, HEADS, -1)
        if i not in WINDOWS:
            heads = []
            for h in range(HEADS):
                q, k, v = (qkv[:, :, part, h] for part in range(3))
                if self.mode == "delta":
                    heads.append(self.delta(q, k, v, p, memory.setdefault(h, {}), passed))
                else:
                    k, v, scores = self.scores(q, k, v, p)
                    heads.append(scores.softmax(-1) @ v)
            return torch.cat(heads, 1)
        bias = p["attn.qkv.bias"].reshape(3, HEADS, -1)
        padded = bias.expand(height + -height % SIDE, width + -width % SIDE, -1, -1, -1).clone()
        padded[:height, :width] = qkv
        out = torch.empty(*padded.shape[:2], qkv.shape[-1] * HEADS)
        for top in range(0, padded.shape[0], SIDE):
            for left in range(0, padded.shape[1], SIDE):
                window = padded[top : top + SIDE, left : left + SIDE]
                for h in range(HEADS):
                    q, k, v = (window[:, :, part, h] for part in range(3))
                    _, _, scores = self.scores(q, k, v, p, pool=1)
                    value = scores.softmax(-1) @ v.flatten(0, 1)
                    span = slice(h * v.shape[-1], (h + 1) * v.shape[-1])
                    out[top : top + SIDE, left : left + SIDE, span] = value.reshape(SIDE, SIDE, -1)
        return out[:height, :width].flatten(0, 1)

    def scores(self, q, k, v, p, pool=None):
        """Keys, values and logits; pooled keys carry the mean of their positions."""
        pool = self.pool if pool is None else pool
        height, width, dim = q.shape

        def table(name, size):
            rows = F.interpolate(p[name].t()[None], 2 * size - 1, mode="linear")[0].t()
            place = torch.arange(size)
            return rows[place[:, None] - place + size - 1]

        of_h, of_w = table("attn.rel_pos_h", height), table("attn.rel_pos_w", width)
        bias = torch.einsum("yxd,ykd->yxk", q, of_h)[..., None]
        bias = bias + torch.einsum("yxd,xkd->yxk", q, of_w)[:, :, None]
        keys, values, biases = [], [], []
        for top in range(0, height, pool):
            for left in range(0, width, pool):
                cell = (slice(top, top + pool), slice(left, left + pool))
                keys.append(k[cell].flatten(0, 1).mean(0))
                values.append(v[cell].flatten(0, 1).mean(0))
                biases.append(bias[:, :, cell[0], cell[1]].flatten(2).mean(2).flatten())
        keys, values = torch.stack(keys), torch.stack(values)
        logits = q.flatten(0, 1) @ keys.t() * dim**-0.5
        return keys, values, logits + torch.stack(biases, 1)

    def delta(self, q, k, v, p, memory, passed):
        _, v, fresh = self.scores(q, k, v, p)
        width = q.shape[1]
        cells = -(-width // self.pool)
        keys = sorted({t // width // self.pool * cells + t % width // self.pool for t in passed})
        if not memory:
            a = fresh.softmax(-1)
            memory.update(scores=fresh, a=a, v=v.clone(), product=a @ v)
            return memory["product"].clone()
        for token in passed:
            memory["scores"][token] = fresh[token]
        for key in keys:
            memory["scores"][:, key] = fresh[:, key]
        a = memory["scores"].softmax(-1)
        for key in keys:
            da, dv = a[:, key] - memory["a"][:, key], v[key] - memory["v"][key]
            memory["product"] += a[:, key, None] * dv + da[:, None] * memory["v"][key]
            memory["a"][:, key], memory["v"][key] = a[:, key], v[key]
        return memory["product"].clone()


OPTIONS = {
    "tokenwise": {},
    "delta": dict(mode="delta"),
    "before the norm": dict(before=True),
    "STGT": dict(last_frame=True),
    "STGT before the norm": dict(last_frame=True, before=True),
    "pooled": dict(pool=2),
    "pooled delta": dict(mode="delta", pool=2),
}


def applied(model, k, mode="tokenwise", before=False, last_frame=False, pool=1, attention=None):
    return apply_eventful(
        model,
        TopK(k),
        attention or mode,
        gate_position="before_norm" if before else "after_norm",
        reference="last_frame" if last_frame else "last_passed",
        kv_pool_size=pool,
    )


@pytest.mark.parametrize("waiting", [False, True])
@pytest.mark.parametrize("name", OPTIONS)
def test_follows_the_papers_recurrences(name, waiting, monkeypatch):
    """``waiting``: as on a device that is not to be waited for."""
    if waiting:
        for module in (windowed_attention,):
            monkeypatch.setattr(module, "reading_is_free", lambda device: False)
    model, video = make_model(), make_video(6)
    slow = SlowEventful(model.state_dict(), 6, **OPTIONS[name])
    expected = [slow.frame(frame) for frame in video]
    handle = applied(model, 6, **OPTIONS[name])
    for out, wanted in zip(run(model, video), expected):
        torch.testing.assert_close(out, wanted, rtol=1e-4, atol=1e-4)
    assert handle.frames[0].passed == [(6, 6, 6)] * 4


@pytest.mark.parametrize("pool", [1, 2])
@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("attention", ["tokenwise", "delta", "exact"])
@pytest.mark.parametrize("windows", [WINDOWS, ()], ids=["windows", "global"])
def test_all_tokens_equal_the_dense_model(attention, windows, before, pool):
    model = make_model(window_block_indexes=windows)
    video = make_video(4)
    if pool == 1:
        dense = run(model, video)
    else:  # a new first frame each time, from the definition
        state = model.state_dict()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(f"{__name__}.WINDOWS", windows)
            dense = [SlowEventful(state, TOKENS, pool=2).frame(frame) for frame in video]
    for policy in (TopK(TOKENS), Always()):
        position = "before_norm" if before else "after_norm"
        handle = apply_eventful(model, policy, attention, gate_position=position, kv_pool_size=pool)
        for out, wanted in zip(run(model, video), dense):
            scale = float(wanted.abs().max())
            torch.testing.assert_close(out, wanted, rtol=0, atol=1e-5 * scale)
        handle.remove()


@pytest.mark.parametrize(("k", "pool"), [(1, 1), (5, 1), (5, 2), (12, 1), (30, 1)])
def test_exact_equals_tokenwise_over_100_frames(k, pool):
    model, video = make_model(), make_video(100)
    outs = {}
    for attention in ("tokenwise", "exact"):
        handle = applied(model, k, attention=attention, pool=pool)
        outs[attention] = run(model, video)
        handle.remove()
    for out, wanted in zip(outs["exact"], outs["tokenwise"]):
        torch.testing.assert_close(out, wanted, rtol=0, atol=1e-4 * float(wanted.abs().max()))


def test_fewer_tokens_cost_accuracy():
    model, video = make_model(), make_video(40)
    dense = run(model, video)

    def error(k, attention):
        handle = applied(model, k, attention=attention)
        outs = run(model, video)
        handle.remove()
        gaps = [float((o - d).norm() / d.norm()) for o, d in zip(outs[1:], dense[1:])]
        return sum(gaps) / len(gaps)

    errors = {(k, a): error(k, a) for k in (4, 16, 30) for a in ("exact", "delta")}
    for attention in ("exact", "delta"):
        assert errors[4, attention] > errors[16, attention] > errors[30, attention] > 1e-4


def test_windows_in_which_nothing_changed_are_left_alone(monkeypatch):
    model, video = make_model(), make_video(1)
    still = video[0].clone()
    still[:, :, :8, :8] += 1.0  # the first token of the first window
    attended = []
    original = windowed_attention.WindowedAttention.attend
    monkeypatch.setattr(
        windowed_attention.WindowedAttention,
        "attend",
        lambda self, out, windows, *rest: (
            attended.append(windows),
            original(self, out, windows, *rest),
        ),
    )
    apply_eventful(model, TopK(1), "exact")
    run(model, [video[0], still])
    assert attended[0] is None and attended[1] is None, "a first frame attends all windows"
    assert attended[2].tolist() == [0], "window 0 of 6 holds the only token that changed"
    assert math.prod(attended[3].shape) == 0, "and the second gate passes one of its tokens"
