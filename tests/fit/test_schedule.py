from __future__ import annotations

import warnings
from types import SimpleNamespace

import pytest
from mmengine.config import Config

from mmvitaccel.fit.schedule import ScheduleHook, check_remaining_length, check_schedule

WARM_UP = dict(type="LinearLR", start_factor=0.1, by_epoch=False, begin=0, end=500)


def config(epochs: int, *schedulers: dict) -> Config:
    loop = dict(type="EpochBasedTrainLoop", max_epochs=epochs)
    return Config(dict(train_cfg=loop, param_scheduler=[WARM_UP, *schedulers]))


def steps(end: int, milestones: list[int]) -> dict:
    return dict(type="MultiStepLR", begin=0, end=end, by_epoch=True, milestones=milestones)


@pytest.mark.parametrize(
    ("epochs", "scheduler", "sentence"),
    [
        (36, steps(12, [8, 11]), r"max_epochs is 36, but param_scheduler ends at 12"),
        (6, steps(12, [8, 11]), r"max_epochs is 6, but param_scheduler has MultiStepLR\.end=12"),
        (6, dict(type="MultiStepLR", milestones=[8]), r"with the milestone 8"),
        (6, dict(type="CosineAnnealingLR", T_max=12, begin=0), r"CosineAnnealingLR\.T_max=12"),
        (12, steps(12, [8, 11]), None),
        (12, dict(type="CosineAnnealingLR", T_max=6, begin=6, end=12), None),
        (12, dict(type="MultiStepLR", milestones=[8]), None),
    ],
)
def test_length(epochs, scheduler, sentence):
    if sentence is None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            check_schedule(config(epochs, scheduler))
        return
    with pytest.warns(UserWarning, match=sentence):
        check_schedule(config(epochs, scheduler))


def test_iterations():
    cfg = config(12, steps(90000, [60000, 80000]) | dict(by_epoch=False))
    cfg.train_cfg = dict(type="IterBasedTrainLoop", max_iters=270000)
    with pytest.warns(UserWarning, match=r"max_iters is 270000, but .* ends at 90000"):
        check_schedule(cfg)


def test_epochs_in_a_training_of_iterations():
    cfg = config(12, steps(12, [8, 11]))
    cfg.train_cfg = dict(type="IterBasedTrainLoop", max_iters=600)
    with pytest.warns(UserWarning, match=r"counts iterations, but .*MultiStepLR counts epochs"):
        check_schedule(cfg)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for scheduler in (
            steps(600, [8]) | dict(by_epoch=False),
            steps(12, [8, 11]) | dict(convert_to_iter_based=True),
            dict(type="ReduceOnPlateauLR", by_epoch=True),
        ):
            cfg.param_scheduler = [WARM_UP, dict(scheduler)]
            cfg.param_scheduler[0].end = 600
            check_schedule(cfg)


@pytest.mark.parametrize(
    ("schedulers", "sentence"),
    [
        ([WARM_UP], r"max_epochs is 2, which are 40 iterations, but .* LinearLR\.end=500"),
        ([dict(type="PolyLR", by_epoch=False, end=30)], r"40 iterations, but .* ends at 30"),
        (
            [dict(type="CosineAnnealingLR", by_epoch=False, T_max=90)],
            r"AnnealingLR\.T_max=90",
        ),
        ([dict(type="OneCycleLR", by_epoch=False, total_steps=90)], r"OneCycleLR\.total_steps=90"),
        ([dict(WARM_UP, end=10), steps(2, [1])], None),
        ([dict(type="PolyLR", by_epoch=False, end=40)], None),
    ],
)
def test_iterations_of_a_training_in_epochs(schedulers, sentence):
    cfg = Config(dict(train_cfg=dict(max_epochs=2), param_scheduler=schedulers))
    runner = SimpleNamespace(cfg=cfg, max_iters=40)
    if sentence is None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            ScheduleHook().before_train(runner)
        return
    with pytest.warns(UserWarning, match=sentence):
        ScheduleHook().before_train(runner)


def test_a_training_warns_of_a_warm_up_that_is_longer(run_tool, detector_config, recwarn):
    off = ["val_cfg=None", "val_dataloader=None", "val_evaluator=None"]
    warm_up = [f"param_scheduler.{key}={value}" for key, value in WARM_UP.items()]
    run_tool("train", detector_config, "--work-dir", "run", "--cfg-options", *off, *warm_up)
    (said,) = [w for w in recwarn if "param_scheduler has" in str(w.message)]
    assert "max_epochs is 1, which are 3 iterations, but param_scheduler has LinearLR.end=500" in (
        str(said.message)
    )


def test_a_training_at_its_end():
    cfg = Config(dict(train_cfg=dict(max_epochs=2)))
    sentence = (
        r"a\.pth was trained for 2 epochs, but train_cfg\.max_epochs is 2, so nothing is left"
    )
    with pytest.warns(UserWarning, match=sentence):
        check_remaining_length(cfg, "a.pth", dict(epoch=2, iter=50))
    by_iterations = Config(dict(train_cfg=dict(by_epoch=False, max_iters=50)))
    with pytest.warns(UserWarning, match=r"was trained for 50 iters,"):
        check_remaining_length(by_iterations, "a.pth", dict(epoch=2, iter=50))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_remaining_length(cfg, "a.pth", dict(epoch=1, iter=50))
        check_remaining_length(cfg, "a.pth", {})
