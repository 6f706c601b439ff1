from __future__ import annotations

import csv
import json

import cv2
import pytest

from mmvitaccel.analysis.sweep.operating_point import (
    DENSE,
    OperatingPoint,
    eventful_point,
    tome_point,
)
from mmvitaccel.analysis.sweep.results import (
    PointResult,
    choose_metric,
    pareto_front,
    recommend,
)
from mmvitaccel.analysis.sweep.write import advice, table, write
from mmvitaccel.errors import UserError

MACS, MS = "cost/gmacs", "cost/ms"


def result(point, accuracy, macs, ms=None):
    figures = {"vid/mAP50": accuracy, MACS: macs, "cost/tokens": {"blocks.0.qkv": 4}}
    return PointResult(point, figures | ({} if ms is None else {MS: ms}))


RESULTS = [
    result(OperatingPoint(DENSE), 80.0, 10.0, 100.0),
    result(eventful_point(64), 79.5, 4.0, 110.0),
    result(eventful_point(32), 76.0, 2.0, 60.0),
    result(eventful_point(32, "delta"), 75.0, 3.0, 40.0),
    result(eventful_point(64, policy="RandomTokens"), 80.0, 1.0, 1.0),
    result(tome_point(8), 79.0, 6.0, 50.0),
]


def names(results):
    return [r.point.name for r in results]


def test_front():
    front = pareto_front(RESULTS, "vid/mAP50", MACS)
    assert names(front) == ["exact TopK k=32", "exact TopK k=64", "dense"]
    front = pareto_front(RESULTS, "vid/mAP50", MS)
    assert names(front) == ["delta TopK k=32", "ToMe r=8", "dense"]


@pytest.mark.parametrize(
    ("cost", "loss", "name"),
    [
        (MACS, 0.01, "exact TopK k=64"),
        (MACS, 0.05, "exact TopK k=32"),
        (MACS, 0.0, "dense"),
        (MS, 0.01, "dense"),
        (MS, 0.0125, "ToMe r=8"),
        (MS, 0.5, "delta TopK k=32"),
    ],
)
def test_cheapest_within_a_loss_never_random(cost, loss, name):
    assert recommend(RESULTS, "vid/mAP50", cost, loss).point.name == name


def test_without_times_there_is_none_to_recommend():
    untimed = [result(r.point, r.figures["vid/mAP50"], r.figures[MACS]) for r in RESULTS]
    assert recommend(untimed, "vid/mAP50", MS, 0.1) is None
    assert "No time was measured" in advice(untimed, "vid/mAP50", 0.1)


def test_table_and_advice():
    lines = table(RESULTS, "vid/mAP50").splitlines()
    assert lines[2] == "| dense | 80 | 10 | 1.00 | * | 100 | 1.00 | * |"
    assert lines[3] == "| exact TopK k=64 | 79.5 | 4 | 2.50 | * | 110 | 0.91 |  |"
    said = advice(RESULTS, "vid/mAP50", 0.01)
    assert (
        "exact TopK k=64, 4 instead of 10 for dense; vid/mAP50 79.5, dense 80 (at most 1.0%" in said
    )
    assert "By ms a frame: dense; no cheaper point" in said
    assert 'eventful=dict(type="mmvitaccel.EventfulHook", policy=dict(type="TopK", k=64)' in said
    assert said.count("default_hooks = dict(") == 1


def test_files(tmp_path):
    files = write(RESULTS, "vid/mAP50", 0.01, tmp_path, {"other": RESULTS[:2]})
    rows = list(csv.DictReader(files[0].open()))
    assert [row["name"] for row in rows] == names(RESULTS)
    assert (rows[1]["k"], rows[1]["r"], rows[1][MACS]) == ("64", "", "4.0")
    stored = json.loads(files[1].read_text())
    assert stored["recommended"] == {MACS: "exact TopK k=64", MS: "dense"}
    assert PointResult.from_json(stored["points"][3]) == RESULTS[3]
    del stored["points"][3]["threshold"]  # of a sweep from before there was one
    assert PointResult.from_json(stored["points"][3]) == RESULTS[3]
    assert cv2.imread(str(files[2])).std() > 5


def test_metric():
    figures = [r.figures for r in RESULTS]
    assert choose_metric(figures) == "vid/mAP50"
    with pytest.raises(
        UserError, match="--metric acc/top1: not every test returned it; all have vid"
    ):
        choose_metric(figures, "acc/top1")
    with pytest.raises(UserError, match="returned no accuracy metric"):
        choose_metric([{MACS: 1.0}])
