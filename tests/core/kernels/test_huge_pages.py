"""Large tensors of huge pages are plain tensors."""

from __future__ import annotations

import torch

from mmvitaccel.core.kernels import huge_pages
from mmvitaccel.core.kernels.huge_pages import huge_empty_like


def test_shape_type_and_order_are_those_of_the_other(monkeypatch):
    monkeypatch.setattr(huge_pages, "ALWAYS_FRESH", 2**20)
    for x in (
        torch.zeros(3, 5),
        torch.zeros(2, 700, 400, dtype=torch.bfloat16),
        torch.zeros(4, 301, 3, 401).transpose(1, 3),
    ):
        out = huge_empty_like(x)
        assert (out.shape, out.dtype, out.stride()) == (x.shape, x.dtype, x.stride())
        assert not out.fill_(1).eq(0).any() and not x.any()


def test_only_large_ones_on_a_cpu_are_advised(monkeypatch):
    asked = []
    monkeypatch.setattr(huge_pages.ctypes, "CDLL", lambda name: asked.append(name))
    huge_empty_like(torch.zeros(1000))
    huge_empty_like(torch.empty(2**26, device="meta"))
    assert not asked
