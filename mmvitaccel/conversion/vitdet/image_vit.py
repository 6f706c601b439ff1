"""Layouts of pre-trained image transformers with timm's names (MAE's too), for ViTDet and ViViT."""

from __future__ import annotations

import torch

from mmvitaccel.conversion.layout.blocks import (
    PUBLISHED_DEPTHS,
    block_shapes,
    count,
    size,
    with_bias,
)
from mmvitaccel.conversion.layout.layout import Adapted, Layout, Shapes, Weights, has
from mmvitaccel.conversion.vitdet.names import backbone_shapes

TUBELET_FRAMES = 2  # in every ViViT config
TUBELETS = "backbone.patch_embed.weight"
_PART = r"(norm1|attn\.qkv|attn\.proj|norm2|mlp\.fc1|mlp\.fc2)\.(weight|bias)"
_LEAVE = (
    (r"(decoder_.+|mask_token)", "decoder of the pre-training"),
    (r"(head|fc_norm|pre_logits)\..+", "classifier"),
    (r"dist_token", "distillation token"),
)


def _check_blocks(adapted: Adapted, weights: Weights) -> None:
    """Refuse blocks with more parameters than a plain ViT block has.

    Raises:
        ValueError: If there are any; it names the first one.
    """
    for name in weights:
        if name.startswith("blocks.") and not MAE_VIT.targets(name, weights):
            raise ValueError(
                f"its blocks have '{name}', which a plain ViT block does not have; use the weights "
                "of a plain ViT"
            )


def _adapt_to_vivit(adapted: Adapted, weights: Weights) -> None:
    """Use the patch embedding for the middle frame of a tubelet; the other frames start at zero.

    This is "central frame initialisation" of the ViViT paper, section 3.4: at first the model
    sees one frame of each tubelet.
    """
    _check_blocks(adapted, weights)
    if TUBELETS in adapted.weights:
        patch = adapted.weights[TUBELETS]  # (C, 3, h, w)
        tubelet = torch.zeros(*patch.shape[:2], TUBELET_FRAMES, *patch.shape[2:], dtype=patch.dtype)
        tubelet[:, :, TUBELET_FRAMES // 2] = patch
        adapted.weights[TUBELETS] = tubelet
        adapted.changes[TUBELETS] = f"middle one of {TUBELET_FRAMES} frames; the others are zero"


def _spatial_shapes(weights: Weights) -> Shapes:
    dim, kernel = size(weights, TUBELETS), size(weights, TUBELETS, 3)
    hidden = size(weights, "backbone.spatial.blocks.0.mlp.fc1.weight")
    depth = max(count(weights, "backbone.spatial.blocks"), PUBLISHED_DEPTHS.get(dim, 0))
    shapes = with_bias("backbone.patch_embed", dim, 3, TUBELET_FRAMES, kernel, kernel)
    shapes["backbone.spatial.cls_token"] = (1, 1, dim)
    positions = size(weights, "backbone.spatial.pos_embed", 1)
    shapes["backbone.spatial.pos_embed"] = (1, positions, dim)
    shapes |= with_bias("backbone.spatial.norm", dim)
    return shapes | block_shapes("backbone.spatial.blocks", dim, hidden, depth)


MAE_VIT = Layout(
    name="mae-vit",
    title="a pre-trained image transformer (MAE's, or timm's naming) as ViTDet's backbone",
    recognise=lambda w: has(
        w, "cls_token", r"patch_embed\.proj\.weight", r"blocks\.0\.attn\.qkv.+"
    ),
    rules=(
        (r"(pos_embed|patch_embed\.proj\.(?:weight|bias))", r"backbone.\1"),
        (rf"blocks\.(\d+)\.{_PART}", r"backbone.blocks.\1.\2.\3"),
    ),
    leave=(
        (r"cls_token", "detectors have no class token"),
        (r"norm\.(weight|bias)", "detectors do not normalise the last block's output"),
        *_LEAVE,
    ),
    needed=lambda w: backbone_shapes(w, rel_pos=False),
    adapt=_check_blocks,
)
VIT_AS_VIVIT = Layout(
    name="vit-as-vivit",
    title="a pre-trained image transformer as ViViT's spatial encoder",
    # The names are the same as in the layout above; the user chooses with --format.
    recognise=lambda w: False,
    rules=(
        (r"patch_embed\.proj\.(weight|bias)", r"backbone.patch_embed.\1"),
        (r"(cls_token|pos_embed|norm\.(?:weight|bias))", r"backbone.spatial.\1"),
        (rf"blocks\.(\d+)\.{_PART}", r"backbone.spatial.blocks.\1.\2.\3"),
    ),
    leave=_LEAVE,
    needed=_spatial_shapes,
    adapt=_adapt_to_vivit,
)
