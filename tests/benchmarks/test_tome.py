"""The benchmark of ToMe at its quick size: what it counts, and that it writes what it prints."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("timm")


@pytest.fixture
def benchmark():
    path = Path(__file__).parents[2] / "benchmarks" / "tome.py"
    spec = importlib.util.spec_from_file_location("benchmark_tome", path)
    module = importlib.util.module_from_spec(spec)
    # reason: dataclasses look their module up while it is being run
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def block_macs(tokens_attention, tokens_mlp, dim):
    """Linear layers and attention products of one block."""
    attention = 4 * tokens_attention * dim**2 + 2 * tokens_attention**2 * dim
    return attention + 8 * tokens_mlp * dim**2


def test_quick_run(benchmark, tmp_path, monkeypatch):
    out = tmp_path / "figures.json"
    monkeypatch.setattr(sys, "argv", ["tome.py", "--quick", "--threads", "1", "--json", str(out)])
    benchmark.main()
    rows = json.loads(out.read_text())
    assert [row["r"] for row in rows] == [8, 8]
    # ViT-B of 2 blocks on 96 pixels: 36 patches and a class token; what matching takes is more
    dim, patches, classes = 768, 36, 768 * 1000
    embedding = patches * dim * 768
    dense = embedding + 2 * block_macs(37, 37, dim) + classes
    merged = embedding + block_macs(37, 29, dim) + block_macs(29, 21, dim) + classes
    assert rows[0]["macs_ratio"] == pytest.approx(dense / merged, rel=1e-3)
    for row in rows:
        assert row["speedup"] == pytest.approx(row["dense_seconds"] / row["merged_seconds"])
        assert row["reached"] == pytest.approx(row["speedup"] / row["macs_ratio"])


def test_training_is_timed_with_its_backward(benchmark):
    case = benchmark.QUICK_CASES["videomae"]
    model = case.build().train()
    benchmark.runner(model, benchmark.torch.randn(case.shape), train=True)()
    assert all(p.grad is not None for p in model.parameters())
