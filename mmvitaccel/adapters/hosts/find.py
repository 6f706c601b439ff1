"""Finds the adapter of a model, and the transformer inside a larger model."""

from __future__ import annotations

from torch import nn

from mmvitaccel.adapters.base import ViTAdapter, class_name, host_class, named_base
from mmvitaccel.adapters.hosts.mmaction import vit as mmaction_vit
from mmvitaccel.adapters.hosts.mmcv import layers as mmcv_layers
from mmvitaccel.adapters.hosts.mmdet import vitdet as mmdet_vitdet
from mmvitaccel.adapters.hosts.mmpretrain import beit as mmpretrain_beit
from mmvitaccel.adapters.hosts.mmpretrain import vit as mmpretrain_vit
from mmvitaccel.adapters.hosts.mmpretrain import vit_sam as mmpretrain_vit_sam
from mmvitaccel.adapters.hosts.own import vitdet as own_vit
from mmvitaccel.adapters.hosts.own import vivit as own_vivit
from mmvitaccel.adapters.hosts.rfdetr import dinov2 as rfdetr_dinov2
from mmvitaccel.adapters.hosts.segment_anything import encoder as segment_anything_encoder
from mmvitaccel.adapters.hosts.timm import vit as timm_vit
from mmvitaccel.adapters.hosts.transformers import clip as hf_clip
from mmvitaccel.adapters.hosts.transformers import dinov2 as hf_dinov2
from mmvitaccel.adapters.hosts.transformers import dinov3 as hf_dinov3
from mmvitaccel.adapters.hosts.transformers import maps as hf_maps
from mmvitaccel.adapters.hosts.transformers import videomae as hf_videomae
from mmvitaccel.adapters.hosts.transformers import vit as hf_vit

ADAPTERS: tuple[ViTAdapter, ...] = (
    *own_vit.ADAPTERS,
    *own_vivit.ADAPTERS,
    *timm_vit.ADAPTERS,
    *mmaction_vit.ADAPTERS,
    *mmdet_vitdet.ADAPTERS,
    *mmpretrain_vit.ADAPTERS,
    *mmpretrain_beit.ADAPTERS,
    *mmpretrain_vit_sam.ADAPTERS,
    *segment_anything_encoder.ADAPTERS,
    *rfdetr_dinov2.ADAPTERS,
    *mmcv_layers.ADAPTERS,
    *hf_vit.ADAPTERS,
    *hf_dinov2.ADAPTERS,
    *hf_dinov3.ADAPTERS,
    *hf_clip.ADAPTERS,
    *hf_videomae.ADAPTERS,
    *hf_maps.ADAPTERS,
)


def _match(module: nn.Module) -> ViTAdapter | None:
    return next((a for a in ADAPTERS if named_base(module, a.classes) is not None), None)


def supported() -> str:
    """Return the names of the supported families, for messages."""
    return ", ".join(sorted(adapter.name for adapter in ADAPTERS))


def find_adapter(model: nn.Module) -> ViTAdapter:
    """Return the adapter of a transformer; modules that contain one are not searched.

    Raises:
        ValueError: No family matches the class of the model, or the family refuses the model.
    """
    adapter = _match(model)
    if adapter is None:
        raise ValueError(
            f"{class_name(model)} is not a supported vision transformer; supported are: "
            f"{supported()}."
        )
    reason = adapter.refuse(model)
    if reason is not None:
        raise ValueError(f"{adapter.name} {class_name(model)} is not supported: {reason}.")
    return adapter


def transformers_in(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return paths and modules of the supported transformers in a model, without nested ones."""
    found: list[tuple[str, nn.Module]] = []
    for path, module in model.named_modules():
        inside = any(path.startswith(f"{outer}.") or not outer for outer, _ in found)
        if not inside and _match(module) is not None:
            found.append((path, module))
    return found


def locate(model: nn.Module) -> tuple[str, nn.Module]:
    """Find the supported transformer in a model.

    Returns:
        Its path, which is empty for the model itself, and the transformer.

    Raises:
        ValueError: There is no supported transformer, or there are several.
    """
    found = transformers_in(model)
    if len(found) == 1:
        return found[0]
    name = class_name(model)
    if not found:
        raise ValueError(
            f"{name} holds no supported vision transformer; supported are: {supported()}."
        )
    places = ", ".join(f"{path!r} ({host_class(module).__name__})" for path, module in found)
    raise ValueError(f"{name} holds {len(found)} vision transformers, {places}: select one.")
