"""Weighted policies on models: what matters belongs to the stream."""

from __future__ import annotations

import pytest
import torch

from mmvitaccel import (
    Every,
    LastObjects,
    ReceivedAttention,
    SimpleFPN,
    TopK,
    Weighted,
    apply_eventful,
    apply_eventful_neck,
)
from mmvitaccel.adapters.eventful.weighing import grid_of
from mmvitaccel.testing.detectors import detect, frames, rcnn, sample
from mmvitaccel.testing.models import timm_model, vitdet

SMALL = dict(
    img_size=128, embed_dim=32, depth=2, num_heads=2, window_size=4, window_block_indexes=(0,)
)
LEFT, RIGHT = torch.tensor([[0.0, 0.0, 0.5, 1.0]]), torch.tensor([[0.5, 0.0, 1.0, 1.0]])


def make(name="vitdet"):
    torch.manual_seed(0)
    if name == "vitdet":
        return vitdet(**SMALL).eval()
    return timm_model("vit_tiny_patch16_224", img_size=128, depth=2, num_classes=0).eval()


def passed_columns(handle, frame=0, prefix=0):
    """Columns of an 8 x 8 grid in which a token passed the first gate."""
    mask = handle.passed_tokens()[frame][0, 0, 0, prefix:].unflatten(0, (8, 8))
    return set(mask.any(0).nonzero()[:, 0].tolist())


def images(batch=1):
    return torch.randn(batch, 3, 128, 128)


@pytest.mark.parametrize("name", ["vitdet", "timm"])
def test_tokens_of_objects_pass(name):
    """timm does not tell its grid to the blocks; it follows from the picture."""
    model = make(name)
    handle = apply_eventful(model, Weighted(TopK(12), [LastObjects(grow=0)], floor=0))
    prefix = int(name == "timm")
    with torch.no_grad():
        model(images())
        handle.saw_objects(LEFT)
        model(images())
        assert passed_columns(handle, prefix=prefix) <= {0, 1, 2, 3}
        handle.saw_objects(heat=torch.arange(8.0).expand(8, 8) > 5)
        model(images())
        assert passed_columns(handle, prefix=prefix) <= {6, 7}


def test_streams_of_one_model_have_their_own_objects():
    model = make()
    handle = apply_eventful(model, Weighted(TopK(12), [LastObjects(grow=0)], floor=0))
    with torch.no_grad(), handle.stream(["left", "right"]):
        model(images(2))
        handle.saw_objects(LEFT, stream="left")
        handle.saw_objects(RIGHT, stream="right")
        handle.saw_objects(RIGHT, stream="nobody")
        model(images(2))
        assert passed_columns(handle, 0) <= {0, 1, 2, 3}
        assert passed_columns(handle, 1) <= {4, 5, 6, 7}
    assert set(handle.streams) == {"left", "right"}
    handle.reset("left")
    with torch.no_grad(), handle.stream(["left", "right"]):
        model(images(2))
        model(images(2))
        assert len(passed_columns(handle, 0)) > 4  # forgotten with the stream
        assert passed_columns(handle, 1) <= {4, 5, 6, 7}


def test_a_refreshed_frame_passes_all_whatever_matters():
    model = make()
    policy = Weighted(TopK(12), [LastObjects()], floor=0)
    handle = apply_eventful(model, policy, refresh=Every(2))
    with torch.no_grad():
        for number in range(4):
            model(images())
            handle.saw_objects(LEFT)
            assert handle.frames[0].passed[0][0] == (64 if number in (0, 2) else 12)


def test_it_is_the_base_until_something_is_told():
    base, weighted = make(), make()
    apply_eventful(base, TopK(12))
    apply_eventful(weighted, Weighted(TopK(12), [LastObjects()]))
    with torch.no_grad():
        for _ in range(3):
            x = images()
            assert torch.equal(base(x)[0], weighted(x)[0])


def test_a_neck_refuses_it():
    neck, weighted = SimpleFPN(16, 8).eval(), Weighted(TopK(3), [LastObjects()])
    with pytest.raises(ValueError, match=r"a neck or head has none; use TopK\(k=3\)"):
        apply_eventful_neck(neck, weighted)
    handle = apply_eventful_neck(neck, TopK(3))
    with pytest.raises(ValueError, match=r"a neck or head has none; use TopK\(k=3\)"):
        handle.policy = weighted


def test_in_a_whole_detector_the_neck_takes_the_base():
    model = rcnn()
    handle = apply_eventful(model, Weighted(TopK(6), [LastObjects()]), parts="all")
    for i, picture in enumerate(frames(3)):
        detect(model, [picture], [sample("v", i)])
    assert handle.policy.base.k == handle.parts["neck"].policy.k == 6
    handle.policy = Weighted(TopK(4), [LastObjects()])
    detect(model, [picture], [sample("v", 3)])
    assert handle.parts["neck"].frames[0].passed == [(4,)]
    with pytest.raises(ValueError, match="a neck or head has none"):
        apply_eventful(rcnn(), {"backbone": TopK(6), "neck": handle.policy}, parts="all")


@pytest.mark.parametrize(
    ("image", "tokens", "grid"),
    [
        ((3, 224, 224), 256, (16, 16)), ((3, 128, 64), 32, (8, 4)), ((3, 64, 128), 32, (4, 8)),
        ((3, 224, 224), 255, None), ((3, 100, 60), 16, None), (None, 16, None), ((9,), 9, None),
    ],
)  # fmt: skip
def test_the_grid_of_a_picture(image, tokens, grid):
    assert grid_of(image, tokens) == grid


def softmax_of(q, k, scale, bias=0.0):
    """Attention (B, h, N, K)."""
    return (q @ k.transpose(2, 3) * scale + bias).softmax(-1)


@pytest.mark.parametrize("name", ["vitdet", "timm"])
def test_received_attention_is_that_of_the_last_frame(name):
    model, prefix = make(name), int(name == "timm")
    handle = apply_eventful(model, Weighted(TopK(12), [ReceivedAttention()], floor=0))
    with torch.no_grad():
        model(images())
        attention, bias = handle.remembered("unnamed")[1].attention, 0.0
        q, k, _ = attention.qkv
        if name == "vitdet":
            rows_h, rows_w = model.blocks[1].attn.position_rows((8, 8))
            y, x = torch.arange(64) // 8, torch.arange(64) % 8
            bias = torch.einsum("bhnd,nkd->bhnk", q, rows_h[y][:, y] + rows_w[x][:, x])
        wanted = softmax_of(q, k, attention.logits.scale, bias).mean((0, 1, 2))[prefix:]
        attended = handle._state.store.state("unnamed").matters.attended
        assert torch.allclose(attended[-1], wanted, atol=1e-6)
        attended[-1] = torch.arange(8.0).expand(8, 8).gt(5).float().flatten()
        model(images())
        assert passed_columns(handle, prefix=prefix) <= {6, 7}
        again = attention.received()[0, prefix:]
    assert torch.equal(attended[-1], again) and not torch.allclose(again, wanted, atol=1e-6)


def test_received_attention_of_windows_or_of_no_block_is_refused():
    handle = apply_eventful(make(), Weighted(TopK(12), [ReceivedAttention(0)]))
    with torch.no_grad(), pytest.raises(ValueError, match="a block with attention within windows"):
        handle.model(images())
    handle.policy = Weighted(TopK(12), [ReceivedAttention(2)])
    with torch.no_grad(), pytest.raises(ValueError, match="the model has 2 blocks"):
        handle.model(images())
