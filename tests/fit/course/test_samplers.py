"""Infinite samplers in loops that wait for their end."""

from __future__ import annotations

import pytest
from mmengine.config import Config

from mmvitaccel.errors import UserError
from mmvitaccel.fit.course.samplers import check_samplers


def config(split: str, sampler: str, loop: dict) -> Config:
    return Config({f"{split}_cfg": loop, f"{split}_dataloader": dict(sampler=dict(type=sampler))})


@pytest.mark.parametrize(
    ("split", "sampler", "loop", "what"),
    [
        ("train", "InfiniteSampler", dict(type="EpochBasedTrainLoop", max_epochs=2), "epoch"),
        ("train", "mmdet.GroupMultiSourceSampler", dict(by_epoch=True, max_epochs=2), "epoch"),
        ("val", "InfiniteSampler", dict(type="ValLoop"), "pass"),
        ("test", "MultiSourceSampler", {}, "pass"),
    ],
)
def test_a_loop_that_would_never_end(split, sampler, loop, what):
    name = sampler.rpartition(".")[2]
    with pytest.raises(UserError, match=rf"^{split}_dataloader\.sampler is {name}, which never "
                                        rf"ends.* first {what} would never end; set {split}_"
                                        r"dataloader\.sampler\.type=DefaultSampler"):  # fmt: skip
        check_samplers(config(split, sampler, loop), "train", "val", "test")


def test_loops_that_end():
    for sampler, loop in (
        ("DefaultSampler", dict(max_epochs=2)),
        ("InfiniteSampler", dict(type="IterBasedTrainLoop", max_iters=2)),
        ("InfiniteSampler", dict(by_epoch=False, max_iters=2)),
        ("InfiniteSampler", dict(type="MyLoop", max_epochs=2)),
    ):
        check_samplers(config("train", sampler, loop), "train", "val")
    off = config("test", "InfiniteSampler", None)
    check_samplers(off, "test")


def test_the_tools_refuse_before_the_first_step(run_tool, detector_config, capsys):
    sampler = ["train_dataloader.sampler.type=InfiniteSampler"]
    with pytest.raises(SystemExit) as caught:
        run_tool("train", detector_config, "--cfg-options", *sampler)
    assert caught.value.code == 2
    assert (
        "train_dataloader.sampler is InfiniteSampler, which never ends"
        in (capsys.readouterr().err.splitlines()[-1])
    )
