"""Hooks that begin after the end of a training, and unknown arguments of CheckpointHook."""

from __future__ import annotations

import warnings

import pytest
from mmengine.config import Config

from mmvitaccel.errors import UserError
from mmvitaccel.fit.course.hooks import check_hooks


def said(loop: dict, *hooks: dict, **default_hooks: dict) -> list[str]:
    cfg = Config(dict(train_cfg=loop, custom_hooks=list(hooks), default_hooks=default_hooks))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_hooks(cfg)
    return [str(warning.message) for warning in caught]


SWITCH = dict(type="PipelineSwitchHook", switch_epoch=280)
MODE = dict(type="YOLOXModeSwitchHook", num_last_epochs=15)
AVERAGE = dict(type="EMAHook", begin_epoch=5)
RECIPE = dict(type="SwitchRecipeHook", schedule=[dict(action_epoch=3), dict(action_epoch=9)])


@pytest.mark.parametrize(
    ("epochs", "hook", "what"),
    [
        (280, SWITCH, "custom_hooks.0 (PipelineSwitchHook) has switch_epoch=280"),
        (15, MODE, "custom_hooks.0 (YOLOXModeSwitchHook) has num_last_epochs=15"),
        (5, AVERAGE, "custom_hooks.0 (EMAHook) has begin_epoch=5"),
        (8, RECIPE, "custom_hooks.0 (SwitchRecipeHook) has action_epoch=9"),
    ],
)
def test_a_time_that_never_comes(epochs, hook, what):
    (one,) = said(dict(max_epochs=epochs), hook)
    assert f"train_cfg.max_epochs is {epochs}, but {what}: this never begins" in one
    assert said(dict(max_epochs=epochs + 1), hook) == []


def test_all_of_them_are_one_warning():
    (one,) = said(dict(max_epochs=4, val_begin=5), SWITCH, MODE)
    for what in ("switch_epoch=280", "num_last_epochs=15", "train_cfg has val_begin=5"):
        assert what in one


def test_iterations():
    hook = dict(type="EMAHook", begin_iter=100)
    (one,) = said(dict(max_iters=100), hook)
    assert "max_iters is 100, but custom_hooks.0 (EMAHook) has begin_iter=100" in one
    assert said(dict(max_iters=101), hook) == []
    assert said(dict(max_epochs=2), hook) == []


@pytest.mark.parametrize(
    ("key", "hint"), [("save_bst", "; did you mean 'save_best'?"), ("create_symlink", ".")]
)
def test_arguments_that_no_checkpoint_is_saved_with(key, hint):
    hook = {"type": "CheckpointHook", "interval": 1, key: "auto"}
    sentence = rf"^default_hooks\.checkpoint has the argument '{key}'.*correct it"
    with pytest.raises(UserError, match=sentence) as caught:
        said(dict(max_epochs=1), checkpoint=hook)
    assert str(caught.value).endswith(f"correct it{hint}")


def test_arguments_of_checkpoints_and_of_hooks_of_ones_own():
    checkpoint = dict(type="CheckpointHook", interval=1, save_best="auto", priority="LOW")
    checkpoint["_scope_"] = "mmdet"
    own = dict(type="MyCheckpointHook", whatever=1)
    assert said(dict(max_epochs=1), own, checkpoint=checkpoint, timer=None) == []


def test_a_training_ends_before_the_first_step(run_tool, detector_config, capsys):
    with pytest.raises(SystemExit) as caught:
        run_tool("train", detector_config, "--cfg-options", "default_hooks.checkpoint.type="
                 "CheckpointHook", "default_hooks.checkpoint.save_bst=auto")  # fmt: skip
    assert caught.value.code == 2
    assert "did you mean 'save_best'?" in capsys.readouterr().err.splitlines()[-1]
