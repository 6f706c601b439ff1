"""Layouts of Microsoft's EfficientViT weights, and explanations of weights that do not match."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from torch import Tensor

from mmvitaccel.models.efficientvit.arch import name_arch

SUBSAMPLING = 3
"""Number of modules between two stages, which come first in the later stage's ``blocksN``."""

TIMM_RULES = (
    (r"^patch_embed\.conv(\d)\.", lambda m: f"patch_embed.{2 * int(m[1]) - 2}."),
    (r"^stages\.0\.blocks\.", lambda m: "blocks1."),
    (
        r"^stages\.(\d)\.blocks\.(\d+)\.",
        lambda m: f"blocks{int(m[1]) + 1}.{int(m[2]) + SUBSAMPLING}.",
    ),
    (r"^stages\.(\d)\.downsample\.res1\.", lambda m: f"blocks{int(m[1]) + 1}.0."),
    (r"^stages\.(\d)\.downsample\.patchmerge\.", lambda m: f"blocks{int(m[1]) + 1}.1."),
    (r"^stages\.(\d)\.downsample\.res2\.", lambda m: f"blocks{int(m[1]) + 1}.2."),
    (r"\.conv\.(weight|bias)$", lambda m: f".c.{m[1]}"),
    (r"^head\.linear\.", lambda m: "head.l."),
)


def from_timm_key(key: str) -> str:
    """Convert a parameter name of timm's ``efficientvit_m*`` to the released one."""
    for pattern, replacement in TIMM_RULES:
        key = re.sub(pattern, replacement, key)
    return key


def from_timm(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert a backbone's weights to the released names, without the classification head.

    Args:
        weights: Weights in the released layout or in timm's.
    """
    if any(key.startswith("stages.") for key in weights):
        weights = {from_timm_key(key): value for key, value in weights.items()}
    return {key: value for key, value in weights.items() if not key.startswith("head")}


def describe_weights(weights: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]] | None:
    """Infer the fields of the architecture from the shapes of weights; None if impossible."""
    found: dict[str, list[int]] = dict(embed_dims=[], depths=[], num_heads=[])
    kernels: dict[int, int] = {}
    stage = 1
    while any(key.startswith(f"blocks{stage}.") for key in weights):
        first = f"blocks{stage}.{SUBSAMPLING if stage > 1 else 0}."
        width = weights.get(first + "dw0.m.c.weight")
        if width is None:
            return None
        own = [key for key in weights if key.startswith(f"blocks{stage}.")]
        queries = sorted(key for key in own if re.search(r"dws\.\d\.c\.weight$", key))
        heads = [key for key in queries if key.startswith(first)]
        found["embed_dims"].append(len(width))
        found["depths"].append(sum(key.endswith(".dw0.m.c.weight") for key in own))
        found["num_heads"].append(len(heads))
        kernels.update({i: weights[key].shape[-1] for i, key in enumerate(heads)})
        stage += 1
    if stage == 1:
        return None
    return {name: tuple(values) for name, values in found.items()} | {
        "kernels": tuple(kernels[i] for i in sorted(kernels))
    }


def explain_weights(weights: Mapping[str, Tensor], own: Collection[str], model: str) -> str | None:
    """Explain why weights do not match a model, with advice; None if unknown.

    Args:
        weights: Weights with the released names.
        own: Names in the model's state dict.
        model: Name of the model, such as ``EfficientViT-M4``.
    """
    if not weights.keys() & set(own):
        return (
            f"Microsoft's (its names begin with {sorted({k.split('.')[0] for k in weights})[:4]}); "
            "give a released checkpoint, timm's efficientvit_m*, or one that was trained here"
        )
    stages = {key.split(".")[0] for key in own}
    if any(
        key.endswith(".c.bias") and key not in own and key.split(".")[0] in stages
        for key in weights
    ):
        return (
            f"it has a folded BatchNorm, but the {model} does not; build the model with deploy=True"
        )
    fields = describe_weights(weights)
    arch = name_arch(fields) if fields else None
    if arch and f"EfficientViT-{arch.upper()}" != model:
        return (
            f"it holds an EfficientViT-{arch.upper()}, but the model is an {model}; set "
            f"arch='{arch}' or give the checkpoint of the model"
        )
    return None
