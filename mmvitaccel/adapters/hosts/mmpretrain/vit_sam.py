"""SAM's image encoder in mmpretrain."""

from __future__ import annotations

from mmvitaccel.adapters.base import ViTAdapter
from mmvitaccel.adapters.window_map import map_patches, map_spec

_MODULE = "mmpretrain.models.backbones.vit_sam"

ADAPTERS = (
    ViTAdapter(
        name="mmpretrain ViTSAM",
        classes=(f"{_MODULE}.ViTSAM",),
        blocks=lambda model: list(model.layers),
        specs=(
            map_spec(
                [f"{_MODULE}.TransformerEncoderLayer"],
                [f"{_MODULE}.Attention"],
                norms=("ln1", "ln2"),
                # The FFN adds the identity itself; with identity=0 it returns the branch
                mlp=lambda layer, h: layer.ffn(h, identity=0),
                bypassed=("attn", "ffn"),
            ),
        ),
        prefix=lambda model: (),
        entries={"forward": lambda model: model.out_indices},
        patches=map_patches(lambda model: model.patch_embed.projection),
    ),
)
