"""ToMe and Eventful on mmdet's own ViTDet, where ``MMVITACCEL_MMDET_CHECKOUT`` names a checkout."""

from __future__ import annotations

import importlib
import os
from pathlib import Path

import pytest
import torch

from mmvitaccel import Always, TopK, apply_eventful, apply_tome
from mmvitaccel.models.vitdet.backbone import ViTDet
from tests.adapters.conftest import scramble

VARIABLE = "MMVITACCEL_MMDET_CHECKOUT"
SIZE = dict(img_size=64, patch_size=8, embed_dim=32, depth=3, num_heads=4, pretrain_img_size=32)
WINDOWS = dict(window_size=5, window_block_indexes=(0, 2), use_rel_pos=True)


@pytest.fixture
def theirs(monkeypatch):
    """Their class."""
    checkout = os.environ.get(VARIABLE, "")
    if not checkout:
        pytest.skip(f"{VARIABLE} names no checkout of mmdet")
    if not Path(checkout, "projects", "ViTDet").is_dir():
        pytest.fail(f"{VARIABLE}={checkout} holds no projects/ViTDet")
    monkeypatch.syspath_prepend(checkout)
    return importlib.import_module("projects.ViTDet.vitdet.vit").ViT


@pytest.fixture
def model(theirs):
    return scramble(theirs(**SIZE, **WINDOWS)).eval()


def images(count=1):
    return torch.randn(count, 3, 48, 64, generator=torch.Generator().manual_seed(1))


def close(found, wanted, tolerance):
    scale = max(1.0, wanted.abs().max().item())
    torch.testing.assert_close(found, wanted, rtol=0, atol=tolerance * scale)


@torch.no_grad()
def test_tome(model):
    expected = model(images(2))
    keys = list(model.state_dict())
    handle = apply_tome(model, 0)
    close(model(images(2)), expected, 1e-6)
    handle.r = 4
    assert model(images(2)).shape == expected.shape
    # windows of 25 tokens, and a map of 6 x 8
    assert handle.info.tokens == [21, 44, 21]
    assert list(model.state_dict()) == keys
    handle.remove()
    assert torch.equal(model(images(2)), expected)


@torch.no_grad()
def test_eventful(model):
    frames = [images() + 0.1 * number for number in range(3)]
    expected = [model(frame) for frame in frames]
    handle = apply_eventful(model, Always())
    for frame, wanted in zip(frames, expected):
        close(model(frame), wanted, 1e-5)
    handle.policy = TopK(6)
    model(frames[0])
    assert handle.frames[0].passed == [(6, 6, 6)] * 3


@torch.no_grad()
def test_ours_gives_the_same_with_its_weights(model):
    ours = ViTDet(**SIZE, **WINDOWS).eval()
    ours.load_state_dict(model.state_dict(), strict=True)
    (found,) = ours(images())
    close(found, model(images()), 1e-5)
