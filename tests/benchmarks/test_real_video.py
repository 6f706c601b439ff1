"""The benchmark on real videos: what it compares, with random weights on small drawn videos."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import torch

from mmvitaccel.errors import UserError
from mmvitaccel.testing.saliency_vit import SaliencyViT


@pytest.fixture
def real_video(load_benchmark, monkeypatch):
    module = load_benchmark("real_video")

    def random_weights(wheel, size):
        torch.manual_seed(0)
        return SaliencyViT(size).eval().requires_grad_(False)

    monkeypatch.setattr(module, "trained_saliency_vit", random_weights)
    return module


@pytest.fixture
def videos(tmp_path):
    """Two videos of seven frames: a bright square that moves over grey and over stripes."""
    for name, step in (("a", 3), ("b", -3)):
        for kind in ("frames", "masks"):
            (tmp_path / "videos" / name / kind).mkdir(parents=True)
        for number in range(7):
            picture = np.full((60, 80, 3), 60, np.uint8)
            if name == "b":
                picture[:, ::8] = 200
            mask = np.zeros((60, 80), np.uint8)
            left = 30 + step * number
            mask[20:40, left : left + 20] = 255
            picture[mask > 0] = (40, 240, 90)
            cv2.imwrite(str(tmp_path / "videos" / name / "frames" / f"{number}.jpg"), picture)
            cv2.imwrite(str(tmp_path / "videos" / name / "masks" / f"{number}.png"), mask)
    return tmp_path / "videos"


def run(module, videos, *options):
    out = videos.parent / "out.json"
    given = ["--size", "56", "--budgets", "4", "--merges", "1", "--timed", "2"]
    module.main(["wheel", str(videos), *given, *options, "--json", str(out)])
    return {(row["videos"], row["variant"]): row for row in json.loads(out.read_text())}


def test_every_variant_has_its_row(real_video, videos, capsys):
    rows = run(real_video, videos)
    plain = [variant for kind, variant in rows if kind == "as they are"]
    assert plain == [
        "dense", "ToMe r=1", "aligned dense, view", "aligned dense, frame", "Eventful k=4, exact",
        "Eventful k=4, tokenwise", "Eventful k=4, delta", "STGT k=4", "random tokens k=4",
        "ToMe r=1, Eventful k=4", "last objects k=4", "running objects k=4",
        "received attention k=4", "motion k=4", "random, motion k=4", "last objects, motion k=4",
        "ToMe r=1, Eventful k=4, OnChange", "last objects, motion, OnChange k=4",
    ]  # fmt: skip
    dense = rows["as they are", "dense"]
    exact = rows["as they are", "Eventful k=4, exact"]
    assert dense["frames"] == 14 and dense["gmacs"] > exact["gmacs"] > 0
    assert rows["as they are", "last objects k=4"]["gmacs"] == pytest.approx(exact["gmacs"])
    for row in rows.values():
        assert row["ms"] > 0 and 0 < row["f"] <= 100 and 0 < row["iou"] <= 100
    assert "refreshed" in capsys.readouterr().out
    # 2 scenes of 5 frames; the first frame of the second one is refreshed
    cut = rows["spliced", "Eventful k=4, OnChange"]
    assert (cut["frames"], cut["refreshed"]) == (10, 10)
    assert rows["spliced", "Eventful k=4"]["refreshed"] == 0
    assert cut["gmacs"] > rows["spliced", "Eventful k=4"]["gmacs"]
    for together in ("ToMe r=1, Eventful k=4, OnChange", "last objects, motion, OnChange k=4"):
        assert rows["spliced", together]["refreshed"] == 10
        assert rows["spliced", together]["gmacs"] < rows["spliced", "dense"]["gmacs"]


def test_only_some(real_video, videos):
    rows = run(real_video, videos, "--only", "dense", "--timed", "0")
    assert [variant for _, variant in rows] == ["dense", "dense"]
    assert rows["as they are", "dense"]["ms"] is None
    short = run(real_video, videos, "--only", "dense", "--timed", "0", "--frames", "4")
    assert list(short) == [("as they are", "dense")]  # no whole scene to splice
    assert list(run(real_video, videos, "--only", "dense", "--no-cuts")) == list(short)
    with pytest.raises(SystemExit):
        run(real_video, videos, "--only", "sparse")


def test_maps_of_a_view_are_moved_to_the_frame(real_video):
    heat = torch.arange(12.0).view(3, 4)
    found = real_video.moved(heat, (1, -2)).tolist()
    assert found == [[4, 4, 4, 5], [8, 8, 8, 9], [8, 8, 8, 9]]


def test_scenes_are_taken_in_turn(real_video):
    frames = {name: [(name, number) for number in range(11)] for name in "ab"}
    (video,) = real_video.spliced(frames).values()
    starts = [frame for number, frame in enumerate(video) if number % real_video.SCENE == 0]
    assert starts == [("a", 0), ("b", 0), ("a", 5), ("b", 5)] and len(video) == 20


def test_what_is_missing_is_named(real_video, videos, tmp_path):
    with pytest.raises(UserError, match="contains no videos; give a folder of folders"):
        real_video.read_videos(tmp_path / "empty", 56, 3)
    (videos / "b" / "masks" / "2.png").unlink()
    with pytest.raises(UserError, match=r"b/masks/2\.png does not exist; each frame needs a mask"):
        real_video.read_videos(videos, 56, 3)
