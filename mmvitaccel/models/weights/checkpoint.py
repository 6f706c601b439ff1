"""Finds the state dict in checkpoints of any training script."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from mmengine.runner import CheckpointLoader
from torch import Tensor

from mmvitaccel.compat.checkpoint import safe_load

WRAPPERS = ("state_dict", "model", "model_state")
"""Keys under which training scripts store weights: mmengine's, most others', TAdaConv's."""


def read_content(source: str) -> object:
    """Read a ``.pth``, ``.pkl`` or ``.safetensors`` file, without executing code.

    Args:
        source: A path, or a URL supported by mmengine (``https://``, ``torchvision://``), which
            rank 0 downloads once.

    Raises:
        FileNotFoundError: The file does not exist or cannot be downloaded.
        ValueError: The file is truncated, or requires more than tensors.
    """
    if "://" not in source:
        return safe_load(source, map_location="cpu")
    try:
        return CheckpointLoader.load_checkpoint(source, map_location="cpu")
    except OSError as error:
        raise FileNotFoundError(
            f"{source}: it could not be downloaded ({error}); download the file in another way and "
            "give its path."
        ) from error


def find_weights(content: object, source: str, entry: str = "") -> dict[str, Tensor]:
    """Find the state dict in a checkpoint; numpy arrays become tensors.

    Args:
        content: Content of the file.
        source: Name of the file for messages.
        entry: Key of the weights, such as ``ema_state_dict``; by default the first existing one of
            :data:`WRAPPERS`, else the only entry with tensors.

    Raises:
        ValueError: There are no weights, or there are several entries and none is selected.
    """
    weights = _entry(content, source, entry)
    # Checkpoints may be nested
    while isinstance(weights, dict) and usual_entry(weights) and not _holds_weights(weights):
        weights = weights[usual_entry(weights)]
    if not isinstance(weights, dict) or not weights:
        raise ValueError(
            f"{source}: it contains no state dict but a {type(weights).__name__}; give a file with "
            "weights."
        )
    return {str(name): _as_weight(str(name), value, source) for name, value in weights.items()}


def weight_entries(content: object) -> list[str]:
    """Return the keys of a checkpoint whose values are weights, in the file's order."""
    if not isinstance(content, Mapping):
        return []
    return [k for k, value in content.items() if isinstance(k, str) and _holds_weights(value)]


def usual_entry(content: object) -> str:
    """Return the default key of the weights; empty if the checkpoint is a state dict itself."""
    if not isinstance(content, dict):
        return ""
    named = [key for key in WRAPPERS if isinstance(content.get(key), dict)]
    plain = any(isinstance(value, (Tensor, np.ndarray)) for value in content.values())
    found = named or ([] if plain else weight_entries(content))
    return found[0] if found else ""


def _holds_weights(value: object) -> bool:
    """Whether a value is a state dict, possibly with other entries such as a counter."""
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        return False
    # States of schedulers and random generators also have tensors, with other names
    return any(
        isinstance(v, (Tensor, np.ndarray)) and ("." in name or name in ("weight", "bias"))
        for name, v in value.items()
    )


def _entry(content: Any, source: str, entry: str) -> Any:
    if isinstance(content, dict) and entry:
        if not _holds_weights(content.get(entry)):
            held = ", ".join(weight_entries(content)) or "none"
            raise ValueError(
                f"{source}: it has no weights under {entry!r}; its entries with weights: {held}."
            )
        return content[entry]
    if isinstance(content, dict):
        taken = usual_entry(content)
        entries = weight_entries(content)
        if taken in entries and taken not in WRAPPERS and len(entries) > 1:
            raise ValueError(
                f"{source}: it has weights under {', '.join(map(repr, entries))}; select one with "
                "--weights, or with weights= in an init_cfg."
            )
        return content[taken] if taken else content
    return content


def _as_weight(name: str, value: Any, source: str) -> Tensor:
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        # torch does not accept the read-only or big-endian arrays that a pickle may have
        value = torch.from_numpy(np.array(value, value.dtype.newbyteorder("=")))
    if not isinstance(value, Tensor) or not is_plain(value):
        kind = _kind(value)
        raise ValueError(
            f"{source}: it contains no state dict, because '{name}' is a {kind}; save the weights "
            f"under '{WRAPPERS[0]}' or in a file of their own."
        )
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise ValueError(
            f"{source}: '{name}' has more values than the file stores for it; save a contiguous "
            "copy of it."
        )
    return value


def _kind(value: Any) -> str:
    """What an entry is that is no plain tensor."""
    if not isinstance(value, Tensor):
        return type(value).__name__
    # A quantized tensor has a plain one's layout
    named = {value.is_quantized: "quantized", value.is_meta: "meta"}
    return f"{named.get(True, value.layout)} tensor"


def is_plain(value: Tensor) -> bool:
    """Whether a tensor stores each of its values, like a layer's weights."""
    return value.layout is torch.strided and not value.is_meta and not value.is_quantized
