"""The benchmark of run-length tokenization, with models that take no time."""

from __future__ import annotations

import pytest
import torch

from mmvitaccel.datasets.motion_clips import MotionSetSettings, draw_clip, write_clip
from mmvitaccel.models import ViViT


@pytest.fixture
def benchmark(load_benchmark):
    return load_benchmark("rlt")


def test_rows(benchmark):
    torch.manual_seed(0)
    size = dict(img_size=32, num_frames=8, tubelet_size=(2, 8, 8), embed_dim=24, num_heads=3)
    model = ViViT(**size, spatial_depth=2, temporal_depth=1).eval().requires_grad_(False)
    x = torch.randn(1, 3, 8, 32, 32)
    x[:, :, 4:6, :16] = x[:, :, 2:4, :16]  # half of one of four steps
    rows = benchmark.measure("small", model, x, [0, 9], 4, 1)
    assert [row.variant for row in rows] == [
        "dense",
        "RLT 0",
        "RLT 9",
        "ToMe r=4",
        "RLT 9 and ToMe r=4",
    ]
    assert [row.dropped for row in rows] == pytest.approx([0, 1 / 8, 3 / 4, 0, 3 / 4])
    ratios = [row.macs_ratio for row in rows]
    assert ratios[0] == 1 < ratios[1] < ratios[2] < ratios[4]
    assert rows[0].error == 0 < rows[1].error < 1
    assert all(row.ms > 0 for row in rows)


@pytest.mark.parametrize(
    "model",
    [
        pytest.param("vivit", marks=[]),
        pytest.param("videomae", marks=[pytest.mark.extras("hosts", "transformers")]),
    ],
)
def test_a_quick_run_is_kept(benchmark, recorded, tmp_path, capsys, model):
    pytest.importorskip("mmaction")
    clip = draw_clip(MotionSetSettings(num_frames=64, img_size=(32, 48)), "up", "val", 0)
    write_clip(tmp_path / "clip.mp4", clip)
    command = [str(tmp_path / "clip.mp4"), "--model", model, "--quick", "--rounds", "1"]
    benchmark.main([*command, "--thresholds", "0", "0.1", "--r", "0", "--record", "short"])
    rows = recorded("short").rows
    assert [row["variant"] for row in rows] == ["dense", "RLT 0", "RLT 0.1"]
    assert rows[2]["dropped"] > 0
    assert "RLT 0.1" in capsys.readouterr().out
