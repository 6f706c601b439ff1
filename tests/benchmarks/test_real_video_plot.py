"""The plot of the benchmark on real videos, from drawn figures."""

from __future__ import annotations

import json

import cv2
import pytest

from mmvitaccel.errors import UserError


@pytest.fixture
def plot(load_benchmark):
    return load_benchmark("real_video_plot")


def row(variant, f, gmacs, ms=None, videos="as they are"):
    return dict(videos=videos, variant=variant, f=f, iou=f - 10, auc=f + 5, gmacs=gmacs, ms=ms)


MEASURED = [
    row("dense", 88, 8),
    row("ToMe r=8", 87, 6),
    row("ToMe r=13", 86, 5),
    row("motion k=64", 70, 3),
    row("motion k=128", 80, 5),
    row("random tokens k=64", 60, 3),
    row("motion k=64", 10, 3, videos="spliced"),
]
TIMED = [row("dense", 1, 8, 50.0), row("motion k=64", 1, 3, 30.0), row("motion k=128", 1, 5, 40.0)]


def test_lines_of_ways_over_budgets(plot):
    rows = plot.gathered([MEASURED, TIMED], "as they are")
    assert rows["dense"]["f"] == 88 and rows["dense"]["ms"] == 50  # scores of the first
    drawn = plot.panels(rows)
    assert [(panel.ylabel, panel.xlabel) for panel in drawn] == [
        (score, cost) for score in plot.SCORES.values() for cost in plot.COSTS.values()
    ]
    f_by_macs = {line.label: line for line in drawn[0].lines}
    assert list(f_by_macs) == ["dense", "ToMe", "motion", "random tokens"]
    assert (f_by_macs["ToMe"].x, f_by_macs["ToMe"].y) == ((5, 6), (86, 87))
    assert (f_by_macs["motion"].x, f_by_macs["motion"].y) == ((3, 5), (70, 80))
    iou_by_ms = {line.label: line for line in drawn[3].lines}
    assert (iou_by_ms["motion"].x, iou_by_ms["motion"].y) == ((30.0, 40.0), (60, 70))
    assert iou_by_ms["ToMe"].x == ()  # was not timed
    without = plot.panels(plot.gathered([MEASURED], "as they are"))
    assert len(without) == 3 and {panel.xlabel for panel in without} == {plot.COSTS["gmacs"]}


def test_picture(plot, tmp_path):
    for name, rows in (("a", MEASURED), ("b", TIMED)):
        (tmp_path / f"{name}.json").write_text(json.dumps(rows))
    files = [str(tmp_path / name) for name in ("out.png", "a.json", "b.json")]
    plot.main(files)
    picture = cv2.imread(files[0])
    assert picture.std() > 5 and picture.shape[0] > picture.shape[1]  # three rows of two


def test_what_is_missing_is_named(plot, tmp_path):
    with pytest.raises(UserError, match=r"record 'real-vid' was not made yet"):
        plot.read("real-vid")
    with pytest.raises(
        UserError, match=r"none\.json is not a file that real_video\.py --json wrote"
    ):
        plot.read(str(tmp_path / "none.json"))
    with pytest.raises(UserError, match="no row of what was given is of videos 'cut'"):
        plot.gathered([MEASURED], "cut")
