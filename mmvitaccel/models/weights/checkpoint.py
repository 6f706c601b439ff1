"""A state dict out of a checkpoint from outside, wherever a training script has put it."""

from __future__ import annotations

import numpy as np
import torch
from mmengine.runner import CheckpointLoader
from torch import Tensor

from mmvitaccel.compat.checkpoint import safe_load

WRAPPERS = ("state_dict", "model", "model_state")
"""Keys under which training scripts keep the weights: mmengine's, most others', TAdaConv's."""


def read_state_dict(source: str) -> dict[str, Tensor]:
    """Read the weights of a ``.pth``, ``.pkl`` or ``.safetensors`` file; a pickle runs no code.

    Args:
        source: A path, or an address that mmengine knows (``https://``, ``torchvision://``), from
            which rank 0 downloads once.

    Returns:
        Names to tensors, taken out of a ``state_dict`` or ``model`` entry where there is one,
        without the ``module.`` of a distributed wrapper.

    Raises:
        FileNotFoundError: There is no such file, or it could not be downloaded.
        ValueError: The file is cut short, asks for more than tensors, or holds no weights.
    """
    return find_weights(read_content(source), source)


def find_weights(content: object, source: str) -> dict[str, Tensor]:
    """Find the state dict in what a checkpoint holds; numpy's arrays become tensors.

    Args:
        content: What was read.
        source: Where from, for the message.

    Raises:
        ValueError: There are no weights in it.
    """
    for wrapper in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
            break
    if not isinstance(content, dict) or not content:
        raise ValueError(
            f"{source}: there is no state dict in it but a {type(content).__name__}; give a file "
            "of weights."
        )
    weights = {}
    for name, value in content.items():
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
        weights[str(name).removeprefix("module.")] = value
    return weights


def is_plain(value: Tensor) -> bool:
    """Whether a tensor holds its numbers one by one, as a layer's weights do."""
    return value.layout is torch.strided and not value.is_meta and not value.is_quantized


def read_content(source: str) -> object:
    """Return whatever a file or an address holds."""
    if "://" not in source:
        return safe_load(source, map_location="cpu")
    try:
        return CheckpointLoader.load_checkpoint(source, map_location="cpu")
    except OSError as error:
        raise FileNotFoundError(
            f"{source}: it could not be downloaded ({error}); get the file elsewhere and give its "
            "path."
        ) from error
