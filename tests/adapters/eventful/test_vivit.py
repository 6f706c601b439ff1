"""Eventful computing across the time steps of ViViT's clips."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import init_default_scope

from mmvitaccel.adapters.eventful.apply import EventfulHandle, apply_eventful
from mmvitaccel.core.eventful.gates.policy import Always, Threshold, TopK
from mmvitaccel.core.macs.counter import count_macs
from mmvitaccel.models.vivit.backbone import ViViT

MODES = ("exact", "tokenwise", "delta")
TOKENS, DIM, STEPS = 17, 24, 6


def make(**options) -> ViViT:
    torch.manual_seed(0)
    size = dict(img_size=32, num_frames=2 * STEPS, tubelet_size=(2, 8, 8), embed_dim=DIM)
    size |= dict(num_heads=3, spatial_depth=3, temporal_depth=2)
    model = ViViT(**size | options)
    for parameter in model.parameters():
        parameter.data = torch.randn_like(parameter) * 0.3
    return model.eval()


def clips(count: int = 2, seed: int = 1) -> torch.Tensor:
    """Noise that stays for the most part, so that some tokens change and others do not."""
    noise = torch.Generator().manual_seed(seed)
    still = torch.randn(count, 3, 1, 32, 32, generator=noise)
    x = still.repeat(1, 1, 2 * STEPS, 1, 1)
    for t in range(2 * STEPS):
        column = 4 * (t % 6)
        x[:, :, t, 8:20, column : column + 8] += torch.randn(count, 3, 12, 8, generator=noise)
    return x


@pytest.mark.parametrize(
    ("mode", "policy"),
    [
        *[(mode, policy) for mode in MODES for policy in (TopK(TOKENS), Always())],
        # The paper's attention leaves out columns of tokens that did not change.
        *[(mode, Threshold(0.0)) for mode in ("exact", "tokenwise")],
    ],
    ids=repr,
)
def test_all_tokens_let_through_is_the_dense_model(mode, policy):
    model, x = make(), clips()
    expected = model(x)
    handle = apply_eventful(model, policy, mode)
    torch.testing.assert_close(model(x), expected, rtol=0, atol=1e-5)
    handle.remove()
    assert type(model) is ViViT
    assert torch.equal(model(x), expected)


class Gated:
    """One gate and what is remembered behind it, for a single clip."""

    def __init__(self, k: int) -> None:
        self.k, self.reference, self.results = k, None, None

    def __call__(self, x: torch.Tensor, compute) -> tuple[torch.Tensor, list[int]]:
        """Compute the k tokens (N, C) that differ most from what was last let through."""
        passed = list(range(len(x)))
        if self.reference is None:
            self.reference, self.results = x.clone(), None
        else:
            errors = [float((a - b).norm()) for a, b in zip(self.reference, x)]
            passed = sorted(passed, key=lambda i: -errors[i])[: self.k]
        for i in passed:
            self.reference[i] = x[i]
        values = compute(x[passed], passed)
        if self.results is None:
            self.results = values.clone()
        else:
            self.results = self.results.clone()
            self.results[passed] = values
        return self.results, passed


def slow_clip(model: ViViT, clip: torch.Tensor, k: int) -> torch.Tensor:
    """Gates token by token, attention computed whole over the gated q, k, v: (S, C)."""
    tokens, _ = model.embed(clip[None])
    gates = [[Gated(k) for _ in range(3)] for _ in model.spatial.blocks]
    encoded = []
    for step in tokens[0]:
        x = model.spatial.add_positions(step[None], model.spatial.grid_size)[0]
        for block, (first, second, third) in zip(model.spatial.blocks, gates):
            qkv, _ = first(block.norm1(x), lambda h, _, b=block: b.attn.qkv(h))
            q, key, v = qkv.reshape(len(x), 3, 3, -1).permute(1, 2, 0, 3)
            weights = (q @ key.transpose(1, 2) * block.attn.scale).softmax(-1)
            out = (weights @ v).transpose(0, 1).reshape(len(x), DIM)
            x = x + second(out, lambda h, _, b=block: b.attn.proj(h))[0]
            x = x + third(block.norm2(x), lambda h, _, b=block: b.mlp(h))[0]
        encoded.append(model.spatial.norm(x[0]))
    return torch.stack(encoded)


@pytest.mark.parametrize("mode", ["exact", "tokenwise"])
@pytest.mark.parametrize("k", [1, 5, 12])
def test_against_gates_token_by_token(mode, k):
    model, x = make(), clips()
    expected = torch.stack([slow_clip(model, clip, k) for clip in x])
    dense = model.forward_spatial(x)
    apply_eventful(model, TopK(k), mode)
    torch.testing.assert_close(model.forward_spatial(x), expected, rtol=0, atol=2e-5)
    assert (expected - dense).abs().max() > 0.01
    assert torch.equal(model.forward_spatial(x)[:, 0], model.forward_spatial(x[:, :, :2])[:, 0])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("policy", [TopK(5), Threshold(1.0)], ids=repr)
def test_several_clips_in_a_batch_equal_each_alone(mode, policy):
    model, x = make(), clips(3)
    x[1, :, 4:] = x[1, :, 4:5]  # a clip in which hardly anything happens any more
    apply_eventful(model, policy, mode)
    alone = torch.cat([model(x[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(model(x), alone, rtol=0, atol=1e-5)


def test_each_clip_starts_clean_and_nothing_is_kept():
    model, x = make(), clips()
    handle = apply_eventful(model, TopK(4))
    first = model(x)
    model(clips(seed=9))
    assert torch.equal(model(x), first)
    assert handle.streams == []
    assert handle.memory_bytes == 0


def test_a_stream_goes_on_from_step_to_step():
    model, x = make(), clips(1)
    handle = apply_eventful(model, TopK(4))
    expected = model.forward_spatial(x)
    steps = []
    for number, step in enumerate(x.split(2, dim=2)):
        with handle.stream("camera", frame_id=number):
            steps.append(model.forward_step(step))
        model(clips(seed=7))  # other work in between does not reach it
    torch.testing.assert_close(torch.stack(steps, 1), expected, rtol=0, atol=1e-6)
    assert handle.streams == ["camera"]


def test_training_is_dense_but_for_a_frozen_spatial_encoder():
    x = clips()
    for frozen in (False, True):
        model = make(freeze_spatial=frozen)
        eventful = copy.deepcopy(model)
        apply_eventful(eventful, TopK(4))
        incremental = eventful(x)
        model.train(), eventful.train()
        out, expected = eventful(x), model(x)
        out.square().sum().backward()
        if frozen:
            torch.testing.assert_close(out, incremental)
            assert (out - expected).abs().max() > 1e-3
            assert eventful.spatial.norm.weight.grad is None
            assert eventful.temporal.norm.weight.grad.abs().sum() > 0
        else:
            torch.testing.assert_close(out, expected)
            assert eventful.spatial.norm.weight.grad.abs().sum() > 0


def test_inside_a_recognizer_no_video_id_is_asked_for(recwarn):
    """mmaction2 gives clips without one; each is a stream of its own."""
    pytest.importorskip("mmaction")
    from mmaction.models import Recognizer3D
    from mmaction.structures import ActionDataSample

    init_default_scope("mmaction")
    head = dict(type="TimeSformerHead", num_classes=3, in_channels=DIM, average_clips="prob")
    size = dict(img_size=32, num_frames=2 * STEPS, tubelet_size=(2, 8, 8), embed_dim=DIM)
    size |= dict(num_heads=3, spatial_depth=1, temporal_depth=1)
    model = Recognizer3D(backbone=dict(type="mmvitaccel.ViViT", **size), cls_head=head).eval()
    apply_eventful(model, TopK(4))
    views = clips(4).unflatten(0, (2, 2))  # two samples of two views
    results = model(views, [ActionDataSample(), ActionDataSample()], mode="predict")
    assert not [w for w in recwarn if "video_id" in str(w.message)]
    for index, result in enumerate(results):
        scores = F.softmax(model.cls_head(model.backbone(views[index])), 1).mean(0)
        torch.testing.assert_close(result.pred_score, scores)
    assert EventfulHandle(model).streams == []


def block_macs(tokens: int, dim: int) -> int:
    return 12 * tokens * dim**2 + 2 * tokens**2 * dim


@pytest.mark.parametrize(
    ("side", "k", "paper"),
    [
        (224, 24, None),
        (224, 48, 1.016),
        (224, 96, 1.814),
        (320, 50, None),
        (320, 100, 2.26),
        (320, 200, None),
    ],
)
def test_multiply_adds_against_the_papers_rows(side, k, paper):
    """The paper's attention on ViViT-B: one of its 12 blocks, on the first of 16 steps and a later.

    The paper's totals, in T over 12 views, also count additions, biases and the gates.
    """
    dim, tokens = 768, (side // 16) ** 2 + 1
    model = ViViT(img_size=side, num_frames=4, spatial_depth=1, temporal_depth=1).eval()
    x = torch.randn(1, 3, 4, side, side, generator=torch.Generator().manual_seed(0))
    found = {}
    for mode in MODES:
        handle = apply_eventful(model, TopK(k), mode)
        report = count_macs(model, x)
        assert report.uncounted == {}
        found[mode] = report.by_module["spatial"]
        handle.remove()
    linear = 12 * k * dim**2  # QKV 3, output 1, MLP 8
    first, whole = block_macs(tokens, dim), 2 * tokens**2 * dim
    delta = 4 * k * tokens * dim  # k rows and k columns of q k, then k columns of each product
    assert found["delta"] == first + linear + delta
    assert found["tokenwise"] == first + linear + whole
    # The running sums also attend some rows anew; they fall back to dense attention near its cost.
    assert first + linear < found["exact"] < first + linear + 1.01 * whole
    if paper is not None:
        temporal = 4 * block_macs(17, dim)
        total = 12 * (12 * (first + 15 * (linear + delta)) + temporal)
        assert total == pytest.approx(paper * 1e12, rel=0.01)
