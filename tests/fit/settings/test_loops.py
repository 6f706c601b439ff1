"""Loops whose parts or numbers have no meaning."""

from __future__ import annotations

import pytest
from mmengine.config import Config

from mmvitaccel.errors import UserError
from mmvitaccel.fit.settings.loops import check_length, check_parts


@pytest.mark.parametrize(
    ("absent", "sentence"),
    [
        (["optim_wrapper"], "^optim_wrapper is not set, but train_dataloader and train_cfg are; "),
        (["val_evaluator", "val_cfg"], "^val_cfg and val_evaluator are not set, but val_dataload"),
        (["test_cfg"], "test_cfg is not set.*; set all of test_dataloader, test_cfg, test_evalu"),
    ],
)
def test_parts_of_a_loop_come_together(absent, sentence):
    keys = ("train_dataloader", "train_cfg", "optim_wrapper", "val_dataloader", "val_cfg")
    whole = {key: {} for key in (*keys, "val_evaluator", "test_dataloader", "test_cfg")}
    cfg = Config(whole | {"test_evaluator": []})
    check_parts(cfg)
    for key in absent:
        cfg[key] = None
    with pytest.raises(UserError, match=sentence):
        check_parts(cfg)
    check_parts(Config({}))


@pytest.mark.parametrize(
    "loop",
    [
        dict(max_epochs=0),
        dict(max_epochs=-1),
        dict(max_iters=0),
        dict(max_epochs=2, val_interval=0),
    ],
    ids=str,
)
def test_a_training_without_length(loop):
    key, value = list(loop.items())[-1]
    with pytest.raises(UserError, match=rf"^train_cfg\.{key} is {value}; give 1 or more\.$"):
        check_length(Config(dict(train_cfg=loop)))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("max_epochs", "twelve"),
        ("max_epochs", float("inf")),
        ("max_iters", 1.5),
        ("val_interval", 1.5),
        ("val_interval", "x"),
        ("val_begin", "x"),
        ("val_begin", True),
    ],
)
def test_numbers_of_a_loop_are_whole(key, value):
    with pytest.raises(
        UserError, match=rf"^train_cfg\.{key} is .*; give a whole number, [01] or m"
    ):
        check_length(Config(dict(train_cfg={key: value})))


def test_lengths_that_mmengine_takes():
    for loop in (dict(max_epochs=1, val_interval=1, val_begin=0), dict(max_iters=1e5), {}):
        check_length(Config(dict(train_cfg=loop)))
    check_length(Config({}))
