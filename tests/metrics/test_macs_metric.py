"""CostHook and MacsMetric together, through mmengine's Runner."""

from __future__ import annotations

import json
import logging

import pytest
import torch
from mmengine.dataset import BaseDataset
from mmengine.logging import MMLogger
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement
from torch import nn

import mmvitaccel  # noqa: F401  (closes the stack's gaps before mmdet loads)
from mmvitaccel.metrics import MacsMetric

SIZE, CHANNELS, STEADY = 8, 4, 2
DENSE = SIZE * SIZE * 3 * CHANNELS  # multiply-adds of a 1 x 1 convolution, 3 -> CHANNELS
LATER = STEADY * SIZE * 3 * CHANNELS
HEAD = CHANNELS * 5


class Rows(nn.Module):
    """A convolution over all rows of a first frame and over two rows of later frames."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, CHANNELS, 1)
        self.last = None

    def forward(self, x, place):
        fresh = self.last is None or place[0] != self.last[0] or place[1] <= self.last[1]
        self.last = place
        return self.conv(x if fresh else x[:, :, :STEADY])


class Model(BaseModel):
    """Runs frame by frame; keeps what it was given, and says what it has run."""

    def __init__(self):
        super().__init__()
        self.backbone = Rows()
        self.head = nn.Linear(CHANNELS, 5)
        self.ran = []

    def forward(self, inputs, data_samples=None, mode="tensor"):
        (sample,) = data_samples
        place = (sample.video_id, sample.frame_id)
        self.ran.append(place)
        self.head(self.backbone(torch.stack(inputs), place).mean((2, 3)))
        return [BaseDataElement(metainfo=dict(zip(("video_id", "frame_id"), place)))]


class Frames(BaseDataset):
    """Frames of videos of the given lengths."""

    def __init__(self, lengths):
        self.pairs = [(v, f) for v, length in enumerate(lengths) for f in range(length)]
        super().__init__(serialize_data=False)

    def load_data_list(self):
        return [{"video_id": v, "frame_id": f} for v, f in self.pairs]

    def prepare_data(self, index):
        sample = BaseDataElement(metainfo=self.get_data_info(index))
        return {"inputs": torch.ones(3, SIZE, SIZE), "data_samples": sample}


@pytest.fixture
def log():
    """Lines that mmengine's current logger got."""
    lines = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    yield lambda: MMLogger.get_current_instance().addHandler(handler) or lines
    MMLogger.get_current_instance().removeHandler(handler)


def runner(tmp_path, lengths, hook=None, **kwargs) -> Runner:
    loader = dict(
        batch_size=1,
        num_workers=0,
        sampler=dict(type="mmvitaccel.VideoSampler"),
        dataset=Frames(lengths),
        collate_fn=dict(type="pseudo_collate"),
    )
    hooks = [dict(type="mmvitaccel.CostHook", **kwargs)] if hook is None else hook
    return Runner(
        model=Model(),
        work_dir=str(tmp_path),
        test_dataloader=loader,
        test_cfg={},
        test_evaluator=dict(type="mmvitaccel.MacsMetric"),
        custom_hooks=hooks,
        default_scope="mmengine",
        experiment_name=tmp_path.name,
    )


def test_means_of_first_and_later_frames(tmp_path):
    figures = runner(tmp_path, (6, 4)).test()
    giga = {name: value * 1e9 for name, value in figures.items() if name.endswith("gmacs")}
    mean = (2 * DENSE + 8 * LATER) / 10
    expected = {
        "cost/backbone_dense_gmacs": DENSE,
        "cost/backbone_first_gmacs": DENSE,
        "cost/backbone_later_gmacs": LATER,
        "cost/backbone_gmacs": mean,
        "cost/dense_gmacs": DENSE + HEAD,
        "cost/first_gmacs": DENSE + HEAD,
        "cost/later_gmacs": LATER + HEAD,
        "cost/gmacs": mean + HEAD,
    }
    assert giga == pytest.approx(expected)
    assert figures["cost/backbone_ratio"] == pytest.approx(DENSE / mean)
    assert figures["cost/ratio"] == pytest.approx((DENSE + HEAD) / (mean + HEAD))
    for kind, macs in (("layers", LATER), ("dense_layers", DENSE)):
        assert figures[f"cost/{kind}"] == {"backbone.conv": pytest.approx(macs / 1e9)}
    for kind in ("first", "later"):
        assert 0 < figures[f"cost/backbone_{kind}_ms"] < figures[f"cost/{kind}_ms"]


def test_time_of_a_frame_is_not_that_of_a_disturbed_one():
    costs = [dict(first=True, dense_macs=9, macs=9, ms=10.0)]
    costs += [dict(first=False, dense_macs=9, ms=ms) for ms in (3.0, 1000.0, 4.0)]
    costs += [dict(first=False, dense_macs=9, macs=3)]
    figures = MacsMetric().compute_metrics(costs)
    assert figures["ms"] == pytest.approx((10 + 4 * 4) / 5)
    assert figures["gmacs"] == pytest.approx((9 + 4 * 3) / 5 / 1e9)
    untimed = MacsMetric().compute_metrics([dict(cost, ms=1.0) for cost in costs[:1]] + costs[-1:])
    assert "ms" not in untimed and untimed["first_ms"] == 1


def test_figures_are_printed_and_in_the_json_log(tmp_path, log):
    testing = runner(tmp_path, (3, 2))
    lines = log()
    figures = testing.test()
    (table,) = [line for line in lines if "cost per frame" in line]
    assert "2 first frames: 2 counted, 2 timed" in table
    assert f"{figures['cost/ratio']:.2f}x" in table
    (path,) = tmp_path.glob("*/*.json")
    logged = json.loads(path.read_text())
    assert logged["cost/backbone_gmacs"] == pytest.approx(figures["cost/backbone_gmacs"])
    assert logged["cost/later_ms"] == pytest.approx(figures["cost/later_ms"])


def test_every_frame_runs_in_order_and_only_first_ones_again(tmp_path):
    testing = runner(tmp_path, (5, 2))
    testing.test()
    # the dense copy is the model itself here, since it has no method on it
    dense, *ran = testing.model.ran
    assert dense == (0, 0)
    assert ran == [(0, 0), *((0, f) for f in range(5)), (1, 0), *((1, f) for f in range(2))]


def test_later_frames_are_counted_or_timed(tmp_path, monkeypatch):
    costs = []
    monkeypatch.setattr(
        MacsMetric, "compute_metrics", lambda self, results: costs.extend(results) or {}
    )
    runner(tmp_path, (9,)).test()
    first, *later = costs
    assert first["first"] and "ms" in first and "macs" in first
    assert all(("macs" in cost) != ("ms" in cost) for cost in later)
    assert sum("macs" in cost for cost in later) == 4
    assert len({"macs" in cost for cost in later[::2]}) == 2, "turns must not alternate strictly"


def test_untimed_every_frame_is_counted(tmp_path, log):
    testing = runner(tmp_path, (6, 3), timed=False)
    lines = log()
    figures = testing.test()
    (table,) = [line for line in lines if "cost per frame" in line]
    assert "7 later frames: 7 counted, 0 timed" in table
    assert not [name for name in figures if name.endswith("ms")]
    assert figures["cost/backbone_gmacs"] * 1e9 == pytest.approx((2 * DENSE + 7 * LATER) / 9)
    assert len(testing.model.ran) == 1 + 9


def test_videos_of_one_frame_have_no_later_figures(tmp_path):
    figures = runner(tmp_path, (1, 1, 1)).test()
    assert not [name for name in figures if "later" in name]
    assert figures["cost/backbone_gmacs"] * 1e9 == pytest.approx(DENSE)
    assert figures["cost/backbone_ratio"] == pytest.approx(1)


def test_a_single_later_frame_is_counted(tmp_path):
    figures = runner(tmp_path, (2,)).test()
    assert figures["cost/backbone_later_gmacs"] * 1e9 == pytest.approx(LATER)
    assert "cost/later_ms" not in figures


def test_the_model_is_left_as_it_was(tmp_path):
    testing = runner(tmp_path, (2,))
    before = set(testing.model.__dict__)
    testing.test()
    assert set(testing.model.__dict__) == before
    assert not testing.model.backbone._forward_hooks
    assert not testing.model.backbone._forward_pre_hooks


def test_without_the_hook_the_metric_says_what_is_missing(tmp_path):
    with pytest.raises(RuntimeError, match=r"results have no cost; add .*mmvitaccel\.CostHook"):
        runner(tmp_path, (2,), hook=[]).test()


def test_unknown_backbone(tmp_path):
    with pytest.raises(ValueError, match=r"Model has no module 'trunk'; .*backbone, head"):
        runner(tmp_path, (2,), backbone="trunk").test()
