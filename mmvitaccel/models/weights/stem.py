"""A pretrained first convolution for images with another number of channels."""

from __future__ import annotations

from mmengine.logging import print_log
from torch import Tensor


def adapt_channels(weight: Tensor, channels: int) -> Tensor:
    """Make a convolution's weights for another number of input channels.

    To one channel they are summed: a grey image gives what it gives as three equal channels. To
    others they are repeated in turn and scaled, so that the sum over the channels stays in range.

    Args:
        weight: (C_out, C_in, ...).
        channels: The new C_in.

    Returns:
        (C_out, channels, ...) in the same dtype.
    """
    old = weight.shape[1]
    if channels == 1:
        return weight.float().sum(1, keepdim=True).to(weight.dtype)
    repeated = weight.float()[:, [i % old for i in range(channels)]]
    return (repeated * (old / channels)).to(weight.dtype)


def adapt_stem(weights: dict[str, Tensor], name: str, own: Tensor, source: str) -> None:
    """Adapt the first convolution among pretrained weights to a model's channels, if it has others.

    Args:
        weights: Changed in place.
        name: The convolution's weight among them.
        own: The model's.
        source: Where the weights come from, for the log.
    """
    found = weights.get(name)
    if found is None or found.dim() != own.dim() or found.shape[1] == own.shape[1]:
        return
    if found.shape[:1] + found.shape[2:] != own.shape[:1] + own.shape[2:]:
        return  # of another model: the comparison of all weights says so
    weights[name] = adapt_channels(found, own.shape[1])
    print_log(
        f"{source}: '{name}' was made for {found.shape[1]} channels and is adapted to the "
        f"{own.shape[1]} of the model.",
        logger="current",
    )
