"""A state dict out of a checkpoint from outside, wherever a training script has put it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from mmengine.runner import CheckpointLoader
from torch import Tensor

from mmvitaccel.compat.checkpoint import safe_load

WRAPPERS = ("state_dict", "model", "model_state")
"""Keys under which training scripts keep the weights: mmengine's, most others', TAdaConv's."""


def read_content(source: str) -> object:
    """Read whatever a ``.pth``, ``.pkl`` or ``.safetensors`` file holds; a pickle runs no code.

    Args:
        source: A path, or an address that mmengine knows (``https://``, ``torchvision://``), from
            which rank 0 downloads once.

    Raises:
        FileNotFoundError: There is no such file, or it could not be downloaded.
        ValueError: The file is cut short, or asks for more than tensors.
    """
    if "://" not in source:
        return safe_load(source, map_location="cpu")
    try:
        return CheckpointLoader.load_checkpoint(source, map_location="cpu")
    except OSError as error:
        raise FileNotFoundError(
            f"{source}: it could not be downloaded ({error}); get the file elsewhere and give its "
            "path."
        ) from error


def find_weights(content: object, source: str, entry: str = "") -> dict[str, Tensor]:
    """Find the state dict in what a checkpoint holds; numpy's arrays become tensors.

    Args:
        content: What was read.
        source: Where from, for the message.
        entry: The key under which the weights are, such as ``ema_state_dict``; by default the
            first of :data:`WRAPPERS` that is there, else the only one that holds tensors.

    Raises:
        ValueError: There are no weights in it, or several and none is named.
    """
    weights = _entry(content, source, entry)
    # reason: what was saved as a checkpoint may have been one already
    while isinstance(weights, dict) and usual_entry(weights) and not _holds_weights(weights):
        weights = weights[usual_entry(weights)]
    if not isinstance(weights, dict) or not weights:
        raise ValueError(
            f"{source}: there is no state dict in it but a {type(weights).__name__}; give a file "
            "of weights."
        )
    return {str(name): _as_weight(str(name), value, source) for name, value in weights.items()}


def weight_entries(content: object) -> list[str]:
    """The keys of a checkpoint that hold weights: names to tensors, in the file's order."""
    if not isinstance(content, Mapping):
        return []
    return [k for k, value in content.items() if isinstance(k, str) and _holds_weights(value)]


def usual_entry(content: object) -> str:
    """The key of a checkpoint whose weights are taken; empty where it is itself the weights."""
    if not isinstance(content, dict):
        return ""
    named = [key for key in WRAPPERS if isinstance(content.get(key), dict)]
    plain = any(isinstance(value, (Tensor, np.ndarray)) for value in content.values())
    found = named or ([] if plain else weight_entries(content))
    return found[0] if found else ""


def _holds_weights(value: object) -> bool:
    """Whether something is a state dict, with a count beside the tensors or without."""
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        return False
    # reason: states of schedulers and random generators hold tensors too, by other names
    return any(
        isinstance(v, (Tensor, np.ndarray)) and ("." in name or name in ("weight", "bias"))
        for name, v in value.items()
    )


def _entry(content: Any, source: str, entry: str) -> Any:
    if isinstance(content, dict) and entry:
        if not _holds_weights(content.get(entry)):
            held = ", ".join(weight_entries(content)) or "none"
            raise ValueError(
                f"{source}: it holds no weights under {entry!r}; the entries that hold weights: "
                f"{held}."
            )
        return content[entry]
    if isinstance(content, dict):
        taken = usual_entry(content)
        entries = weight_entries(content)
        if taken in entries and taken not in WRAPPERS and len(entries) > 1:
            raise ValueError(
                f"{source}: it holds weights under {', '.join(map(repr, entries))}; say which are "
                "meant with --weights, in an init_cfg with weights=."
            )
        return content[taken] if taken else content
    return content


def _as_weight(name: str, value: Any, source: str) -> Tensor:
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        # reason: arrays out of a pickle may be read-only or big-endian, which torch is not
        value = torch.from_numpy(np.array(value, value.dtype.newbyteorder("=")))
    if not isinstance(value, Tensor) or not is_plain(value):
        kind = f"{value.layout} tensor" if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(
            f"{source}: there is no state dict in it, '{name}' is a {kind}; put the weights "
            f"under '{WRAPPERS[0]}' or save them alone."
        )
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise ValueError(
            f"{source}: '{name}' has more numbers than the file holds for it; save a copy of "
            "it that is not expanded."
        )
    return value


def is_plain(value: Tensor) -> bool:
    """Whether a tensor holds its numbers one by one, as a layer's weights do."""
    return value.layout is torch.strided and not value.is_meta and not value.is_quantized
