"""Multiply-adds of ViTDet-B by part, dense and on a steady frame, against the published figures.

Counted while the model runs, with one head of 64 channels in place of twelve. Attention products,
relative positions and the patch embedding are in proportion to the heads, linear layers to their
square, so that the figures of the whole model follow.
"""

from __future__ import annotations

import pytest
import torch

from mmvitaccel.adapters.eventful.apply import apply_eventful
from mmvitaccel.core.eventful.gates.policy import TopK
from mmvitaccel.core.macs.counter import MacsCounter
from mmvitaccel.models.vitdet.backbone import ViTDet

HEADS = 12
# G, by part: linear layers, attention products, relative positions, patch embedding.
TABLE = {
    (1024, None, "dense"): (347.89, 114.88, 2.45, 2.42),
    (1024, 512, "tokenwise"): (43.49, 114.88, 2.45, 2.42),
    (1024, 512, "delta"): (43.49, 37.57, 2.45, 2.42),
    (672, None, "dense"): (149.82, 23.37, 0.76, 1.04),
    (672, 256, "tokenwise"): (21.74, 23.37, 0.76, 1.04),
    (672, 256, "delta"): (21.74, 9.80, 0.76, 1.04),
    (672, 512, "tokenwise"): (43.49, 23.37, 0.76, 1.04),
}


def count(size, k, attention, use_rel_pos):
    """Multiply-adds of a steady frame (or a dense one), by operator."""
    torch.manual_seed(0)
    model = ViTDet(img_size=size, embed_dim=64, num_heads=1, use_rel_pos=use_rel_pos).eval()
    if attention != "dense":
        apply_eventful(model, TopK(k), attention)
    counter = MacsCounter(model)
    frame = torch.randn(1, 3, size, size)
    with torch.no_grad():
        if attention != "dense":
            model(frame)
            frame = frame + 0.1 * torch.randn_like(frame)
        with counter:
            model(frame)
    report = counter.report()
    assert not report.uncounted
    patches = report.by_module["patch_embed"]
    linear = sum(
        macs
        for name, macs in report.by_module.items()
        if name.endswith(("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"))
    )
    return linear, report.total - linear - patches, patches


def parts(size, k, attention):
    """G of the whole ViTDet-B: linear layers, attention products, positions, patch embedding."""
    linear, products, patches = count(size, k, attention, use_rel_pos=False)
    with_positions = count(size, k, attention, use_rel_pos=True)
    assert with_positions[0] == linear
    positions = with_positions[1] - products
    scaled = (linear * HEADS**2, products * HEADS, positions * HEADS, patches * HEADS)
    return [macs / 1e9 for macs in scaled]


@pytest.mark.parametrize("row", TABLE, ids=str)
def test_parts_equal_the_published_ones(row):
    for found, expected in zip(parts(*row), TABLE[row]):
        assert found == pytest.approx(expected, rel=0.005)


@pytest.mark.parametrize(
    ("size", "k", "allowed"), [(1024, 512, 4.99), (1024, 256, 8.53), (672, 256, 5.08)]
)
def test_exact_saves_what_running_sums_allow(size, k, allowed):
    """Without the patch embedding, and but for the rows that take their turn (1 of 256 a frame)."""
    linear, products, positions, _ = parts(size, k, "exact")
    dense = sum(TABLE[size, None, "dense"][:3])
    tokens = (size // 16) ** 2
    turn = 4 * 2 * -(-tokens // 256) * tokens * 768 / 1e9
    ratio = dense / (linear + products - turn + positions)
    assert ratio == pytest.approx(allowed, rel=0.005)
    assert dense / (linear + products + positions) > 0.97 * allowed
