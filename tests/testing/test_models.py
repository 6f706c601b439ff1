"""The shared models: no part is an identity, and copies share their parameters."""

from __future__ import annotations

import pytest
import torch

from mmvitaccel.testing import baselines, models

SMALL = dict(img_size=32, embed_dim=24, depth=2, num_heads=3, window_block_indexes=(0,))


def test_relative_positions_count():
    model = models.vitdet(**SMALL).eval()
    tables = [p for name, p in model.named_parameters() if "rel_pos" in name]
    assert len(tables) == 4 and all(table.abs().sum() > 0 for table in tables)


@torch.no_grad()
def test_blocks_of_efficientvit_are_not_the_identity():
    torch.manual_seed(0)
    model, x = models.efficientvit("m0", out_indices=(2,)), torch.randn(1, 3, 128, 128)
    assert not model.training and model.deploy
    (before,) = model(x)
    for parameter in model.parameters():
        kept = parameter.clone()
        parameter.zero_()
        assert not torch.equal(model(x)[0], before)
        parameter.copy_(kept)


def test_a_copy_shares_the_weights_and_nothing_else():
    model = models.vitdet(**SMALL)
    copy = models.sharing_weights(model)
    assert copy is not model and copy.blocks[0] is not model.blocks[0]
    assert all(a is b for a, b in zip(copy.parameters(), model.parameters()))


@pytest.mark.parametrize("way", [baselines.traced, baselines.traced_and_frozen])
@torch.no_grad()
def test_baselines_compute_the_same(way):
    torch.manual_seed(0)
    model, x = models.efficientvit("m0"), torch.randn(1, 3, 64, 64)
    function = way(model, x)
    other = torch.randn(1, 3, 64, 64)
    for out, expected in zip(function(other), model(other)):
        torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)


def test_timms_baseline_is_folded():
    pytest.importorskip("timm")
    model = baselines.timm_efficientvit("m0")
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules())
    assert not model.training
