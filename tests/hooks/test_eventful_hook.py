"""EventfulHook and BudgetScheduleHook in mmengine's Runner, over two videos."""

from __future__ import annotations

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmvitaccel import Budget
from mmvitaccel.adapters.attach import is_attached
from mmvitaccel.adapters.eventful.apply import EventfulHandle
from mmvitaccel.adapters.eventful.detector import EventfulDetectorHandle
from mmvitaccel.compat.checkpoint import safe_load
from mmvitaccel.core.eventful.maps.top_up import TIMES
from mmvitaccel.hooks import BudgetScheduleHook, EventfulHook
from mmvitaccel.models.vitdet.backbone import ViTDet
from mmvitaccel.runner.evaluation import augment_test
from tests.tiny_detector import EVENTFUL, on_videos

COMMAND_LINE = {
    "default_hooks.eventful.type": "mmvitaccel.EventfulHook",
    "default_hooks.eventful.policy.type": "TopK",
    "default_hooks.eventful.policy.k": 6,
}


@pytest.fixture
def config(write_cocovid, tmp_path):
    """Two videos of three frames and a detector of 20 000 parameters."""

    def load(**changes):
        ann_file = write_cocovid(lengths=(3, 3), size=(80, 112), train_frames=range(3))
        path = tmp_path / "config.py"
        path.write_text(on_videos(tmp_path, ann_file))
        cfg = Config.fromfile(path)
        cfg.merge_from_dict(changes)
        return cfg

    return load


class Watch(Hook):
    """What the gates did in each batch, and what came out."""

    priority = "LOWEST"

    def __init__(self):
        self.frames, self.streams, self.trained, self.scores = [], [], [], []

    def _note(self, runner, outputs):
        handle = EventfulHandle(runner.model)
        (frame,) = handle.frames
        self.streams.append(handle.streams)
        self.frames.append((frame.stream[0], frame.frame_id, frame.first, frame.passed[0][0]))
        self.scores.append(outputs[0].pred_instances.scores)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.trained.append(is_attached(runner.model.backbone, "Eventful"))

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self._note(runner, outputs)

    def after_test_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self._note(runner, outputs)


def run(cfg, job="test"):
    runner = Runner.from_cfg(cfg)
    watch = Watch()
    runner.register_hook(watch)
    getattr(runner, job)()
    return runner, watch


EXPECTED = [(v, i, i == 0, 35 if i == 0 else 6) for v in (1, 2) for i in range(3)]


def test_from_the_command_line_in_training_and_validation(config, tmp_path):
    runner, watch = run(config(**COMMAND_LINE), "train")
    assert watch.trained == [True] * 3
    assert watch.frames == EXPECTED
    assert [len(streams) for streams in watch.streams] == [1, 1, 0] * 2
    assert type(runner.model.backbone) is ViTDet
    assert not runner.model._forward_pre_hooks and not runner.model._forward_hooks
    saved = safe_load(str(tmp_path / "work" / "epoch_1.pth"))["state_dict"]
    assert set(saved) == set(runner.model.state_dict())


def test_the_hook_and_the_registered_function_do_the_same(config):
    scores = []
    for cfg in (
        config(**COMMAND_LINE),
        config(custom_hooks=[dict(type="mmvitaccel.EventfulHook", policy=dict(type="TopK", k=6))]),
        config(),
    ):
        if "eventful" not in cfg.default_hooks and not cfg.get("custom_hooks"):
            cfg.model.backbone = EVENTFUL
        _, watch = run(cfg)
        assert watch.frames == EXPECTED
        scores.append(torch.cat(watch.scores))
    assert torch.equal(scores[0], scores[1]) and torch.equal(scores[0], scores[2])


def test_averaged_weights_are_eventful_and_start_clean(config):
    cfg = config(**COMMAND_LINE, custom_hooks=[dict(type="EMAHook", momentum=0.5)])
    _, watch = run(cfg, "train")
    assert watch.frames == EXPECTED


def test_views_of_augmented_testing_are_streams_of_their_own(config):
    scores = []
    for cfg in (config(**COMMAND_LINE), config()):
        if "eventful" not in cfg.default_hooks:
            cfg.model.backbone = EVENTFUL
        augment_test(cfg)
        cfg.custom_hooks = [dict(type="mmvitaccel.BudgetScheduleHook", schedule=[6, 5, 4])]
        _, watch = run(cfg)
        budgets = [35, 5, 4]
        assert watch.frames == [(v, i, i == 0, budgets[i]) for v in (1, 2) for i in range(3)]
        flips = [{(video, flip) for video, flip, *_ in streams} for streams in watch.streams]
        assert flips[0] == {(1, True), (1, False)}
        assert flips[2] == set(), "a video that has ended is not kept"
        assert flips[3] == {(2, True), (2, False)} and flips[-1] == set()
        scores.append(torch.cat(watch.scores))
    assert torch.equal(*scores)


def test_attaching_by_hand(config):
    model = Runner.from_cfg(config()).model
    hook = EventfulHook(policy=dict(type="TopK", k=6), attention="tokenwise")
    handle = hook.attach(model)
    assert hook.path == "backbone" and handle.attached and handle.policy.k == 6
    handle.remove()
    assert type(model.backbone) is ViTDet and not model._forward_pre_hooks
    with pytest.raises(ValueError, match="target='trunk'"):
        EventfulHook(policy=dict(type="TopK", k=6), target="trunk").attach(model)


PARTS = {"default_hooks.eventful.parts": "all"}


@pytest.mark.parametrize("job", ["test", "train"])
def test_all_parts_from_the_command_line(config, job, tmp_path):
    seen = []

    class Shares(Hook):
        def after_test_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            handle = EventfulDetectorHandle(runner.model)
            first = {part.frames[0].first for part in handle.parts.values()}
            seen.append((first, handle.computed()))

        after_val_iter = after_test_iter

    runner = Runner.from_cfg(config(**COMMAND_LINE, **PARTS))
    runner.register_hook(Shares())
    getattr(runner, job)()
    assert [first for first, _ in seen] == [{i == 0} for _ in "12" for i in range(3)]
    assert list(seen[0][1]) == ["backbone", "neck", "bbox_head"]
    assert seen[0][1]["neck"] == 1 and 0 < seen[1][1]["neck"] < 1
    assert type(runner.model.backbone) is ViTDet and not runner.model._forward_pre_hooks
    log = next(tmp_path.glob("work/*/*.log")).read_text()
    assert "parts of RetinaNet are backbone with TopK(k=6); neck with TopK(k=6); bbox_head" in log
    assert "Dense in every frame: none." in log


def test_views_of_augmented_testing_are_streams_of_every_part(config):
    seen = []

    class Streams(Hook):
        def after_test_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            parts = EventfulDetectorHandle(runner.model).parts.values()
            seen.append([{name[:2] for name in part.streams} for part in parts])

    cfg = config(**COMMAND_LINE, **PARTS)
    augment_test(cfg)
    runner = Runner.from_cfg(cfg)
    runner.register_hook(Streams())
    runner.test()
    assert seen[1] == [{(1, False), (1, True)}] * 3
    assert seen[3] == [{(2, False), (2, True)}] * 3


def test_the_budget_is_that_of_backbone_and_neck(config):
    cells = []

    class Cells(Hook):
        def after_test_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            parts = EventfulDetectorHandle(runner.model).parts
            cells.append([parts[name].frames[0].passed[0][0] for name in ("backbone", "neck")])

    for policy in (
        dict(type="TopK", k=6),
        {n: dict(type="TopK", k=6) for n in ("backbone", "neck")},
    ):
        hook = dict(type="mmvitaccel.EventfulHook", policy=policy, parts="all")
        schedule = dict(type="mmvitaccel.BudgetScheduleHook", schedule=[6, 5, 4])
        runner = Runner.from_cfg(config(custom_hooks=[hook, schedule]))
        runner.register_hook(Cells())
        runner.test()
    assert [backbone for backbone, _ in cells] == [35, 5, 4] * 4
    common, own = cells[:6], cells[6:]
    assert all(k <= neck <= TIMES * k for k, neck in common), "what clearly changed passes too"
    assert own == [[35, 35], [5, 5], [4, 4]] * 2


def test_the_cost_of_all_parts(config):
    cfg = config(**COMMAND_LINE, **PARTS)
    each = dict(type="TopK", k=6)
    cfg.default_hooks.eventful.policy = dict(backbone=each, neck=each)
    cfg.custom_hooks = [dict(type="mmvitaccel.CostHook", timed=False)]
    cfg.test_evaluator = [cfg.test_evaluator, dict(type="mmvitaccel.MacsMetric")]
    figures = Runner.from_cfg(cfg).test()
    for part in ("backbone", "neck", "bbox_head"):
        dense, first = (figures[f"cost/{part}_{kind}_gmacs"] for kind in ("dense", "first"))
        assert 0 < figures[f"cost/{part}_later_gmacs"] <= dense
        assert first == pytest.approx(dense, rel=0.02)
    assert figures["cost/neck_later_gmacs"] < figures["cost/neck_dense_gmacs"]
    assert figures["cost/tokens"]["neck.cells"] == figures["cost/tokens"]["blocks.0.qkv"] == 6
    shares = figures["cost/computed"]
    assert list(shares) == ["neck", "bbox_head"] and all(0 < s < 1 for s in shares.values())
    assert "cost/roi_head_dense_gmacs" not in figures


def test_parts_and_a_target_are_refused_together():
    with pytest.raises(ValueError, match=r"target='neck' and parts='all' are both given, but"):
        EventfulHook(policy=dict(type="TopK", k=6), target="neck", parts="all")


def twice_the_frame(frame):
    return 2 * frame + 1


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ([30, 9], [35, 9, 9]),
        (twice_the_frame, [35, 3, 5]),
        (f"{__name__}.twice_the_frame", [35, 3, 5]),
    ],
    ids=["list", "function", "path"],
)
def test_the_budget_follows_the_frame_of_each_video(config, schedule, expected):
    cfg = config(**COMMAND_LINE)
    runner = Runner.from_cfg(cfg)
    watch = Watch()
    runner.register_hook(watch)
    runner.register_hook(BudgetScheduleHook(schedule))
    runner.test()
    assert [passed for *_, passed in watch.frames] == expected * 2
    logged = runner.message_hub.get_scalar("test/eventful_k").data[0]
    budgets = [schedule[min(i, 1)] if isinstance(schedule, list) else 2 * i + 1 for i in range(3)]
    assert logged.tolist() == budgets * 2


def test_a_schedule_in_a_config_and_of_another_attribute(config):
    cfg = config(**COMMAND_LINE)
    cfg.default_hooks.eventful.policy = dict(type="TopFraction", fraction=0.5)
    cfg.custom_hooks = [
        dict(type="mmvitaccel.BudgetScheduleHook", schedule=[0.5, 0.1], attribute="fraction")
    ]
    _, watch = run(cfg)
    assert [passed for *_, passed in watch.frames] == [35, 4, 4] * 2


def test_a_schedule_beside_a_budget_is_refused(config):
    cfg = config(**COMMAND_LINE)
    runner = Runner.from_cfg(cfg)
    runner.register_hook(BudgetScheduleHook([6, 5]))
    hook = EventfulHook(dict(type="TopK", k=6))
    handle = hook.attach(runner.model)
    budget = Budget(handle, milliseconds=5, k=(1, 6))
    runner._hooks = [h for h in runner.hooks if not isinstance(h, EventfulHook)]
    with pytest.raises(
        RuntimeError,
        match="BudgetScheduleHook: a Budget already controls the Eventful of this ViTDet",
    ):
        runner.test()
    budget.remove()
    runner.test()
    Budget(handle, milliseconds=5, k=(1, 6))


def test_wrong_schedules_are_named(config):
    with pytest.raises(ValueError, match=r"schedule=\[\] is empty"):
        BudgetScheduleHook([])
    with pytest.raises(TypeError, match="schedule=7 is neither a list nor a function"):
        BudgetScheduleHook(7)
    with pytest.raises(ValueError, match=r"schedule='math\.nothing' does not exist"):
        BudgetScheduleHook("math.nothing")
    cfg = config(**COMMAND_LINE)
    cfg.custom_hooks = [
        dict(type="mmvitaccel.BudgetScheduleHook", schedule=[1], attribute="threshold")
    ]
    with pytest.raises(ValueError, match=r"TopK\(k=6\) has no 'threshold' to set"):
        run(cfg)
    cfg.custom_hooks = [dict(type="mmvitaccel.BudgetScheduleHook", schedule=[6, 0])]
    with pytest.raises(ValueError, match="k=0 must be a whole number"):
        run(cfg)
