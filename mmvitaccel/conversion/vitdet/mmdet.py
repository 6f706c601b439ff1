"""Layout of mmdet's ``projects/ViTDet``: the same transformer, other names in the pyramid."""

from __future__ import annotations

import re

from mmvitaccel.conversion.layout.layout import Adapted, Layout, Target, Weights, has
from mmvitaccel.conversion.vitdet.names import detector_shapes, read_classes

# mmcv derives the name from the norm's class; it calls a class that it does not know norm_layer.
_NORM = r"(?:norm_layer|ln)"
_FIRST = (4, 1, 0, 1)  # index of the lateral convolution in each level of this project's pyramid


def _in_pyramid(match: re.Match, weights: Weights) -> str:
    kind, level, part, tail = match.groups()
    layer = _FIRST[int(level)] + (kind == "fpn")
    part = "" if part == "conv" else "norm."
    return f"neck.simfp_{int(level) + 2}.{layer}.{part}{tail}"


RULES: tuple[tuple[str, Target], ...] = (
    (r"(backbone\.(?:pos_embed|patch_embed\..+|blocks\..+))", r"\1"),
    (r"neck\.fpn1\.(\d\..+)", r"neck.simfp_2.\1"),
    (r"neck\.fpn2\.(\d\..+)", r"neck.simfp_3.\1"),
    (rf"neck\.(lateral|fpn)_convs\.([0-3])\.(conv|{_NORM})\.(.+)", _in_pyramid),
    (rf"(roi_head\..+)\.{_NORM}\.(weight|bias)", r"\1.ln.\2"),
    (r"((?:rpn_head|roi_head)\..+)", r"\1"),
)


def adapt(adapted: Adapted, weights: Weights) -> None:
    """Read the classes and record the epsilon: 1e-5, mmcv's default, which the project keeps."""
    read_classes(adapted)
    adapted.settings["norm_eps"] = 1e-5


MMDET_VITDET = Layout(
    name="mmdet-vitdet",
    title="ViTDet of mmdet's projects",
    recognise=lambda w: has(w, r"backbone\.blocks\.0\.attn\.qkv\.weight", r"neck\.fpn1\..+"),
    rules=RULES,
    needed=detector_shapes,
    adapt=adapt,
)
