"""BudgetHook in mmengine's Runner: a detector over videos, a recognizer over clips."""

from __future__ import annotations

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, HOOKS
from mmengine.runner import Runner

from mmvitaccel.adapters.eventful.apply import EventfulHandle
from mmvitaccel.hooks import BudgetHook
from tests.tiny_detector import on_videos

TOP = dict(type="mmvitaccel.EventfulHook", policy=dict(type="TopK", k=35))


@pytest.fixture
def detector(write_cocovid, tmp_path):
    """A detector of 20 000 parameters over two videos of eight frames, with these hooks."""

    def load(*hooks, **changes):
        ann_file = write_cocovid(lengths=(8, 8), size=(80, 112), train_frames=range(3))
        path = tmp_path / "config.py"
        path.write_text(on_videos(tmp_path, ann_file))
        cfg = Config.fromfile(path)
        cfg.merge_from_dict(dict(custom_hooks=list(hooks), **changes))
        return cfg

    return load


def hook(**arguments):
    return dict(type="mmvitaccel.BudgetHook", **arguments)


def budget_of(runner):
    (found,) = [h for h in runner.hooks if isinstance(h, BudgetHook)]
    return found.budget


def run(cfg, job="test"):
    runner = Runner.from_cfg(cfg)
    getattr(runner, job)()
    return runner


def test_share_of_a_detector_is_held(detector):
    cfg = detector(TOP, hook(share=0.8, k=[1, 35]))
    runner = run(cfg)
    records = list(budget_of(runner).frames)
    assert [record.whole for record in records] == ([True] + 7 * [False]) * 2
    dense = records[0].macs
    assert all(0.7 * dense <= r.macs <= 0.8 * dense for r in records[5:] if not r.whole)
    assert records[8].macs == dense
    logged = runner.message_hub.get_scalar("test/budget_k").data[0]
    assert logged.tolist() == [record.k for record in records]
    assert "test_step" not in runner.model.__dict__


def test_both_loops_and_a_second_run(detector):
    cfg = detector(TOP, hook(milliseconds=10_000, k=[1, 35]))
    runner = Runner.from_cfg(cfg)
    runner.val()
    first = budget_of(runner)
    runner.test()
    second = budget_of(runner)
    assert first is not second
    assert first.report().frames == second.report().frames == 16
    assert second.k == 35 and second.report().median is not None
    assert not {"val_step", "test_step"} & set(runner.model.__dict__)


def test_what_the_cost_hook_counts_is_what_the_budget_says(detector):
    cfg = detector(TOP, hook(macs=1e6, k=[1, 35]), dict(type="mmvitaccel.CostHook", timed=False))
    cfg.test_evaluator = [cfg.test_evaluator, dict(type="mmvitaccel.MacsMetric")]
    runner = Runner.from_cfg(cfg)
    metrics = runner.test()
    assert metrics["cost/gmacs"] > 0
    assert "test_step" not in runner.model.__dict__
    # every frame was counted by the other hook, so that this one neither timed nor counted any
    assert all(record.milliseconds is None for record in budget_of(runner).frames)


def test_a_schedule_beside_it_is_refused(detector):
    schedule = dict(type="mmvitaccel.BudgetScheduleHook", schedule=[6])
    with pytest.raises(
        RuntimeError,
        match="BudgetScheduleHook: a Budget already controls the Eventful of this ViTDet",
    ):
        run(detector(TOP, hook(share=0.8, k=[1, 35]), schedule))


def test_a_recognizer_with_clips(tmp_path):
    """ViViT's clips are streams of their own: the first step whole, k of the others set."""
    pytest.importorskip("mmaction")
    model = dict(
        type="Recognizer3D",
        backbone=dict(
            type="mmvitaccel.ViViT", img_size=32, num_frames=12, tubelet_size=(2, 8, 8),
            embed_dim=24, num_heads=3, spatial_depth=3, temporal_depth=2,
        ),
        cls_head=dict(
            type="TimeSformerHead", num_classes=3, in_channels=24, average_clips="prob"
        ),
        data_preprocessor=dict(
            type="ActionDataPreprocessor", mean=[0.0] * 3, std=[255.0] * 3, format_shape="NCTHW"
        ),
    )  # fmt: skip
    cfg = Config(
        dict(
            default_scope="mmaction",
            model=model,
            work_dir=str(tmp_path),
            test_dataloader=dict(
                batch_size=2,
                num_workers=0,
                dataset=dict(type="NoiseClips"),
                sampler=dict(type="DefaultSampler", shuffle=False),
            ),
            test_evaluator=dict(type="AccMetric"),
            test_cfg=dict(type="TestLoop"),
            custom_hooks=[
                dict(type="mmvitaccel.EventfulHook", policy=dict(type="TopK", k=8), max_streams=8),
                hook(share=0.7, k=[1, 16]),
            ],
        )
    )
    runner = Runner.from_cfg(cfg)
    runner.test()
    budget = budget_of(runner)
    assert budget.report().frames == 8
    assert all(record.images == 2 and not record.whole for record in budget.frames)
    dense = max(record.macs for record in budget.frames)
    assert 0.6 * dense <= budget.frames[-1].macs <= 0.7 * dense


@DATASETS.register_module(name="NoiseClips", force=True)
class Clips(torch.utils.data.Dataset):
    """Noise; 16 clips of 12 frames."""

    metainfo = dict(classes=("a", "b", "c"))

    def __len__(self):
        return 16

    def __getitem__(self, index):
        from mmaction.structures import ActionDataSample

        clip = torch.randint(0, 255, (1, 3, 12, 32, 32), dtype=torch.uint8)
        sample = ActionDataSample()
        sample.set_gt_label(index % 3)
        return dict(inputs=clip, data_samples=sample)


def test_r_of_tome_by_its_hook(detector):
    tome = dict(type="mmvitaccel.ToMeHook", r=0)
    cfg = detector(tome, hook(share=0.95, r=[0, 4]))
    records = list(budget_of(run(cfg)).frames)
    assert records[0].r == 0
    assert records[-1].r > 0 and records[-1].macs <= 0.95 * records[0].macs


def test_arguments_without_a_meaning(detector):
    with pytest.raises(ValueError, match="neither k nor r is given"):
        HOOKS.build(hook(fps=3))
    with pytest.raises(ValueError, match="none given, but exactly one target is needed"):
        HOOKS.build(hook(k=(1, 3)))
    with pytest.raises(TypeError, match="'second' is not a target"):
        HOOKS.build(hook(k=(1, 3), second=1))
    with pytest.raises(ValueError, match="this RetinaNet has no ToMe; add it in the config"):
        run(detector(TOP, hook(fps=3, r=(0, 3))))


def test_a_run_that_broke_off_leaves_room_for_the_next(detector):
    runner = Runner.from_cfg(detector(TOP, hook(share=0.8, k=[1, 35])))
    forward = runner.model.predict
    runner.model.predict = lambda *args, **kwargs: 1 / 0
    with pytest.raises(ZeroDivisionError):
        runner.test()
    runner.model.predict = forward
    runner.test()
    assert budget_of(runner).report().frames == 16
    assert "test_step" not in runner.model.__dict__
    with pytest.raises(ValueError, match="Eventful is not attached to"):
        EventfulHandle(runner.model)
