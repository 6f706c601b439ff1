"""Names and shapes of this project's ViViT recognisers."""

from __future__ import annotations

from mmvitaccel.conversion.layout.blocks import (
    PUBLISHED_DEPTHS,
    block_shapes,
    count,
    size,
    with_bias,
)
from mmvitaccel.conversion.layout.layout import Adapted, Shapes, Weights, rows

TEMPORAL_DEPTH = 4  # in the published sizes
VERBS = 97  # in EPIC-Kitchens-100


def recognizer_shapes(weights: Weights) -> Shapes:
    """Return the shapes of a factorised encoder with one classifier, or with verbs and nouns."""
    patch = "backbone.patch_embed.weight"
    dim = size(weights, patch)
    kernel = tuple(size(weights, patch, axis) for axis in range(1, 5))
    shapes = with_bias("backbone.patch_embed", dim, *kernel)
    published = dim in PUBLISHED_DEPTHS
    for encoder, least in (
        ("spatial", PUBLISHED_DEPTHS.get(dim, 1)),
        ("temporal", TEMPORAL_DEPTH if published else 1),
    ):
        name = f"backbone.{encoder}"
        hidden = size(weights, f"{name}.blocks.0.mlp.fc1.weight")
        depth = max(count(weights, f"{name}.blocks"), least)
        shapes[f"{name}.cls_token"] = (1, 1, dim)
        shapes[f"{name}.pos_embed"] = (1, size(weights, f"{name}.pos_embed", 1), dim)
        shapes |= block_shapes(f"{name}.blocks", dim, hidden, depth)
        shapes |= with_bias(f"{name}.norm", dim)
    names = [n for n in ("fc_cls", "fc_verb", "fc_noun") if f"cls_head.{n}.weight" in weights]
    for name in names or ["fc_cls"]:
        shapes |= with_bias(f"cls_head.{name}", size(weights, f"cls_head.{name}.weight"), dim)
    return shapes


def read_classifiers(adapted: Adapted, weights: Weights) -> None:
    """Record the numbers of classes for the config; 0 nouns if the file only has verbs."""
    if "cls_head.fc_verb.weight" in adapted.weights:
        for name in ("verb", "noun"):
            adapted.settings[f"num_{name}s"] = rows(adapted.weights, f"cls_head.fc_{name}.weight")
    else:
        adapted.settings["num_classes"] = rows(adapted.weights, "cls_head.fc_cls.weight")
