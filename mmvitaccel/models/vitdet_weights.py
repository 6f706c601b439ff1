"""Released weights of ViTDet detectors, detectron2's, under the names of mmdet's detectors.

Backbone and pyramid have detectron2's own names below another prefix. The heads' parts are named
one by one: Faster, Mask and Cascade Mask R-CNN with LayerNorm, as in the configs of
``configs/vitdet``. Anchors, box coding, the order of classes and the flattening before the first
linear layer are the same in both, so that values stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

# Patterns of detectron2's names, and mmdet's. Convolutions are numbered from 1 there, from 0 here.
_NAMES: tuple[tuple[str, str], ...] = (
    (r"backbone\.net\.(.+)", r"backbone.\1"),
    (r"backbone\.(simfp_.+)", r"neck.\1"),
    (r"proposal_generator\.rpn_head\.conv\.conv(\d)\.(.+)", r"rpn_head.rpn_conv.\1.conv.\2"),
    (r"proposal_generator\.rpn_head\.objectness_logits\.(.+)", r"rpn_head.rpn_cls.\1"),
    (r"proposal_generator\.rpn_head\.anchor_deltas\.(.+)", r"rpn_head.rpn_reg.\1"),
    (r"roi_heads\.box_head\.(\d\.)?conv(\d)\.norm\.(.+)", r"bbox_head.\1shared_convs.<\2>.ln.\3"),
    (r"roi_heads\.box_head\.(\d\.)?conv(\d)\.(.+)", r"bbox_head.\1shared_convs.<\2>.conv.\3"),
    (r"roi_heads\.box_head\.(\d\.)?fc(\d)\.(.+)", r"bbox_head.\1shared_fcs.<\2>.\3"),
    (r"roi_heads\.box_predictor\.(\d\.)?cls_score\.(.+)", r"bbox_head.\1fc_cls.\2"),
    (r"roi_heads\.box_predictor\.(\d\.)?bbox_pred\.(.+)", r"bbox_head.\1fc_reg.\2"),
    (r"roi_heads\.mask_head\.mask_fcn(\d)\.norm\.(.+)", r"mask_head.convs.<\1>.ln.\2"),
    (r"roi_heads\.mask_head\.mask_fcn(\d)\.(.+)", r"mask_head.convs.<\1>.conv.\2"),
    (r"roi_heads\.mask_head\.deconv\.(.+)", r"mask_head.upsample.\1"),
    (r"roi_heads\.mask_head\.predictor\.(.+)", r"mask_head.conv_logits.\1"),
)
# What the data preprocessor has in mmdet, and anchors, which are computed.
_LEFT_OUT = re.compile(r"pixel_(mean|std)|.*anchor_generator.*")


def convert_vitdet_weights(
    state_dict: Mapping[str, Tensor], num_stages: int = 3
) -> dict[str, Tensor]:
    """Rename the weights of a released ViTDet detector to those of mmdet's detectors.

    Args:
        state_dict: detectron2's names to tensors; also those of the paper's ImageNet VID model.
        num_stages: Stages of a cascade, each of which mmdet gives a mask head of its own where
            detectron2 has one for all.

    Returns:
        New mapping, for ``FasterRCNN``, ``MaskRCNN`` or ``CascadeRCNN`` with ``mmvitaccel.ViTDet``
        and ``mmvitaccel.SimpleFPN``.

    Raises:
        ValueError: The names are not a ViTDet detector's.
    """
    if "backbone.net.patch_embed.proj.weight" not in state_dict:
        raise ValueError(
            "These weights are no ViTDet detector of detectron2's (backbone.net.patch_embed.proj."
            f"weight is not among them); the first names are {', '.join(list(state_dict)[:3])}."
        )
    is_cascade = any(name.startswith("roi_heads.box_head.0.") for name in state_dict)
    converted = {}
    for name, value in state_dict.items():
        if _LEFT_OUT.fullmatch(name):
            continue
        new = _renamed(name)
        if new.startswith("mask_head.") and is_cascade:
            for stage in range(num_stages):
                converted[f"roi_head.mask_head.{stage}.{new[len('mask_head.') :]}"] = value
        elif new.startswith(("bbox_head.", "mask_head.")):
            converted[f"roi_head.{new}"] = value
        else:
            converted[new] = value
    return converted


def _renamed(name: str) -> str:
    for pattern, replacement in _NAMES:
        found = re.fullmatch(pattern, name)
        if found is not None:
            new = found.expand(replacement)
            return re.sub(r"<(\d)>", lambda number: str(int(number[1]) - 1), new)
    raise ValueError(f"'{name}' is not a weight of a ViTDet detector of detectron2's.")
