"""Adapts a pretrained first convolution to another number of image channels."""

from __future__ import annotations

from mmengine.logging import print_log
from torch import Tensor


def adapt_channels(weight: Tensor, channels: int) -> Tensor:
    """Adapt a convolution's weight to another number of input channels.

    For one channel, the weights are summed: a grey image gives the same result as three equal
    channels. For any other number, they are repeated cyclically and scaled, which preserves the
    range of the sum over the channels.

    Args:
        weight: (C_out, C_in, ...).
        channels: New number of input channels.

    Returns:
        (C_out, channels, ...) in the same dtype.
    """
    old = weight.shape[1]
    if channels == 1:
        return weight.float().sum(1, keepdim=True).to(weight.dtype)
    repeated = weight.float()[:, [i % old for i in range(channels)]]
    return (repeated * (old / channels)).to(weight.dtype)


def adapt_stem(weights: dict[str, Tensor], name: str, own: Tensor, source: str) -> None:
    """Adapt the first convolution of pretrained weights to a model's channels, if they differ.

    Args:
        weights: Pretrained weights, changed in place.
        name: Name of the convolution's weight.
        own: The model's weight of that name, (C_out, C_in, ...).
        source: Name of the file for the log.
    """
    found = weights.get(name)
    if found is None or found.dim() != own.dim() or found.shape[1] == own.shape[1]:
        return
    if found.shape[:1] + found.shape[2:] != own.shape[:1] + own.shape[2:]:
        return  # of another model, which the comparison of all weights reports
    weights[name] = adapt_channels(found, own.shape[1])
    print_log(
        f"{source}: adapted '{name}' from {found.shape[1]} channels to the {own.shape[1]} of the "
        "model.",
        logger="current",
    )
