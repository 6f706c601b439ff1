"""A metric that every output moves, and detectors that are measured by it."""

from __future__ import annotations

import pytest
from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS


@METRICS.register_module(force=True)
class ScoreSum(BaseMetric):
    """The mean of the sums of an image's scores: of random weights, boxes are never right."""

    default_prefix = "score"

    def process(self, data_batch, data_samples):
        self.results += [float(s["pred_instances"]["scores"].sum()) for s in data_samples]

    def compute_metrics(self, results):
        return {"sum": sum(results) / len(results), "images": len(results)}


M0 = """
_base_ = ['{base}']
model = dict(
    backbone=dict(arch='m0'), neck=dict(in_channels=[64, 128, 192]),
    test_cfg=dict(score_thr=0.0, max_per_img=20))
test_evaluator = [dict(type='ScoreSum'), dict(type='CocoMetric', ann_file='{root}/boxes.json')]
"""


@pytest.fixture
def m0_config(efficientvit_config, boxes):
    """RetinaNet with EfficientViT-M0 on five pictures of one size."""
    path = efficientvit_config.with_name("m0.py")
    path.write_text(M0.replace("{base}", str(efficientvit_config)).replace("{root}", str(boxes)))
    return path


@pytest.fixture
def scored(vitdet_config, video_config):
    """The ViTDet RetinaNet on pictures and on videos, by the metric above."""
    for path in (vitdet_config, video_config):
        path.write_text(
            path.read_text() + "\ntest_evaluator = dict(_delete_=True, type='ScoreSum')\n"
        )
    return vitdet_config, video_config
