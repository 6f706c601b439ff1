"""The vision towers of CLIP and SigLIP."""

from __future__ import annotations

from mmvitaccel.adapters.base import ViTAdapter
from mmvitaccel.adapters.hosts.transformers.common import adapter, layer_spec


def _family(name: str, module: str, prefix: tuple[str, ...]) -> ViTAdapter:
    spec = layer_spec(
        [f"{module}EncoderLayer"],
        [f"{module}Attention"],
        attention="self_attn",
        out="out_proj",
        heads="num_heads",
        scale="scale",
        dropout="dropout",
        norms=("layer_norm1", "layer_norm2"),
    )
    return adapter(
        f"{name} vision tower",
        [f"{module}VisionModel"],
        lambda model: list(model.encoder.layers),
        spec,
        lambda model: prefix,
    )


ADAPTERS = (
    _family("CLIP", "clip.modeling_clip.CLIP", ("class",)),
    _family("SigLIP", "siglip.modeling_siglip.Siglip", ()),
)
