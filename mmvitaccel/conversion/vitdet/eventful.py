"""Layout of the Eventful Transformers paper's ImageNet VID detector.

It was trained in detectron2. The paper's code then renames the transformer and the pyramid and
drops the class token's position embedding. Files from before and after that step are recognised.
"""

from __future__ import annotations

import re

import torch

from mmvitaccel.conversion.layout.layout import Adapted, Layout, Target, Weights, has
from mmvitaccel.conversion.vitdet import detectron2 as d2
from mmvitaccel.conversion.vitdet.names import detector_shapes

POSITIONS = "backbone.pos_embed"
_BLOCK_PARTS = {
    "input_layer_norm.": "norm1.",
    "qkv.": "attn.qkv.",
    "projection.": "attn.proj.",
    "relative_position.y_embedding": "attn.rel_pos_h",
    "relative_position.x_embedding": "attn.rel_pos_w",
    "mlp_layer_norm.": "norm2.",
    "mlp_1.": "mlp.fc1.",
    "mlp_2.": "mlp.fc2.",
}
# For each level: in the paper's code, a convolution's norm is the next layer; here it is part of
# the convolution.
_PYRAMID = (
    {0: "0", 1: "1", 3: "3", 4: "4", 5: "4.norm", 6: "5", 7: "5.norm"},
    {0: "0", 1: "1", 2: "1.norm", 3: "2", 4: "2.norm"},
    {0: "0", 1: "0.norm", 2: "1", 3: "1.norm"},
    {1: "1", 2: "1.norm", 3: "2", 4: "2.norm"},
)


def _in_block(match: re.Match, weights: Weights) -> str:
    return f"backbone.blocks.{match[1]}.{_BLOCK_PARTS[match[2]]}{match[3]}"


def _in_pyramid(match: re.Match, weights: Weights) -> tuple[str, ...]:
    level, layer = int(match[1]), int(match[2])
    if level >= len(_PYRAMID) or layer not in _PYRAMID[level]:
        return ()
    return (f"neck.simfp_{level + 2}.{_PYRAMID[level][layer]}.{match[3]}",)


_PARTS = "|".join(re.escape(part) for part in _BLOCK_PARTS)
RULES: tuple[tuple[str, Target], ...] = (
    (r"embedding\.conv\.(.+)", r"backbone.patch_embed.proj.\1"),
    (r"backbone\.position_encoding\.encoding", POSITIONS),
    (rf"backbone\.blocks\.(\d+)\.({_PARTS})(.*)", _in_block),
    (r"pyramid\.stages\.(\d)\.(\d)\.(.+)", _in_pyramid),
    *d2.RULES,
)


def adapt(adapted: Adapted, weights: Weights) -> None:
    """Adapt as for detectron2, and insert a zero position embedding for the class token."""
    d2.adapt(adapted, weights)
    from mmvitaccel.datasets.vid_classes import VID_SYNSETS

    if adapted.settings["num_classes"] == len(VID_SYNSETS):
        adapted.classes = tuple(VID_SYNSETS.values())
    positions = adapted.weights.get(POSITIONS)
    if positions is not None and "backbone.position_encoding.encoding" in weights:
        zero = torch.zeros_like(positions[:, :1])
        adapted.weights[POSITIONS] = torch.cat((zero, positions), 1)
        adapted.changes[POSITIONS] = "a zero position for the class token was prepended"


EVENTFUL_VITDET = Layout(
    name="eventful-vitdet-vid",
    title="the Eventful Transformers paper's ViTDet for ImageNet VID",
    recognise=lambda w: (
        has(w, r"backbone\.blocks\.0\.input_layer_norm\.weight", r"pyramid\.stages\..+")
        or (has(w, r"backbone\.net\.blocks\.0\..+") and d2.is_vid(w))
    ),
    rules=RULES,
    leave=d2.LEAVE,
    needed=detector_shapes,
    adapt=adapt,
)
