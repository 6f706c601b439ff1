from __future__ import annotations

import warnings

import pytest
from mmengine.config import Config

from mmvitaccel.errors import UserError
from mmvitaccel.fit.course.resumed import (
    check_resumable,
    check_resumed_batch,
    check_resumed_settings,
)

BEFORE = dict(
    optim_wrapper=dict(
        type="OptimWrapper",
        optimizer=dict(type="AdamW", lr=0.003, betas=(0.9, 0.99)),
        paramwise_cfg=dict(custom_keys={"a.b": dict(lr_mult=0.1)}),
    ),
    param_scheduler=[
        dict(type="LinearLR", by_epoch=False, begin=0, end=500),
        dict(type="MultiStepLR", begin=0, end=12, milestones=[8, 11]),
    ],
    train_cfg=dict(max_epochs=12),
)


def said(change) -> list[str]:
    cfg = Config(BEFORE)
    meta = dict(cfg=cfg.pretty_text)
    change(cfg)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_resumed_settings(cfg, "a.pth", meta)
    return [str(warning.message) for warning in caught]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda c: c.optim_wrapper.optimizer.update(lr=1e-5),
         "optim_wrapper.optimizer.lr is 1e-05 (was 0.003): a resumed training restores opt"),
        (lambda c: c.optim_wrapper.optimizer.update(weight_decay=0.1),
         "optim_wrapper.optimizer.weight_decay is 0.1 (was not set): "),
        (lambda c: c.optim_wrapper.optimizer.update(betas=(0.9, 0.999)),
         "optimizer.betas is (0.9, 0.999) (was (0.9, 0.99)): "),
        (lambda c: c.optim_wrapper.paramwise_cfg.custom_keys["a.b"].update(lr_mult=1.0),
         "paramwise_cfg.custom_keys.a.b.lr_mult is 1.0 (was 0.1): "),
        (lambda c: c.param_scheduler[1].update(end=24, milestones=[16, 22]),
         "param_scheduler.1.end is 24 (was 12), param_scheduler.1.milestones is [16, 22] (was "
         "[8, 11]): "),
        (lambda c: c.param_scheduler.append(dict(type="ConstantLR")),
         "param_scheduler.2 is {'type': 'ConstantLR'} (was not set): "),
    ],
)  # fmt: skip
def test_settings_that_a_resumed_training_does_not_follow(change, sentence):
    (one,) = said(change)
    assert sentence in one
    assert "its checkpoint, a.pth, so these settings have no effect" in one
    assert one.endswith("start from its weights (load_from without resume), else restore them.")


@pytest.mark.parametrize(
    "change",
    [
        lambda c: None,
        lambda c: c.train_cfg.update(max_epochs=24),
        lambda c: c.optim_wrapper.update(clip_grad=dict(max_norm=1.0)),
        lambda c: c.optim_wrapper.optimizer.update(betas=[0.9, 0.99]),
        lambda c: c.optim_wrapper.optimizer.update(_scope_="mmdet"),
        lambda c: c.pop("param_scheduler"),
    ],
)
def test_what_it_follows_is_silent(change):
    assert said(change) == []


@pytest.mark.parametrize(
    "text", [None, "raise SystemExit(", "optim_wrapper = open('x')", "param_scheduler = [f()]"]
)
def test_a_text_that_is_no_config_is_left_alone(text):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_resumed_settings(Config(BEFORE), "a.pth", dict(cfg=text))


def test_a_resumed_training_keeps_its_learning_rate(run_tool, detector_config, tmp_path, recwarn):
    options = ["--cfg-options", "val_cfg=None", "val_dataloader=None", "val_evaluator=None"]
    run_tool("train", detector_config, "--work-dir", "run", *options)
    again = [*options, "train_cfg.max_epochs=2", "optim_wrapper.optimizer.lr=0.5"]
    recwarn.clear()
    run_tool("train", detector_config, "--work-dir", "run", "--resume", *again)
    (one,) = [str(w.message) for w in recwarn if "have no effect" in str(w.message)]
    assert one.startswith("optim_wrapper.optimizer.lr is 0.5 (was ")
    log = sorted((tmp_path / "run").glob("*/vis_data/scalars.json"))[-1].read_text()
    assert '"lr": 0.5' not in log


def test_another_batch_size():
    cfg = Config(dict(train_dataloader=dict(batch_size=4)))
    text = "train_dataloader = dict(batch_size=2, num_workers=0)\n"
    with pytest.warns(UserWarning, match=r"batch_size is 4, but checkpoint a\.pth .* with 2"):
        check_resumed_batch(cfg, "a.pth", dict(cfg=text))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_resumed_batch(cfg, "a.pth", dict(cfg=text.replace("2", "4")))
        check_resumed_batch(cfg, "a.pth", {})
        check_resumed_batch(cfg, "a.pth", dict(cfg="raise SystemExit("))


@pytest.mark.parametrize(
    ("meta", "sentence"),
    [
        ({}, r"^checkpoint a\.pth has no 'epoch' in its meta, so that .*give it as load_from"),
        (dict(epoch=3), r"no 'iter' in its meta"),
        (
            dict(epoch="3", iter=3),
            r"has '3' as its meta's 'epoch', so that a training cannot go on",
        ),
    ],
)
def test_weights_from_which_no_training_goes_on(meta, sentence):
    with pytest.raises(UserError, match=sentence):
        check_resumable("a.pth", meta)
    check_resumable("a.pth", dict(epoch=0, iter=0))
