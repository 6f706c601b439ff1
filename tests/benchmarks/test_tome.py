"""The benchmark of ToMe at its quick size: what it counts, and that it writes what it prints."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import torch

pytest.importorskip("timm")


@pytest.fixture
def benchmark(load_benchmark):
    return load_benchmark("tome")


def block_macs(tokens_attention, tokens_mlp, dim):
    """Linear layers and attention products of one block."""
    attention = 4 * tokens_attention * dim**2 + 2 * tokens_attention**2 * dim
    return attention + 8 * tokens_mlp * dim**2


def test_quick_run(benchmark, tmp_path):
    out = tmp_path / "figures.json"
    benchmark.main(["--quick", "--threads", "1", "--json", str(out)])
    rows = json.loads(out.read_text())
    assert [(row["r"], row["batch"]) for row in rows] == [(8, 1), (8, 2), (8, 1), (0.5, 1)]
    for row in rows:
        assert 0 < row["error"] < 1 and 0 < row["random_error"] != row["error"]
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
    benchmark.runner(model, torch.randn(1, *case.shape), train=True)()
    assert all(p.grad is not None for p in model.parameters())


def test_a_photograph_fills_the_batch_and_a_missing_one_is_named(benchmark, tmp_path, capsys):
    shades = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "photo.png"), shades)
    x = benchmark.read_image(str(tmp_path / "photo.png"), (2, 3, 96, 64))
    assert x.shape == (2, 3, 96, 64)
    assert torch.equal(x[0], x[1])
    torch.testing.assert_close(x.mean(dim=(2, 3)), torch.zeros(2, 3), atol=1e-5, rtol=0)
    with pytest.raises(SystemExit, match="2"):
        benchmark.main(["--quick", "--image", "no.png"])
    assert "--image no.png does not exist" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        benchmark.main(["--quick", "--batch", "0"])
    assert "--batch 0: give 1 or more" in capsys.readouterr().err


def test_half_precision_is_told_of_both_and_counts_in_the_error(benchmark):
    case, x = benchmark.QUICK_CASES["vit-b"], torch.randn(1, 3, 96, 96)
    (row,) = benchmark.measure(case, x, 1, dtype=torch.bfloat16)
    (single,) = benchmark.measure(case, x, 1)
    assert (row.dtype, single.dtype) == ("bfloat16", "float32")
    assert row.error > single.error and row.macs_ratio == single.macs_ratio


def test_the_error_of_a_map_is_relative_to_its_changes(benchmark):
    expected = torch.tensor([[[[1.0, 3.0], [2.0, 2.0]]]]) + 10
    assert benchmark.relative_error(expected, expected) == 0
    assert benchmark.relative_error(expected + 1, expected) == pytest.approx(2**0.5)
    assert benchmark.relative_error(expected[0, 0] * 1.5, expected[0, 0]) == pytest.approx(0.5)
