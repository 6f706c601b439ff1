"""Matching and merging by the compiled kernels where they are used, against torch's operators."""

from __future__ import annotations

import pytest
import torch

from mmvitaccel import apply_tome
from mmvitaccel.core.kernels import operators
from mmvitaccel.core.macs.counter import MacsCounter, count_macs
from mmvitaccel.core.tome.merge import bipartite_soft_matching, merge_weighted, owner
from mmvitaccel.testing.models import timm_model

pytestmark = pytest.mark.usefixtures("kernel")


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
@pytest.mark.parametrize("prefix", [0, 1, 6])
def test_the_same_with_and_without_them(monkeypatch, prefix, similarity):
    torch.manual_seed(0)
    keys = torch.randn(61, 2, 32).transpose(0, 1)  # not contiguous
    x = torch.randn(61, 2, 20).transpose(0, 1)
    size = torch.randint(1, 5, (2, 61, 1)).float()

    def run():
        with MacsCounter() as counter:
            matching = bipartite_soft_matching(keys, 17, prefix, similarity)
            merged = merge_weighted(x, size, matching)
        return (*matching[:3], owner(matching), *merged), counter.report().total

    with_them, macs = run()
    monkeypatch.setattr(operators, "kernels", lambda: None)
    without, macs_without = run()
    for ours, theirs in zip(with_them, without):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)
    assert not torch.equal(with_them[4], without[4])  # two ways, two roundings
    assert macs == macs_without > 0


def test_a_model_is_the_same_with_and_without_them(monkeypatch):
    torch.manual_seed(0)
    model = timm_model("vit_tiny_patch16_224", img_size=96, depth=3)
    x = torch.randn(2, 3, 96, 96)
    apply_tome(model, r=5)
    with torch.no_grad():
        with_them, macs = model(x), count_macs(model, x).total
        monkeypatch.setattr(operators, "kernels", lambda: None)
        torch.testing.assert_close(model(x), with_them, rtol=1e-5, atol=1e-5)
        assert count_macs(model, x).total == macs


def test_gradients_go_past_them():
    x = torch.randn(1, 9, 16, requires_grad=True)
    size = torch.ones(1, 9, 1)
    matching = bipartite_soft_matching(x, 3)
    merged, _ = merge_weighted(x, size, matching)
    assert not any(t.requires_grad for t in (*matching[:3], owner(matching)))
    (merged * torch.arange(6.0)[None, :, None]).sum().backward()
    places = owner(matching)[0]
    share = 1.0 / places.bincount()[places]
    torch.testing.assert_close(x.grad[0], (places * share)[:, None].expand(9, 16))
    with torch.no_grad():
        assert not merge_weighted(x, size, matching)[0].requires_grad


def test_kernels_are_not_given_other_types():
    x = torch.randn(1, 9, 16, dtype=torch.float64)
    matching = bipartite_soft_matching(x, 3)
    assert matching.owner is None
    assert merge_weighted(x, torch.ones(1, 9, 1), matching)[0].dtype == torch.float64
