"""Invalid settings of gradient clipping and of ``paramwise_cfg``."""

from __future__ import annotations

import warnings

import pytest
from mmengine.config import Config
from torch import nn

from mmvitaccel.errors import UserError
from mmvitaccel.fit.course.optimizer import check_clipping, check_paramwise


def config(**wrapper) -> Config:
    return Config(dict(model=dict(type="mmdet.M"), optim_wrapper=wrapper))


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (dict(max_norms=3.0), r"'max_norms', which torch's clip_grad_norm_ .*mean 'max_norm'\?"),
        (dict(type="value", max_norm=3.0), r"'max_norm', which torch's clip_grad_value_ does not"),
    ],
)
def test_clipping_with_other_arguments(given, sentence):
    with pytest.raises(UserError, match=r"^optim_wrapper\.clip_grad has the argument " + sentence):
        check_clipping(config(clip_grad=given))


@pytest.mark.parametrize(
    "given",
    [None, dict(max_norm=1.0, norm_type=2, _scope_="mmdet"), dict(type="value", clip_value=0.1)],
)
def test_clipping_as_torch_takes_it(given):
    check_clipping(config(clip_grad=given))
    check_clipping(Config({}))


def check(**wrapper) -> list[str]:
    model = nn.ModuleDict({"backbone": nn.Linear(2, 2), "neck": nn.Linear(2, 2)})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_paramwise(config(**wrapper), model)
    return [str(warning.message) for warning in caught]


def test_a_key_that_nothing_reads():
    (said,) = check(paramwise_cfg=dict(bias_lr_multi=2.0))
    assert said.startswith("optim_wrapper.paramwise_cfg has the key 'bias_lr_multi', which ")
    assert said.endswith("did you mean 'bias_lr_mult'?")


def test_a_custom_key_in_no_name():
    keys = {"backbon.": dict(lr_mult=0.1), "neck": dict(lr_mult=0.1)}
    (said,) = check(paramwise_cfg=dict(custom_keys=keys))
    assert said == (
        "optim_wrapper.paramwise_cfg.custom_keys has 'backbon.', which is in the name of no "
        "parameter of M and has no effect; did you mean 'backbone'?"
    )


def test_what_is_read_is_silent():
    keys = dict(backbone=dict(lr_mult=0.1), absolute_pos_embed={}, _scope_="mmdet")
    assert check(paramwise_cfg=dict(custom_keys=keys, norm_decay_mult=0.0)) == []
    assert check(paramwise_cfg=dict(num_layers=12), constructor="LayerDecayConstructor") == []
    assert check(paramwise_cfg=dict(_delete=True, norm_decay_mult=0.0)) == []
    assert check() == []


def test_a_training_is_refused_before_the_first_step(run_tool, detector_config, capsys):
    with pytest.raises(SystemExit) as caught:
        run_tool("train", detector_config, "--cfg-options", "optim_wrapper.clip_grad.max_norms=3")
    assert caught.value.code == 2
    assert "did you mean 'max_norm'?" in capsys.readouterr().err.splitlines()[-1]
