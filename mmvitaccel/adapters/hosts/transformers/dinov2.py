"""DINOv2 with and without registers: the encoder that its models and backbones share."""

from __future__ import annotations

from mmvitaccel.adapters.base import ViTAdapter
from mmvitaccel.adapters.hosts.transformers.common import adapter, layer_spec


def _family(name: str, module: str) -> ViTAdapter:
    spec = layer_spec(
        [f"{module}Layer"],
        [f"{module}Attention"],
        norms=("norm1", "norm2"),
        finishes=(
            lambda block, y: block.drop_path(block.layer_scale1(y)),
            lambda block, y: block.drop_path(block.layer_scale2(y)),
        ),
    )
    return adapter(
        name,
        [f"{module}Encoder"],
        lambda model: list(model.layer),
        spec,
        lambda m: ("class", *["register"] * getattr(m.config, "num_register_tokens", 0)),
    )


ADAPTERS = (
    _family("DINOv2", "dinov2.modeling_dinov2.Dinov2"),
    _family(
        "DINOv2 with registers",
        "dinov2_with_registers.modeling_dinov2_with_registers.Dinov2WithRegisters",
    ),
)
