"""Settings of CocoMetric that it reads when all pictures are done."""

from __future__ import annotations

import pytest

from mmvitaccel.errors import UserError
from mmvitaccel.fit.settings.metrics import check_coco_metric, check_names, check_packed


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (dict(metric=[]), r"^e\.metric is \[\], so that nothing is measured; give bbox"),
        (dict(iou_thrs="x"), r"^e\.iou_thrs is 'x'; give a number from 0 to 1"),
        (dict(iou_thrs=[0.5, 75]), r"iou_thrs is \[0\.5, 75\]"),
        (dict(metric_items=["mAP_5"]), r"metric_items has 'mAP_5'; give .*did you mean 'mAP_"),
        (dict(proposal_nums=(100,)), r"proposal_nums is \(100,\), but CocoMetric reads 3 numbers"),
    ],
)
def test_settings_without_a_meaning(given, sentence):
    with pytest.raises(UserError, match=sentence):
        check_coco_metric("e", given)


@pytest.mark.parametrize(
    "given",
    [
        {},
        dict(metric=None),
        dict(metric=["bbox", "segm"], iou_thrs=0.5, metric_items=["mAP_50", "AR@1000"]),
        dict(metric="proposal_fast", proposal_nums=(100,), iou_thrs=[0.5, 0.75]),
        dict(metric=[], format_only=True),
        dict(metric="bbox", use_mp_eval=True, proposal_nums=[300]),
        dict(proposal_nums=(1, 10, 100)),
    ],
)
def test_settings_as_they_are(given):
    check_coco_metric("e", given)


def test_a_metric_without_annotations():
    steps = [dict(type="PackDetInputs", meta_keys=("img_id", "ori_shape"))]
    with pytest.raises(UserError, match=r"^e has no ann_file, and .*; set e\.ann_file to the data"):
        check_packed("e", {}, steps)
    check_packed("e", dict(ann_file="a.json"), steps)
    check_packed("e", dict(format_only=True), steps)
    check_packed("e", {}, [dict(type="PackDetInputs", meta_keys=("img_id", "instances"))])
    check_packed("e", {}, [dict(type="Own")])
    check_packed("e", {}, [])


def test_figures_of_one_name():
    one, other = ("e.0", dict(metric=["bbox", "segm"])), ("e.1", dict(metric="bbox"))
    with pytest.raises(
        UserError, match=r"^e\.0 and e\.1 both measure 'bbox' under the prefix 'coco'"
    ):
        check_names([one, other])
    check_names([one, ("e.1", dict(metric="bbox", prefix="other"))])
    check_names([("e.0", {}), ("e.1", dict(metric="proposal"))])
    check_names([one, ("e.1", dict(metric="bbox", format_only=True))])
