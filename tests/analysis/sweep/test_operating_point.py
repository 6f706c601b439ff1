from __future__ import annotations

import argparse

import pytest
from mmengine.config import Config

from mmvitaccel.analysis.sweep.operating_point import (
    DENSE,
    OperatingPoint,
    eventful_point,
    points_of,
    rlt_point,
    tome_point,
)
from mmvitaccel.errors import UserError
from mmvitaccel.runner.options.arguments import ConfigOptions

POINTS = [
    eventful_point(64),
    eventful_point(32, "delta", "RandomTokens", parts=["backbone", "neck"]),
    eventful_point(16, each=["backbone", "neck"], parts="all"),
    tome_point(8),
    rlt_point(0.25),
]


def test_every_combination_once_and_dense_first():
    points = points_of([8, 4, 8], ["exact", "delta"], ["TopK", "RandomTokens"], [2], [0.1, 1])
    assert [p.name for p in points] == [
        "dense", "exact TopK k=8", "exact TopK k=4", "exact RandomTokens k=8",
        "exact RandomTokens k=4", "delta TopK k=8", "delta TopK k=4", "delta RandomTokens k=8",
        "delta RandomTokens k=4", "ToMe r=2", "RLT threshold=0.1", "RLT threshold=1",
    ]  # fmt: skip
    assert len({p.file_name for p in points}) == len(points)
    assert [p.is_control for p in points[:5]] == [False, False, False, True, True]


@pytest.mark.parametrize("point", POINTS, ids=lambda p: p.name)
def test_what_is_pasted_is_what_was_tested(point):
    cfg = Config(dict(model=dict(type="A"), default_hooks=dict(timer=dict(type="IterTimerHook"))))
    tested = point.apply(cfg)
    assert cfg.default_hooks == dict(timer=dict(type="IterTimerHook"))
    pasted = {}
    exec(point.config_lines(), pasted)
    assert dict(pasted["default_hooks"], timer=cfg.default_hooks.timer) == tested.default_hooks
    parser = argparse.ArgumentParser()
    parser.add_argument("--cfg-options", nargs="+", action=ConfigOptions)
    given = parser.parse_args(["--cfg-options", *point.command_line().split()])
    cfg.merge_from_dict(given.cfg_options)
    assert cfg.default_hooks == tested.default_hooks


def test_the_dense_point_changes_nothing():
    cfg = Config(dict(model=dict(type="A")))
    assert OperatingPoint(DENSE).apply(cfg).to_dict() == cfg.to_dict()


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (([], ["exact"], ["TopK"], []), "nothing to sweep over: give --k for Eventful, --r for"),
        (([0], ["exact"], ["TopK"], []), "--k 0: give whole numbers, at least 1"),
        (([4], ["exact"], ["TopK"], [-1]), "--r -1: give whole numbers, at least 1"),
        (([], ["exact"], ["TopK"], [], [0.1, -0.5]), "--rlt -0.5: give thresholds of at least 0"),
        (([], ["exact"], ["TopK"], [], [float("nan")]), "--rlt nan: give thresholds of at least"),
        (([4], ["exact"], ["TopJ"], []), "--eventful-policy TopJ is not registered; give Random"),
        (([4], ["exact"], ["Always"], []), "Always has no k to sweep over; give RandomTokens or"),
    ],
)
def test_mistakes(given, sentence):
    with pytest.raises(UserError, match=sentence):
        points_of(*given)
