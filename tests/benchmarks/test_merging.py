"""The benchmark of all matchings, with a ViT that hardly learns and videos of noise."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from mmvitaccel.testing.saliency_vit import SaliencyViT

pytest.importorskip("timm")


@pytest.fixture
def benchmark(load_benchmark):
    return load_benchmark("merging")


def test_lines_are_spread_over_the_blocks(benchmark):
    # 4 x 6 shrinks by a step in every other block: 4 rows of 5, of 4, then 4 x 3, 3 columns of 3
    assert benchmark.lines_schedule(4, 8, (4, 6)) == [0, 4, 0, 4, 0, 4, 0, 3]
    assert sum(benchmark.lines_schedule(0, 8, (4, 6))) == 0


def check(rows):
    assert [row["matching"] for row in rows] == [
        "dense", "Bipartite", "RandomMatching", "RandomDrop", "Threshold", "Grid"
    ]  # fmt: skip
    assert rows[0]["macs"] == 1 and rows[0]["r"] == 0
    assert all(row["macs"] < 1 and row["ms"] > 0 for row in rows[1:])
    assert abs(rows[2]["macs"] - rows[3]["macs"]) < 1e-9


def test_digits(benchmark, recorded, tmp_path, monkeypatch, capsys):
    from tome_accuracy import Split, make_vit

    generator = torch.Generator().manual_seed(0)
    digits = torch.rand(32, 1, 24, 24, generator=generator).round()
    photos = torch.rand(2, 3, 40, 50, generator=generator)
    split = Split(digits, torch.arange(32) % 10, photos)
    monkeypatch.setattr(benchmark, "load_splits", lambda: (split, split))
    torch.manual_seed(0)
    torch.save(make_vit().state_dict(), tmp_path / "vit.pth")
    benchmark.main(["digits", "--out", str(tmp_path), "--r", "4", "--record", "short"])
    rows = recorded("short").rows
    check(rows)
    target = rows[1]["macs"]
    assert all(abs(row["macs"] - target) < 0.15 for row in rows[1:])
    assert all(0 <= row["accuracy"] <= 100 for row in rows)
    assert "RandomDrop" in capsys.readouterr().out


def test_restore(benchmark, tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "photo.png"), picture)
    small = dict(embed_dim=32, depth=3, num_heads=2, window_size=14, window_block_indexes=(0, 1))
    with torch.no_grad():
        rows = benchmark.on_vitdet(str(tmp_path / "photo.png"), [0.5], 1, **small)
    assert [row["restore"] for row in rows] == ["dense", "block", "end"]
    dense, block, end = rows
    assert dense["macs"] == 1 > block["macs"] > end["macs"]
    assert dense["error"] == 0 < block["error"] < 1 and 0 < end["error"] < 1


def test_video(benchmark, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    for part in ("frames", "masks"):
        (tmp_path / "one" / part).mkdir(parents=True)
    for number in range(3):
        picture = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
        cv2.imwrite(str(tmp_path / "one/frames" / f"{number}.png"), picture)
        mask = np.zeros((64, 64), np.uint8)
        mask[16:40, 16:40] = 255
        cv2.imwrite(str(tmp_path / "one/masks" / f"{number}.png"), mask)

    def small(wheel):
        torch.manual_seed(0)
        model = SaliencyViT(224).eval().requires_grad_(False)
        model.backbone.blocks = model.backbone.blocks[:2]
        return model

    monkeypatch.setattr(benchmark, "trained_saliency_vit", small)
    monkeypatch.setattr(benchmark, "BISECTIONS", 2)
    with torch.no_grad():
        rows = benchmark.on_video(tmp_path, tmp_path, [16], 3)
    check(rows)
    assert all(0 <= row[name] <= 100 for row in rows for name in ("f", "iou", "auc"))
