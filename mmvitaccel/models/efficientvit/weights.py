"""Layouts in which weights of Microsoft's EfficientViT are found, and whether they fit a model."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Size, Tensor

ARCHS: dict[str, dict[str, tuple[int, ...]]] = {
    name: dict(embed_dims=widths, depths=depths, num_heads=heads, kernels=kernels)
    for name, widths, depths, heads, kernels in (
        ("m0", (64, 128, 192), (1, 2, 3), (4, 4, 4), (5, 5, 5, 5)),
        ("m1", (128, 144, 192), (1, 2, 3), (2, 3, 3), (7, 5, 3, 3)),
        ("m2", (128, 192, 224), (1, 2, 3), (4, 3, 2), (7, 5, 3, 3)),
        ("m3", (128, 240, 320), (1, 2, 3), (4, 3, 4), (5, 5, 5, 5)),
        ("m4", (128, 256, 384), (1, 2, 3), (4, 4, 4), (7, 5, 3, 3)),
        ("m5", (192, 288, 384), (1, 3, 4), (3, 3, 4), (7, 5, 3, 3)),
    )
}
"""Table 1 of the paper; ``kernels`` are those of the query convolutions, head by head."""

SUBSAMPLING = 3
"""Modules between two stages: they come first in the later stage's ``blocksN``."""

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
    """Translate a parameter name of timm's ``efficientvit_m*`` into the released one."""
    for pattern, replacement in TIMM_RULES:
        key = re.sub(pattern, replacement, key)
    return key


def backbone_weights(state_dict: Mapping[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    """Return a backbone's weights under the released names.

    Args:
        state_dict: In the released layout, in timm's, or that of a whole detector.
        prefix: What precedes the backbone's names. By default ``backbone.`` where some name
            begins with it.

    Returns:
        New mapping, without the classification head.
    """
    if not prefix and any(key.startswith("backbone.") for key in state_dict):
        prefix = "backbone."
    weights = {
        key[len(prefix) :]: value for key, value in state_dict.items() if key.startswith(prefix)
    }
    if any(key.startswith("stages.") for key in weights):
        weights = {from_timm_key(key): value for key, value in weights.items()}
    return {key: value for key, value in weights.items() if not key.startswith("head")}


def describe_weights(weights: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]] | None:
    """Read widths, depths, heads and kernels from the shapes of weights, None if there are none."""
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


def name_arch(fields: Mapping[str, tuple[int, ...]]) -> str | None:
    """Return the published model that stages with these fields begin or are, None if none is."""
    stages = len(fields["embed_dims"])
    heads = max(fields["num_heads"], default=0)
    for name, arch in ARCHS.items():
        same = all(
            arch[field][:stages] == tuple(fields[field])
            for field in ("embed_dims", "depths", "num_heads")
        )
        if same and arch["kernels"][:heads] == tuple(fields["kernels"])[:heads]:
            return name
    return None


def check_fit(
    source: str, weights: Mapping[str, Tensor], expected: Mapping[str, Size], model: str
) -> None:
    """Check that weights have the names and shapes of a model, window sizes aside.

    Args:
        source: Where they come from, for the message.
        weights: Under the released names; stages that the model does not have are left alone.
        expected: Names and shapes of the model's state dict.
        model: What the model is, such as ``EfficientViT-M4``.

    Raises:
        ValueError: In one sentence, naming the difference.
    """
    needed = {key: shape for key, shape in expected.items() if not is_derived(key)}
    missing = [key for key in needed if key not in weights]
    if len(missing) == len(needed):
        raise ValueError(
            f"{source}: it holds no weights of Microsoft's EfficientViT (its names begin with "
            f"{sorted({key.split('.')[0] for key in weights})[:4]}); give a released checkpoint, "
            "timm's efficientvit_m*, or one that was trained here."
        )
    stages = {key.split(".")[0] for key in expected}
    extra = [
        key
        for key in weights
        if key not in expected and not is_derived(key) and key.split(".")[0] in stages
    ]
    wrong = [key for key in needed if key in weights and not same(key, weights[key], needed[key])]
    if not (missing or extra or wrong):
        return
    fields = describe_weights(weights)
    arch = name_arch(fields) if fields else None
    if any(key.endswith(".c.bias") for key in extra):
        what = (
            f"it has its BatchNorm folded in, but the {model} has not; build the model with "
            "deploy=True"
        )
    elif arch and f"EfficientViT-{arch.upper()}" != model:
        what = (
            f"it holds an EfficientViT-{arch.upper()}, but the model is an {model}; set "
            f"arch='{arch}' or give the checkpoint of the model"
        )
    elif wrong:
        shape, own = tuple(weights[wrong[0]].shape), tuple(needed[wrong[0]])
        what = f"'{wrong[0]}' is {shape} and not {own} as in an {model}; set arch to its own"
    elif extra:
        what = f"'{extra[0]}' is in no {model}; set arch to that of the checkpoint"
    else:
        what = (
            f"it lacks {len(missing)} of the {len(needed)} tensors of an {model}, first "
            f"'{missing[0]}'; it was cut short or is of another model"
        )
    raise ValueError(f"{source}: {what}.")


def is_derived(key: str) -> bool:
    """Whether a tensor says nothing about the weights: an index, or a count of batches."""
    return key.endswith(("attention_bias_idxs", "num_batches_tracked"))


def same(key: str, weight: Tensor, shape: Size) -> bool:
    """Whether a tensor fits a shape, or is a bias table that can be resized to it."""
    if key.endswith("attention_biases") and weight.dim() == 2:
        square = round(weight.shape[1] ** 0.5) ** 2 == weight.shape[1]
        return square and weight.shape[0] == shape[0]
    return weight.shape == shape
