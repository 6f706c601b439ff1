"""CostHook, MacsMetric and BudgetScheduleHook on a tracker's clips, in mmengine's Runner."""

from __future__ import annotations

import json

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmvitaccel.adapters.eventful.apply import EventfulHandle
from tests.tiny_detector import RETINANET

CONFIG = """
default_scope = 'mmdet'
work_dir = '{root}/work'
detector = {detector}
model = dict(
    type='ByteTrack', detector=detector,
    data_preprocessor=dict(type='TrackDataPreprocessor', mean=[120.0] * 3, std=[60.0] * 3,
                           pad_size_divisor=8),
    tracker=dict(type='ByteTracker', motion=dict(type='KalmanFilter'), num_frames_retain=5,
                 obj_score_thrs=dict(high=0.01, low=0.001), init_track_thr=0.01))
test_dataloader = dict(
    batch_size=1, num_workers=0, sampler=dict(type='TrackImgSampler'),
    dataset=dict(
        type='BaseVideoDataset', ann_file='{ann_file}', data_prefix=dict(img_path='{root}'),
        metainfo=dict(classes=('cat', 'dog')), test_mode=True,
        pipeline=[
            dict(type='TransformBroadcaster', transforms=[
                dict(type='LoadImageFromFile'),
                dict(type='Resize', scale=(56, 40), keep_ratio=True),
                dict(type='LoadTrackAnnotations')]),
            dict(type='PackTrackInputs')]))
test_cfg = dict(type='TestLoop')
test_evaluator = dict(type='mmvitaccel.MacsMetric')
default_hooks = dict(logger=dict(type='LoggerHook', interval=1))
custom_hooks = [
    dict(type='mmvitaccel.EventfulHook', policy=dict(type='TopK', k=6)),
    dict(type='mmvitaccel.CostHook'),
    dict(type='mmvitaccel.BudgetScheduleHook', schedule=[6, 5, 4])]
randomness = dict(seed=0)
env_cfg = dict(mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0))
"""


class Watch(Hook):
    """What every frame cost, and the tracks that were found."""

    priority = "LOWEST"

    def __init__(self):
        self.frames, self.tracks = [], []

    def after_test_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        for image in outputs[0].video_data_samples:
            cost = image.get("cost") or {}
            tokens = cost.get("tokens", {}).get("blocks.0.qkv")
            self.frames.append((image.video_id, image.frame_id, cost.get("first"), tokens))
            self.tracks.append(image.pred_track_instances.instances_id.tolist())


@pytest.fixture
def config(write_cocovid, tmp_path):
    pytest.importorskip("lap", reason="ByteTracker needs the package lap")
    ann_file = write_cocovid(lengths=(4, 4), size=(80, 112))
    content = json.loads(ann_file.read_text())
    for image in content["images"]:
        image.setdefault("height", 80)
        image.setdefault("width", 112)
    for annotation in content["annotations"]:
        annotation.setdefault("iscrowd", 0)
        annotation.setdefault("area", 1.0)
    ann_file.write_text(json.dumps(content))
    path = tmp_path / "config.py"
    text = CONFIG.replace("{root}", str(tmp_path)).replace("{ann_file}", str(ann_file))
    path.write_text(text.replace("{detector}", str(RETINANET)))
    return Config.fromfile(path)


def run(cfg):
    runner = Runner.from_cfg(cfg)
    watch = Watch()
    runner.register_hook(watch)
    torch.manual_seed(0)
    return runner.test(), watch


def test_each_frame_of_a_tracker_is_counted_and_tracks_stay(config):
    figures, watch = run(config)
    budgets = [35, 5, 4, 4]
    assert watch.frames == [(v, n, n == 0, budgets[n]) for v in (1, 2) for n in range(4)]
    assert figures["cost/tokens"]["blocks.0.qkv"] == pytest.approx(13 / 3)
    assert 0 < figures["cost/left_out"] < 1
    assert figures["cost/backbone_later_gmacs"] < 0.6 * figures["cost/backbone_dense_gmacs"]
    assert 0 < figures["cost/backbone_dense_gmacs"] < figures["cost/dense_gmacs"]
    config.custom_hooks = [hook for hook in config.custom_hooks if "Cost" not in hook.type]
    config.test_evaluator = []
    _, plain = run(config)
    assert plain.tracks == watch.tracks and any(watch.tracks)


def test_a_clip_is_shared_among_its_frames(config):
    config.test_dataloader.sampler = dict(type="DefaultSampler", shuffle=False)
    figures, watch = run(config)
    assert watch.frames == [(v, n, n == 0, 35 if n == 0 else 6) for v in (1, 2) for n in range(4)]
    assert figures["cost/tokens"]["blocks.0.qkv"] == 6


def test_the_handle_is_found_in_the_detector(config):
    runner = Runner.from_cfg(config)
    runner.call_hook("before_run")
    assert EventfulHandle(runner.model).model is runner.model.detector.backbone
