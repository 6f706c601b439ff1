"""Layout of detectron2's ViTDet detectors: Faster, Mask and Cascade R-CNN; ``.pkl`` or ``.pth``."""

from __future__ import annotations

import re

from mmvitaccel.conversion.layout.layout import Adapted, Layout, Target, Weights, has, rows
from mmvitaccel.conversion.vitdet.detectron2_rules import adapt_pixels, check_anchors
from mmvitaccel.conversion.vitdet.names import BOX, MASK, STAGES, detector_shapes, read_classes

SCORES = "roi_heads.box_predictor.cls_score.weight"
_CONV = {"weight": "conv.weight", "bias": "conv.bias"}
_KINDS = {**_CONV, "norm.weight": "ln.weight", "norm.bias": "ln.bias"}


def _in_box_head(match: re.Match, weights: Weights) -> str:
    """Rename ``roi_heads.box_head.[stage.]conv1.norm.weight``; detectron2 numbers from 1."""
    stage, part, number, kind = match.groups()
    layer = int(number) - 1
    if part == "fc":
        return f"{BOX}.{stage or ''}shared_fcs.{layer}.{kind}"
    return f"{BOX}.{stage or ''}shared_convs.{layer}.{_KINDS[kind]}"


def _in_mask_head(match: re.Match, weights: Weights) -> tuple[str, ...]:
    """Rename a mask head's tensor.

    detectron2's cascade has one mask head. mmdet has one per stage and averages them, so each stage
    gets the tensor.
    """
    part, kind = match.groups()
    if part.startswith("mask_fcn"):
        tail = f"convs.{int(part[len('mask_fcn') :]) - 1}.{_KINDS[kind]}"
    else:
        tail = f"{dict(deconv='upsample', predictor='conv_logits')[part]}.{kind}"
    if has(weights, r"roi_heads\.box_head\.0\..+"):
        return tuple(f"{MASK}.{stage}.{tail}" for stage in range(STAGES))
    return (f"{MASK}.{tail}",)


KIND = r"(weight|bias|norm\.weight|norm\.bias)"
HEAD_RULES: tuple[tuple[str, Target], ...] = (
    (
        r"proposal_generator\.rpn_head\.conv\.conv(\d)\.(weight|bias)",
        r"rpn_head.rpn_conv.\1.conv.\2",
    ),
    (r"proposal_generator\.rpn_head\.conv\.(weight|bias)", r"rpn_head.rpn_conv.\1"),
    (r"proposal_generator\.rpn_head\.objectness_logits\.(.+)", r"rpn_head.rpn_cls.\1"),
    (r"proposal_generator\.rpn_head\.anchor_deltas\.(.+)", r"rpn_head.rpn_reg.\1"),
    (rf"roi_heads\.box_head\.(\d\.)?(conv|fc)(\d)\.{KIND}", _in_box_head),
    (
        r"roi_heads\.box_predictor\.(\d\.)?cls_score\.(.+)",
        lambda m, w: f"{BOX}.{m[1] or ''}fc_cls.{m[2]}",
    ),
    (
        r"roi_heads\.box_predictor\.(\d\.)?bbox_pred\.(.+)",
        lambda m, w: f"{BOX}.{m[1] or ''}fc_reg.{m[2]}",
    ),
    (rf"roi_heads\.mask_head\.(mask_fcn\d|deconv|predictor)\.{KIND}", _in_mask_head),
)
LEAVE = (
    (r"pixel_(mean|std)", "set by the config's data_preprocessor"),
    (r"proposal_generator\.anchor_generator\..+", "set by the config's anchor_generator"),
)


def adapt(adapted: Adapted, weights: Weights) -> None:
    """Adapt the pixel normalisation, check the anchors and read the classes."""
    adapt_pixels(adapted, weights)
    check_anchors(weights)
    read_classes(adapted)


def is_vid(weights: Weights) -> bool:
    """Check whether the weights are a Faster R-CNN with the 30 classes of ImageNet VID."""
    return rows(weights, SCORES) == 31 and not has(weights, r"roi_heads\.mask_head\..+")


RULES: tuple[tuple[str, Target], ...] = (
    (r"backbone\.net\.(.+)", r"backbone.\1"),
    (r"backbone\.(simfp_\d\..+)", r"neck.\1"),
    *HEAD_RULES,
)
DETECTRON2_VITDET = Layout(
    name="detectron2-vitdet",
    title="detectron2's ViTDet",
    recognise=lambda w: has(w, r"backbone\.net\.blocks\.0\..+") and not is_vid(w),
    rules=RULES,
    leave=LEAVE,
    needed=detector_shapes,
    adapt=adapt,
)
