"""Learning rates, clipping and schedules with which nothing is learned."""

from __future__ import annotations

import warnings

import pytest
from mmengine.config import Config

from mmvitaccel.errors import UserError
from mmvitaccel.fit.settings.rates import check_rates

NAN = float("nan")


def config(lr=0.1, clip_grad=None, scheduler=None, scaling=None) -> Config:
    wrapper = dict(optimizer=dict(type="SGD", lr=lr), clip_grad=clip_grad)
    return Config(dict(optim_wrapper=wrapper, param_scheduler=scheduler, auto_scale_lr=scaling))


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (dict(lr=NAN), r"^optim_wrapper\.optimizer\.lr is nan; give a finite number above 0"),
        (dict(lr=float("inf")), r"lr is inf; give a finite number above 0"),
        (
            dict(clip_grad=dict(max_norm=0)),
            r"^optim_wrapper\.clip_grad\.max_norm is 0, which leaves",
        ),
        (dict(clip_grad=dict(max_norm=-35)), r"max_norm is -35"),
        (dict(clip_grad=dict(type="value", clip_value=NAN)), r"clip_grad\.clip_value is nan"),
        (dict(scaling=dict(enable=True, base_batch_size=-16)), r"base_batch_size is -16, but the"),
        (dict(scaling=dict(enable=True)), r"base_batch_size is None, but the learning rate"),
        (dict(scaling=dict(enable=True, base_batch_size="16")), r"base_batch_size is '16'"),
        (
            dict(scheduler=[{}, dict(type="StepLR", step_size=0)]),
            r"^param_scheduler\.1\.step_size is 0; give 1 or more",
        ),
        (
            dict(scheduler=dict(encoder=[dict(type="StepLR", step_size=0)])),
            r"^param_scheduler\.encoder\.0\.step_size is 0",
        ),
        (
            dict(scheduler=dict(type="MultiStepLR", gamma=-0.1)),
            r"^param_scheduler \(Mul.*gamma=-0.1",
        ),
    ],
)
def test_rates_without_a_meaning(given, sentence):
    with pytest.raises(UserError, match=sentence):
        check_rates(config(**given))


def test_a_rate_of_one_of_several_optimizers():
    wrapper = dict(
        type="OptimWrapperDict",
        discriminator=dict(optimizer=dict(lr=0.1)),
        generator=dict(optimizer=dict(lr=NAN)),
    )
    with pytest.raises(UserError, match=r"^optim_wrapper\.generator\.optimizer\.lr is nan"):
        check_rates(Config(dict(optim_wrapper=wrapper)))


def test_a_rate_of_nothing():
    with pytest.warns(UserWarning, match=r"optimizer\.lr is 0: nothing is learned"):
        check_rates(config(lr=0))


def test_rates_as_they_are():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_rates(config(clip_grad=dict(max_norm=35, norm_type=2)))
        check_rates(config(lr="1e-4", scaling=dict(enable=False, base_batch_size=None)))
        check_rates(config(scaling=dict(enable=True, base_batch_size=16)))
        check_rates(config(scheduler=dict(encoder=[dict(type="StepLR", step_size=3, gamma=0.1)])))
        check_rates(config(scheduler=[dict(type="ExponentialLR", gamma=1.1)]))
        check_rates(Config({}))
