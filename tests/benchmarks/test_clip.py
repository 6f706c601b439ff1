"""The benchmark on one clip, with a model that takes no time."""

from __future__ import annotations

import pytest
import torch

from mmvitaccel.core.macs.counter import count_macs
from mmvitaccel.models import ViViT


@pytest.fixture
def benchmark(load_benchmark):
    return load_benchmark("clip")


def test_rows(benchmark):
    size = dict(img_size=32, tubelet_size=(2, 8, 8), embed_dim=24, num_heads=3)
    model, x = ViViT(**size, spatial_depth=2, temporal_depth=1), torch.randn(1, 3, 8, 32, 32)
    dense = count_macs(model, x).total
    variants = [benchmark.tome(4), benchmark.eventful(17, "tokenwise")]
    rows = benchmark.measure("small", model, variants, x, 1)
    assert [row.variant for row in rows] == ["dense", "ToMe r=4", "Eventful k=17, tokenwise"]
    assert [row.gmacs * 1e9 for row in rows[::2]] == pytest.approx([dense, dense])
    assert rows[1].gmacs < rows[0].gmacs
    assert rows[1].macs_ratio == pytest.approx(rows[0].gmacs / rows[1].gmacs)
    assert all(row.seconds > 0 for row in rows)
    assert type(model) is ViViT
    assert len(benchmark.table(rows).splitlines()) == 2 + 3
