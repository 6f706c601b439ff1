"""Weights that were trained elsewhere, under the names of :class:`~mmvitaccel.models.ViViT`.

Two layouts are known: the released "ViViT Fact. Enc." of TAdaConv, a whole recogniser, and image
transformers in timm's naming, from which training on video starts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

_BLOCK_PARTS = {
    "norm": "norm1",
    "attn.to_qkv": "attn.qkv",
    "attn.proj": "attn.proj",
    "norm_ffn": "norm2",
    "ffn.net.0": "mlp.fc1",
    "ffn.net.3": "mlp.fc2",
}
_RELEASED = {
    "backbone.stem.conv1": "backbone.patch_embed",
    "backbone.cls_token": "backbone.spatial.cls_token",
    "backbone.pos_embd": "backbone.spatial.pos_embed",
    "backbone.norm": "backbone.spatial.norm",
    "backbone.cls_token_out": "backbone.temporal.cls_token",
    "backbone.temp_embd": "backbone.temporal.pos_embed",
    "backbone.norm_out": "backbone.temporal.norm",
    "head.linear": "cls_head.fc_cls",
    "head.linear1": "cls_head.fc_verb",
    "head.linear2": "cls_head.fc_noun",
}
_RELEASED_BLOCK = re.compile(r"backbone\.(layers|layers_temporal)\.(\d+)\.(.+)")
_IMAGE_KEY = re.compile(r"(cls_token|pos_embed|norm|blocks\.\d+)(\..+)?")


def convert_vivit_weights(
    state_dict: Mapping[str, Tensor], tubelet_frames: int = 2
) -> dict[str, Tensor]:
    """Rename weights of either layout to those of a ``Recognizer3D`` with a ViViT in it.

    Args:
        state_dict: Released weights of TAdaConv's factorised ViViT, or those of an image
            transformer with a class token in timm's naming.
        tubelet_frames: Frames of a tubelet, for the patch embedding of an image transformer.

    Returns:
        New mapping. That of an image transformer has the tubelet embedding and the spatial encoder
        only; its classifier and a distillation token are left out.

    Raises:
        ValueError: The names are of neither layout.
    """
    if "backbone.stem.conv1.weight" in state_dict:
        return {_from_released(name): value for name, value in state_dict.items()}
    if "patch_embed.proj.weight" in state_dict and "cls_token" in state_dict:
        return _from_image_model(state_dict, tubelet_frames)
    raise ValueError(
        "These weights are neither TAdaConv's factorised ViViT (backbone.stem.conv1.weight) nor an "
        "image transformer in timm's naming (patch_embed.proj.weight and cls_token); the first "
        f"names are {', '.join(list(state_dict)[:3])}."
    )


def _from_released(name: str) -> str:
    block = _RELEASED_BLOCK.fullmatch(name)
    if block is not None:
        encoder = "spatial" if block[1] == "layers" else "temporal"
        part, _, kind = block[3].rpartition(".")
        if part in _BLOCK_PARTS:
            return f"backbone.{encoder}.blocks.{block[2]}.{_BLOCK_PARTS[part]}.{kind}"
    if name in _RELEASED:
        return _RELEASED[name]
    part, _, kind = name.rpartition(".")
    if part in _RELEASED:
        return f"{_RELEASED[part]}.{kind}"
    raise ValueError(f"'{name}' is not a weight of TAdaConv's factorised ViViT.")


def _from_image_model(state_dict: Mapping[str, Tensor], tubelet_frames: int) -> dict[str, Tensor]:
    """Put the patch embedding at the middle frame of a tubelet, the rest into the spatial encoder.

    The other frames of the tubelet start at zero ("central frame initialisation" of the ViViT
    paper, section 3.4), so that at first the model sees one frame of each tubelet.
    """
    patch = state_dict["patch_embed.proj.weight"]  # (C, 3, h, w)
    tubelet = torch.zeros(*patch.shape[:2], tubelet_frames, *patch.shape[2:], dtype=patch.dtype)
    tubelet[:, :, tubelet_frames // 2] = patch
    weights = {
        "backbone.patch_embed.weight": tubelet,
        "backbone.patch_embed.bias": state_dict["patch_embed.proj.bias"],
    }
    for name, value in state_dict.items():
        if _IMAGE_KEY.fullmatch(name):
            weights[f"backbone.spatial.{name}"] = value
    return weights
