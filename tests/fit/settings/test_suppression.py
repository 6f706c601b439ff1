"""Suppressions and thresholds that the first prediction ends at, or that find nothing."""

from __future__ import annotations

import warnings

import pytest

from mmvitaccel.errors import UserError
from mmvitaccel.fit.settings.suppression import check_suppression


@pytest.mark.parametrize(
    ("nms", "sentence"),
    [
        (dict(type="nmss"), r"^model\.test_cfg\.rcnn\.nms\.type is 'nmss'; .*did you mean 'nms'"),
        (dict(type="nms", iou_threshold=50), r"rcnn\.nms\.iou_threshold is 50; give a number from"),
    ],
)
def test_suppressions_that_mmcv_does_not_have(nms, sentence):
    with pytest.raises(UserError, match=sentence):
        check_suppression(dict(test_cfg=dict(rcnn=dict(nms=nms))), False)


def test_thresholds_that_no_score_reaches():
    with pytest.warns(UserWarning, match=r"^model\.test_cfg\.score_thr is 50, and scores end at 1"):
        check_suppression(dict(test_cfg=dict(score_thr=50)), False)


def test_predictions_as_they_are():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for nms in (dict(type="soft_nms", iou_threshold=0.5), dict(type=min), dict(iou_thr=0.6)):
            check_suppression(dict(test_cfg=[dict(nms=nms, score_thr=0.0)], nms=None), True)


def test_what_only_training_reads():
    model = dict(train_cfg=dict(rpn_proposal=dict(nms=dict(type="nms", iou_threshold=50))))
    check_suppression(model, training=False)
    with pytest.raises(
        UserError, match=r"^model\.train_cfg\.rpn_proposal\.nms\.iou_threshold is 50"
    ):
        check_suppression(model, training=True)
