"""VitDet and the vision encoders of SAM and SAM-HQ, with attention in windows of a token map."""

from __future__ import annotations

from torch import Tensor, nn

from mmvitaccel.adapters.base import BlockInput, Patches, ViTAdapter, class_name
from mmvitaccel.adapters.hosts.transformers.common import MODELS, adapter
from mmvitaccel.adapters.window_map import enter_map, leave_map, map_patches, map_spec

_VITDET = f"{MODELS}.vitdet.modeling_vitdet.VitDet"


def _enter_channels(
    block: nn.Module, hidden_states: Tensor, output_attentions: bool = False
) -> BlockInput:
    """Read a map (B, C, H, W)."""
    if output_attentions:
        raise ValueError(
            f"{class_name(block)} was called with output_attentions, but attention weights are not "
            "available while a method is attached; call it without, or remove the method."
        )
    return enter_map(block, hidden_states.permute(0, 2, 3, 1))


def _leave_channels(block: nn.Module, x: Tensor, given: BlockInput) -> tuple[Tensor]:
    x = leave_map(block, x, given).permute(0, 3, 1, 2)
    return (block.residual(x) if block.use_residual_block else x,)


def _drop(block: nn.Module, y: Tensor) -> Tensor:
    return block.drop_path(y)


def _sam_enter(block: nn.Module, hidden_states: Tensor) -> BlockInput:
    return enter_map(block, hidden_states)


def _sam_attn_drop(block: nn.Module) -> float:
    # SAM's fused attention ignores the dropout of the config
    fused = any("Sdpa" in cls.__name__ for cls in type(block.attn).__mro__)
    return block.attn.dropout if block.training and not fused else 0.0


def _sam(name: str, module: str, patches: Patches | None = None) -> ViTAdapter:
    spec = map_spec(
        [f"{MODELS}.{module}VisionLayer"],
        [f"{MODELS}.{module}VisionAttention", f"{MODELS}.{module}VisionSdpaAttention"],
        heads="num_attention_heads",
        norms=("layer_norm1", "layer_norm2"),
        attn_drop=_sam_attn_drop,
        enter=_sam_enter,
    )
    return adapter(
        f"{name} vision encoder",
        [f"{module}VisionEncoder"],
        lambda model: list(model.layers),
        spec,
        lambda model: (),
        patches=patches,
    )


ADAPTERS = (
    adapter(
        "VitDet",
        ["vitdet.modeling_vitdet.VitDetEncoder"],
        lambda model: list(model.layer),
        map_spec(
            [f"{_VITDET}Layer"],
            [f"{_VITDET}Attention"],
            attention="attention",
            use_rel_pos="use_relative_position_embeddings",
            enter=_enter_channels,
            leave=_leave_channels,
            finish1=_drop,
            finish2=_drop,
        ),
        lambda model: (),
    ),
    _sam("SAM", "sam.modeling_sam.Sam", map_patches(lambda model: model.patch_embed.projection)),
    # No patches, so no motion: it also returns outputs of inner layers, on the scene
    _sam("SAM-HQ", "sam_hq.modeling_sam_hq.SamHQ"),
)
