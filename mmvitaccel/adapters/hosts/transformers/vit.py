"""ViT, DeiT and the encoder of ViTMAE, whose layers are the same."""

from __future__ import annotations

from torch import Tensor, nn

from mmvitaccel.adapters.base import ViTAdapter
from mmvitaccel.adapters.hosts.transformers.common import adapter, layer_spec


def _drop(block: nn.Module, y: Tensor) -> Tensor:
    return block.dropout(y)


def _family(name: str, module: str, prefix: tuple[str, ...]) -> ViTAdapter:
    spec = layer_spec([f"{module}Layer"], [f"{module}Attention"], finishes=(_drop, _drop))
    return adapter(name, [f"{module}Model"], lambda m: list(m.layers), spec, lambda m: prefix)


ADAPTERS = (
    _family("ViT", "vit.modeling_vit.ViT", ("class",)),
    _family("DeiT", "deit.modeling_deit.DeiT", ("class", "distillation")),
    _family("ViTMAE", "vit_mae.modeling_vit_mae.ViTMAE", ("class",)),
)
