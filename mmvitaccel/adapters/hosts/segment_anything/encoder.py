"""SAM's image encoder in the authors' package."""

from __future__ import annotations

from mmvitaccel.adapters.base import ViTAdapter
from mmvitaccel.adapters.window_map import map_patches, map_spec

_MODULE = "segment_anything.modeling.image_encoder"

ADAPTERS = (
    ViTAdapter(
        name="segment_anything ImageEncoderViT",
        classes=(f"{_MODULE}.ImageEncoderViT",),
        blocks=lambda model: list(model.blocks),
        specs=(map_spec([f"{_MODULE}.Block"], [f"{_MODULE}.Attention"]),),
        prefix=lambda model: (),
        entries={"forward": lambda model: [len(model.blocks) - 1]},
        patches=map_patches(lambda model: model.patch_embed.proj),
        also=("SAM",),
    ),
)
